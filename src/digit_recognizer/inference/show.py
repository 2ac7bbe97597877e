"""Shows what the ensemble reads in a person's own pictures: a table for the terminal, and a picture."""

import warnings
from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from digit_recognizer.data.digits import CLASSES, SIDE
from digit_recognizer.files import write_figure
from digit_recognizer.pictures.find import FoundDigit

NO_INK = "no digit: nothing stands out from the paper as ink does"
TOO_WIDE = "wider than a digit is: do several touch? They are read as one"

_COLUMNS = 3  # of digits beside a picture
_MIN_ROWS = 4  # of digits beside a picture, so that it is not too small
_CELL = (86, 40)  # a digit of 28 x 28 and its probabilities: width and height in the digit's pixels
_GAP = 3  # pixels from the digit to the bars of its probabilities
_INCHES = 0.021  # a pixel of a cell
_DPI, _MOST_PIXELS = 110, 65_000  # JPEG holds no more than 65,535 of height


@dataclass(frozen=True)
class PhotoResult:
    """A picture, uint8 (height, width, 3), the digits in it, and their probabilities, float (digits, 10)."""

    path: Path
    pixels: np.ndarray
    digits: list[FoundDigit]
    probabilities: np.ndarray


def format_results(results: list[PhotoResult]) -> str:
    """Returns a line for each digit, in reading order, with the two most probable classes; then notes."""
    rows, notes = [], []
    for result in results:
        if not result.digits:
            notes.append(f"{result.path}: {NO_INK}")
        for number, (digit, probabilities) in enumerate(
            zip(result.digits, result.probabilities, strict=True), start=1
        ):
            first, second = np.argsort(-probabilities, kind="stable")[:2]
            best, other = f"{probabilities[first]:.4f}", f"{second} ({probabilities[second]:.4f})"
            rows.append((result.path, number, first, best, other))
            if digit.too_wide:
                notes.append(f"{result.path}: number {number} is {TOO_WIDE}")
    table = pd.DataFrame(rows, columns=["file", "number", "digit", "probability", "second best"])
    return "\n".join([table.to_string(index=False), *notes] if rows else notes)


def write_results(results: list[PhotoResult], path: Path) -> None:
    """Writes the picture of `draw` to `path`, in the format that its ending names."""
    path.parent.mkdir(exist_ok=True)
    figure = draw(results)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # a name in letters that the font lacks
        write_figure(path, figure, min(_DPI, int(_MOST_PIXELS / figure.get_figheight())))


def draw(results: list[PhotoResult]) -> matplotlib.figure.Figure:
    """Returns each picture with its digits framed; beside it what the network saw and the probabilities."""
    heights = [_rows(result) * _CELL[1] * _INCHES + 0.3 for result in results]
    figure = matplotlib.figure.Figure(figsize=(11, sum(heights)), layout="constrained")
    grid = figure.subplots(len(results), 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for (left, right), result in zip(grid, results, strict=True):
        _draw_picture(left, result)
        _draw_digits(right, result)
    return figure


def _rows(result: PhotoResult) -> int:
    return max(_MIN_ROWS, -(-len(result.digits) // _COLUMNS))


def _draw_picture(axes: Axes, result: PhotoResult) -> None:
    axes.imshow(result.pixels)
    for number, digit in enumerate(result.digits, start=1):
        top, left, bottom, right = digit.box
        frame = ([left, right, right, left, left], [top, top, bottom, bottom, top])
        axes.plot(*frame, color="tab:red", linewidth=0.8)
        axes.text(left, top, number, color="tab:red", fontsize=7, va="bottom")
    title = result.path.name if result.digits else f"{result.path.name}: {NO_INK}"
    axes.set_title(title, fontsize=8, parse_math=False)  # a name may hold $
    axes.axis("off")


def _draw_digits(axes: Axes, result: PhotoResult) -> None:
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
            axes.text(bars[label], y + SIDE + 1, label, fontsize=6, ha="center", va="top")
        axes.text(x, y - 1, index + 1, color="tab:red", fontsize=7)
        axes.text(bars[0], y - 1, f"{best}: {probabilities.max():.4f}", fontsize=7)
    axes.set(xlim=(0, _COLUMNS * width), ylim=(_rows(result) * height, -8), aspect="equal")
    axes.axis("off")
