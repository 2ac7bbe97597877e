"""Reads a person's own pictures of digits with the ensemble of a run."""

import json
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext, redirect_stdout
from dataclasses import replace
from pathlib import Path

import numpy as np

from digit_recognizer.data import paths
from digit_recognizer.data.paths import Locations
from digit_recognizer.files import UserError, atomic, check_target, reading
from digit_recognizer.inference import show
from digit_recognizer.inference.show import PictureResult
from digit_recognizer.pictures.find import find_digits
from digit_recognizer.pictures.load import picture_endings, read_picture
from digit_recognizer.results.ensemble import trained_models
from digit_recognizer.runs.directory import Run
from digit_recognizer.training import backend

SAVE_ENDINGS = (".png", ".jpg", ".pdf", ".svg")  # of the picture to write


def find_trained_run(output: Path | None) -> Run:
    """Returns the run in the folder `output`; if that is None, the default run, else the sample's.

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


def announced(run: Run) -> AbstractContextManager:
    """Returns a context that begins and ends with the notice of the sample if `run` was trained on it."""
    is_sample = run.require_settings().get("data") == "sample"
    return Locations(None if is_sample else run.folder, run.folder).announced()


def print_predictions(
    run: Run, pictures: Sequence[Path], save: Path | None = None, csv: Path | None = None, as_json: bool = False
) -> None:
    """Prints what the ensemble of `run` reads in pictures, and writes a picture of it if there are digits.

    Args:
        run: a trained run or a blend.
        pictures: files, and folders with pictures.
        save: the picture to write, by default report/predictions.png; with `as_json` there is no default.
        csv: a table to write, too.
        as_json: whether stdout gets the records as JSON, and the text for people goes to stderr.

    Raises UserError if a network, a folder or all of the pictures cannot be read, or if a file cannot be written. A picture
    that cannot be read is a note if another one can be read.
    """
    models, settings = trained_models(run), run.require_settings()
    files = _list_files(pictures)
    target = save or (None if as_json else run.predictions)
    for option, path in (("--save", target), ("--csv", csv)):
        if path:
            _check_target(option, path, files, is_given=path != run.predictions)
    results = _look(files)
    with redirect_stdout(sys.stderr) if as_json else nullcontext(), announced(run):
        results = _predict(models, results, settings.get("threads") or backend.cores())
        print(show.format_results(results))
        if target and any(result.digits for result in results):
            show.write_picture(results, target)
            print(f"{target}: what was found, and what the network saw")
        if csv:
            with atomic(csv, several_writers=True) as file:
                show.to_table(results).to_csv(file, index=False, errors="backslashreplace")
            print(f"{csv}: {sum(len(result.digits) for result in results)} digits")
    if as_json:
        print(json.dumps(show.to_records(results), indent=1))


def _list_files(pictures: Sequence[Path]) -> list[Path]:
    """Returns the files, and the picture files below the folders, sorted; raises UserError for a folder without any."""
    files, endings = [], picture_endings()
    for path in pictures:
        if not path.is_dir():
            files.append(path)
            continue
        with reading(path, "name the pictures in it"):
            inside = [file for file in sorted(path.rglob("*")) if file.suffix.lower() in endings and file.is_file()]
        inside = [file for file in inside if not any(part[0] == "." for part in file.relative_to(path).parts)]
        if not inside:
            raise UserError(f"{path} holds no pictures: their names have to end in {', '.join(endings)}")
        files += inside
    return list(dict.fromkeys(files))


def _check_target(option: str, path: Path, pictures: list[Path], is_given: bool) -> None:
    """Raises UserError if `path`, the option's value or its default, cannot be written or is a picture to read."""
    if option == "--save" and path.suffix not in SAVE_ENDINGS:
        raise UserError(f"--save {path}: its name has to end in {', '.join(SAVE_ENDINGS[:-1])} or {SAVE_ENDINGS[-1]}")
    if path.resolve() in [picture.resolve() for picture in pictures]:
        raise UserError(f"{option} {path}: that is a picture to read: take another name")
    check_target(option, path, is_given)


def _look(files: list[Path]) -> list[PictureResult]:
    """Returns the digits of each picture, without probabilities yet; raises UserError if no picture can be read."""
    results = []
    for path in files:
        try:
            picture = read_picture(path)
        except UserError as error:
            results.append(PictureResult(path, error=str(error)))
            continue
        digits, notes = find_digits(picture.pixels)
        # the pixels of thousands of photos would fill the memory
        pixels = picture.pixels if len(results) < show.MOST_PICTURES else None
        results.append(PictureResult(path, pixels, picture.scale, digits, notes=notes))
    if all(result.error for result in results):
        others = f" (nor can the other {len(files) - 1} pictures)" if len(files) > 1 else ""
        raise UserError(results[0].error + others)
    return results


def _predict(models: dict[Path, float], results: list[PictureResult], threads: int) -> list[PictureResult]:
    """Returns the results with probabilities; starts Keras only if there is a digit."""
    images = [digit.image for result in results for digit in result.digits]
    if not images:
        return results
    backend.start(threads)
    # with Keras, which is imported once there is something to predict
    from digit_recognizer.training.predict import Ensemble

    probabilities, _ = Ensemble(models).predict(np.array(images))
    shares = np.split(probabilities, np.cumsum([len(result.digits) for result in results])[:-1])
    return [replace(result, probabilities=share) for result, share in zip(results, shares, strict=True)]
