"""Reads a person's own pictures of digits with the ensemble of a run: a table, records for programs, and a picture."""

import json
import sys
import warnings
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from digit_recognizer import SIDE
from digit_recognizer.data.digits import CLASSES
from digit_recognizer.files import UserError, atomic, check_target, reading, write_figure
from digit_recognizer.pictures.find import Digit, find_digits
from digit_recognizer.pictures.load import picture_endings, read_picture
from digit_recognizer.results.ensemble import trained_models
from digit_recognizer.runs.directory import Run, announced
from digit_recognizer.training import backend

SAVE_ENDINGS = (".png", ".jpg", ".pdf", ".svg")  # of the picture to write
TOO_WIDE = "wider than a digit is: do several touch? They are read as one"
MAX_DRAWN_PICTURES = 50  # in the figure that is written

_DOUBTFUL = 0.6  # probability of the best class, below which a note says so
_COLUMNS = 3  # of digits beside a picture
_MIN_ROWS = 4  # of digits beside a picture, so that it is not too small
_CELL = (86, 40)  # a digit of 28 x 28 and its probabilities: width and height in the digit's pixels
_GAP = 3  # pixels from the digit to the bars of its probabilities
_INCHES = 0.021  # a pixel of a cell
_DPI, _MOST_PIXELS = 110, 65_000  # JPEG holds no more than 65,535 of height


@dataclass(frozen=True, eq=False)  # arrays do not compare
class PictureResult:
    """The digits of a picture and their probabilities, or the `error` if it cannot be read."""

    path: Path
    pixels: np.ndarray | None = None  # uint8 (height, width, 3), None if it is not drawn
    scale: float = 1.0  # pixels of the file for one of them
    digits: Sequence[Digit] = ()
    probabilities: np.ndarray = field(default_factory=lambda: np.empty((0, CLASSES)))  # float (digits, 10)
    notes: Sequence[str] = ()
    error: str = ""

    def digit_note(self, index: int) -> str:
        """Returns what is doubtful about a digit, or ""."""
        if self.digits[index].is_too_wide:
            return TOO_WIDE
        shares = [f"{label} ({self.probabilities[index, label]:.2f})" for label in self.best_two(index)]
        is_doubtful = self.probabilities[index].max() < _DOUBTFUL
        return f"doubtful: {' or '.join(shares)}" if is_doubtful else ""

    def best_two(self, index: int) -> list[int]:
        """Returns the two most probable classes of a digit."""
        return np.argsort(-self.probabilities[index], kind="stable")[:2].tolist()


def print_predictions(
    run: Run, pictures: Sequence[Path], save: Path | None = None, csv: Path | None = None, as_json: bool = False
) -> None:
    """Prints what the ensemble of `run` reads in pictures, files or folders, and writes a picture of it.

    The picture is `save`, by default report/predictions.png; none without digits. `csv` is a table to write, too. With
    `as_json` stdout gets the records as JSON, the text for people goes to stderr, and `save` has no default.

    Raises UserError if a network, a folder or all of the pictures cannot be read, or if a file cannot be written. A
    picture that cannot be read is a note if another one can be read.
    """
    models, settings = trained_models(run), run.require_settings()
    files = _list_files(pictures)
    target = save or (None if as_json else run.predictions)
    if target and target.suffix not in SAVE_ENDINGS:
        endings = f"{', '.join(SAVE_ENDINGS[:-1])} or {SAVE_ENDINGS[-1]}"
        raise UserError(f"--save {target}: its name has to end in {endings}")
    for option, path in (("--save", target), ("--csv", csv)):
        if path and path.resolve() in [picture.resolve() for picture in files]:
            raise UserError(f"{option} {path}: that is a picture to read: take another name")
        if path:
            check_target(option, path, is_given=path != run.predictions)
    results = _look(files)
    with redirect_stdout(sys.stderr) if as_json else nullcontext(), announced(run):
        results = _predict(models, results, settings.get("threads") or backend.cores())
        print(format_results(results))
        if target and any(result.digits for result in results):
            write_picture(results, target)
            print(f"{target}: what was found, and what the network saw")
        if csv:
            with atomic(csv, several_writers=True) as file:
                to_table(results).to_csv(file, index=False, errors="backslashreplace")
            print(f"{csv}: {sum(len(result.digits) for result in results)} digits")
    if as_json:
        print(json.dumps(to_records(results), indent=1))


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


def _look(files: list[Path]) -> list[PictureResult]:
    """Returns the digits of each picture, without probabilities yet; raises UserError if no picture can be read."""
    results = []
    for path in files:
        try:
            pixels, scale = read_picture(path)
        except UserError as error:
            results.append(PictureResult(path, error=str(error)))
            continue
        digits, notes = find_digits(pixels)
        # the pixels of thousands of photos would fill the memory
        shown = pixels if sum(result.pixels is not None for result in results) < MAX_DRAWN_PICTURES else None
        results.append(PictureResult(path, shown, scale, digits, notes=notes))
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


def format_results(results: list[PictureResult]) -> str:
    """Returns a line for each digit, in reading order, with the two most probable classes; then notes."""
    rows, notes = [], []
    for result in results:
        notes += [result.error] if result.error else [f"{result.path}: {note}" for note in result.notes]
        for index, probabilities in enumerate(result.probabilities):
            first, second = result.best_two(index)
            other = f"{second} ({probabilities[second]:.4f})"
            rows.append((result.path, index + 1, first, f"{probabilities[first]:.4f}", other))
            if note := result.digit_note(index):
                notes.append(f"{result.path}: number {index + 1} is {note}")
    table = pd.DataFrame(rows, columns=["file", "number", "digit", "probability", "second best"])
    return "\n".join([table.to_string(index=False), *notes] if rows else notes)


def to_records(results: list[PictureResult]) -> list[dict[str, Any]]:
    """Returns a record for each digit, and one without a digit for a picture that has none or cannot be read.

    `box` is (top, left, bottom, right) in pixels of the upright picture; bottom and right are exclusive.
    `probabilities` are those of the digits 0 to 9. `notes` has the notes on the digit, then those on its picture.
    """
    records: list[tuple] = []
    names = ("file", "number", "box", "digit", "probabilities", "notes")
    for result in results:
        file, notes = str(result.path), [result.error] if result.error else list(result.notes)
        if not result.digits:
            records.append((file, None, None, None, None, notes))
        for index, (digit, probabilities) in enumerate(zip(result.digits, result.probabilities, strict=True)):
            box = [round(edge * result.scale) for edge in digit.box]
            shares = [round(float(share), 6) for share in probabilities]
            of_digit = [note for note in (result.digit_note(index), *notes) if note]
            records.append((file, index + 1, box, int(probabilities.argmax()), shares, of_digit))
    return [dict(zip(names, record, strict=True)) for record in records]


def to_table(results: list[PictureResult]) -> pd.DataFrame:
    """Returns the records as a table, with a column for each edge of the box and each probability."""
    records = to_records(results)
    table = pd.DataFrame(records).astype({"number": "Int64", "digit": "Int64"})
    edges = ["top", "left", "bottom", "right"]
    boxes = pd.DataFrame([record["box"] or [None] * 4 for record in records], columns=edges, dtype="Int64")
    shares = pd.DataFrame([record["probabilities"] or [None] * CLASSES for record in records])
    notes = table["notes"].map("; ".join)
    parts = [table[["file", "number"]], boxes, table["digit"], shares.add_prefix("probability_"), notes]
    return pd.concat(parts, axis="columns")


def write_picture(results: list[PictureResult], path: Path) -> None:
    """Writes the picture of `draw` to `path`, in the format that its ending names."""
    path.parent.mkdir(exist_ok=True)
    figure = draw([result for result in results if result.pixels is not None])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a name in letters that the font lacks
        write_figure(path, figure, min(_DPI, int(_MOST_PIXELS / figure.get_figheight())))


def draw(results: list[PictureResult]) -> matplotlib.figure.Figure:
    """Returns each picture with its digits framed; beside it what the network saw and the probabilities."""
    heights = [_rows(result) * _CELL[1] * _INCHES + 0.3 for result in results]
    figure = matplotlib.figure.Figure(figsize=(11, sum(heights)), layout="constrained")
    grid = figure.subplots(len(results), 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for (left, right), result in zip(grid, results, strict=True):
        _draw_picture(left, result)
        _draw_digits(right, result)
    return figure


def _rows(result: PictureResult) -> int:
    return max(_MIN_ROWS, -(-len(result.digits) // _COLUMNS))


def _draw_picture(axes: Axes, result: PictureResult) -> None:
    axes.imshow(np.asarray(result.pixels))
    for number, digit in enumerate(result.digits, start=1):
        top, left, bottom, right = digit.box
        frame = ([left, right, right, left, left], [top, top, bottom, bottom, top])
        axes.plot(*frame, color="tab:red", linewidth=0.8)
        axes.text(left, top, str(number), color="tab:red", fontsize=7, va="bottom")
    name = result.path.name.encode("utf-8", "backslashreplace").decode()  # bytes of another encoding are no text
    title = name if result.digits else f"{name}: {result.notes[0]}"
    axes.set_title(title, fontsize=8, parse_math=False)  # a name may hold $
    axes.axis("off")


def _draw_digits(axes: Axes, result: PictureResult) -> None:
    """Draws the digits as the network takes them, each with a bar for the probability of each class."""
    width, height = _CELL
    unit = (width - SIDE - 3 * _GAP) / CLASSES  # of a bar
    for index, (digit, probabilities) in enumerate(zip(result.digits, result.probabilities, strict=True)):
        x, y = index % _COLUMNS * width, index // _COLUMNS * height
        axes.imshow(digit.image, cmap="gray", vmin=0, vmax=255, extent=(x, x + SIDE, y + SIDE, y))
        bars = x + SIDE + _GAP + unit * (np.arange(CLASSES) + 0.5)
        best = probabilities.argmax()
        colours = ["tab:green" if label == best else "tab:gray" for label in range(CLASSES)]
        axes.bar(bars, -probabilities * SIDE, 0.8 * unit, bottom=y + SIDE, color=colours)
        for label in range(CLASSES):
            axes.text(bars[label], y + SIDE + 1, str(label), fontsize=6, ha="center", va="top")
        axes.text(x, y - 1, str(index + 1), color="tab:red", fontsize=7)
        axes.text(bars[0], y - 1, f"{best}: {probabilities.max():.4f}", fontsize=7)
    axes.set(xlim=(0, _COLUMNS * width), ylim=(_rows(result) * height, -8), aspect="equal")
    axes.axis("off")
