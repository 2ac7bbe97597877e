"""Reads a person's own pictures of digits, photographed, scanned or drawn, with the ensemble of a run."""

import sys
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np

from digit_recognizer import cli
from digit_recognizer.data import places
from digit_recognizer.errors import UserError
from digit_recognizer.pictures import find, show
from digit_recognizer.results import ensemble
from digit_recognizer.run import Run
from digit_recognizer.training import backend


def check_save(path: Path, files: list[Path]) -> None:
    if path.suffix not in (".png", ".jpg", ".pdf", ".svg"):
        raise UserError(f"--save {path}: its name has to end in .png, .jpg, .pdf or .svg")
    if not path.parent.is_dir():
        raise UserError(f"--save {path}: there is no folder {path.parent}: make it first")
    if path.resolve() in [file.resolve() for file in files]:
        raise UserError(f"--save {path}: that is a picture to read: take another name")


def predict() -> None:
    parser = cli.Parser(__doc__)
    parser.add_argument(
        "pictures", metavar="PICTURE", type=Path, nargs="+", help="of one digit or several that stand apart"
    )
    parser.add_argument(
        "--save",
        metavar="FILE",
        type=Path,
        help="what was found and read, as a picture (default: report/show.png of the run)",
    )
    options = parser.parse_args()
    backend.chosen()
    run = Run(options.output or places.find(options.input, None).output)
    models = ensemble.trained_models(run)
    settings = run.settings()
    if options.save:
        check_save(options.save, options.pictures)
    # nothing is predicted or written before every file is known to be good
    pixels = [find.read(path) for path in options.pictures]
    digits = [find.find(each) for each in pixels]

    is_sample = settings.get("data") == "sample"
    if is_sample:
        print(places.SAMPLE_NOTICE, flush=True)
    with nullcontext() if options.save else run.lock():
        images = [digit.image for each in digits for digit in each]
        probabilities = np.empty((0, 10))
        if images:
            backend.start(settings.get("threads") or backend.cores())
            probabilities = ensemble.predict_images(models, np.array(images))
        given = np.split(probabilities, np.cumsum([len(each) for each in digits])[:-1])
        readings = [show.Reading(*each) for each in zip(options.pictures, pixels, digits, given, strict=True)]
        print(show.text(readings))
        show.write(readings, options.save or run.predictions)
    print(f"{options.save or run.predictions}: what was found, and what the network saw")
    if is_sample:
        print(places.SAMPLE_NOTICE)


if __name__ == "__main__":
    cli.main(predict, "nothing is half written")
