"""Reads a person's own pictures of digits with the ensemble of a run."""

from contextlib import nullcontext
from pathlib import Path

import numpy as np

from digit_recognizer.data import paths
from digit_recognizer.data.digits import CLASSES
from digit_recognizer.data.paths import Locations
from digit_recognizer.files import UserError
from digit_recognizer.inference.show import PhotoResult, format_results, write_results
from digit_recognizer.pictures.find import find_digits
from digit_recognizer.pictures.load import read_picture
from digit_recognizer.results.ensemble import trained_models
from digit_recognizer.runs.directory import Run
from digit_recognizer.training import backend

ENDINGS = (".png", ".jpg", ".pdf", ".svg")  # of the picture to write


def find_trained_run(output: Path | None) -> Run:
    """Returns the run in the folder `output`; where that is None the default run, else the sample's.

    No data is looked for: a trained run needs none to predict.

    Raises UserError if the folder holds no run, or several that are not blended.
    """
    run = Run(output or paths.output_folder(None))
    if output is None and run.settings() is None:
        sample = Run(paths.output_folder(None, "sample"))
        run = sample if sample.settings() else run
    if run.settings() is None and run.child_runs():
        names = ", ".join(child.folder.name for child in run.child_runs())
        raise UserError(
            f"{run.folder} holds several runs ({names}): give one of them as --output, or run "
            f"scripts/ensemble.py --output {run.folder} first"
        )
    run.require_settings()
    return run


def print_predictions(run: Run, paths: list[Path], save: Path | None = None) -> None:
    """Prints what the ensemble of `run` reads in pictures, and writes that to `save`, else report/predictions.png.

    Raises UserError if a network or a picture can't be read, before anything is predicted or written.
    """
    models, settings = trained_models(run), run.require_settings()
    if save:
        _check_save(save, paths)
    pixels = [read_picture(path) for path in paths]
    sample = settings.get("data") == "sample"
    target = save or run.predictions
    with Locations(None if sample else run.folder, run.folder).announced():
        with nullcontext() if save else run.lock():
            results = _predict(models, paths, pixels, settings.get("threads") or backend.cores())
            print(format_results(results))
            write_results(results, target)
        print(f"{target}: what was found, and what the network saw")


def _check_save(save: Path, paths: list[Path]) -> None:
    """Raises UserError if `save` can't be written, or is one of the pictures."""
    if save.suffix not in ENDINGS:
        raise UserError(f"--save {save}: its name has to end in {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}")
    if not save.parent.is_dir():
        raise UserError(f"--save {save}: there is no folder {save.parent}: make it first")
    if save.resolve() in [path.resolve() for path in paths]:
        raise UserError(f"--save {save}: that is a picture to read: take another name")


def _predict(models: dict[Path, float], paths: list[Path], pixels: list[np.ndarray], threads: int) -> list[PhotoResult]:
    """Returns the digits of each picture with their probabilities; starts Keras only if there is a digit."""
    digits = [find_digits(each) for each in pixels]
    images = [digit.image for each in digits for digit in each]
    probabilities = np.empty((0, CLASSES))
    if images:
        backend.start(threads)
        # with Keras, which is imported once there is something to predict
        from digit_recognizer.training.predict import predict_ensemble

        probabilities = predict_ensemble(models, np.array(images))
    shares = np.split(probabilities, np.cumsum([len(each) for each in digits])[:-1])
    return [PhotoResult(*each) for each in zip(paths, pixels, digits, shares, strict=True)]
