"""What the ensemble reads in a person's own pictures: a table for the terminal, and a picture."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from digit_recognizer.data.digits import CLASSES, SIDE
from digit_recognizer.files import atomic
from digit_recognizer.pictures.find import Ink

NO_INK = "no digit: nothing stands out from the paper as ink does"
TOO_WIDE = "wider than a digit is: do several touch? They are read as one"

_COLUMNS = 3  # of digits beside a picture
_CELL = (86, 40)  # a digit of 28 x 28 and its probabilities: width and height in the digit's pixels
_BARS = 3  # pixels from the digit to its probabilities
_INCHES = 0.021  # a pixel of a cell


@dataclass(frozen=True)
class Reading:
    """A picture, uint8 (height, width, 3), the digits in it, and their probabilities, float (digits, 10)."""

    path: Path
    pixels: np.ndarray
    digits: list[Ink]
    probabilities: np.ndarray


def text(readings: list[Reading]) -> str:
    """A line for each digit, in reading order: the two most probable ones; then what was not read."""
    rows, notes = [], []
    for reading in readings:
        if not reading.digits:
            notes.append(f"{reading.path}: {NO_INK}")
        for number, (digit, given) in enumerate(
            zip(reading.digits, reading.probabilities, strict=True), start=1
        ):
            first, second = np.argsort(-given, kind="stable")[:2]
            rows.append(
                (reading.path, number, first, f"{given[first]:.4f}", f"{second} ({given[second]:.4f})")
            )
            if digit.too_wide:
                notes.append(f"{reading.path}: number {number} is {TOO_WIDE}")
    table = pd.DataFrame(rows, columns=["file", "number", "digit", "probability", "second best"])
    return "\n".join([table.to_string(index=False), *notes] if rows else notes)


def write(readings: list[Reading], path: Path) -> None:
    """Writes `draw`'s picture to `path`, in the format that its ending names."""
    path.parent.mkdir(exist_ok=True)
    with atomic(path) as file:
        draw(readings).savefig(file, dpi=110)


def draw(readings: list[Reading]) -> matplotlib.figure.Figure:
    """Each picture with its digits framed, and beside it what the network saw and the probabilities."""
    rows = [max(4, -(-len(reading.digits) // _COLUMNS)) for reading in readings]
    heights = [count * _CELL[1] * _INCHES + 0.3 for count in rows]
    figure = matplotlib.figure.Figure(figsize=(11, sum(heights)), layout="constrained")
    grid = figure.subplots(len(readings), 2, squeeze=False, gridspec_kw={"height_ratios": heights})
    for (left, right), reading in zip(grid, readings, strict=True):
        _draw_picture(left, reading)
        _draw_digits(right, reading)
    return figure


def _draw_picture(axes: Axes, reading: Reading) -> None:
    axes.imshow(reading.pixels)
    for number, digit in enumerate(reading.digits, start=1):
        top, left, bottom, right = digit.box
        frame = ([left, right, right, left, left], [top, top, bottom, bottom, top])
        axes.plot(*frame, color="tab:red", linewidth=0.8)
        axes.text(left, top, number, color="tab:red", fontsize=7, va="bottom")
    axes.set_title(reading.path.name if reading.digits else f"{reading.path.name}: {NO_INK}", fontsize=8)
    axes.axis("off")


def _draw_digits(axes: Axes, reading: Reading) -> None:
    """The digits as the network takes them, each with a bar for the probability of each class."""
    width, height = _CELL
    unit = (width - SIDE - 3 * _BARS) / CLASSES  # of a bar
    for number, (digit, given) in enumerate(zip(reading.digits, reading.probabilities, strict=True)):
        x, y = number % _COLUMNS * width, number // _COLUMNS * height
        axes.imshow(digit.image, cmap="gray", vmin=0, vmax=255, extent=(x, x + SIDE, y + SIDE, y))
        bars = x + SIDE + _BARS + unit * (np.arange(CLASSES) + 0.5)
        colours = ["tab:green" if each == given.argmax() else "tab:gray" for each in range(CLASSES)]
        axes.bar(bars, -given * SIDE, 0.8 * unit, bottom=y + SIDE, color=colours)
        for each in range(CLASSES):
            axes.text(bars[each], y + SIDE + 1, each, fontsize=6, ha="center", va="top")
        axes.text(x, y - 1, number + 1, color="tab:red", fontsize=7)
        axes.text(bars[0], y - 1, f"{given.argmax()}: {given.max():.4f}", fontsize=7)
    lines = max(4, -(-len(reading.digits) // _COLUMNS))
    axes.set(xlim=(0, _COLUMNS * width), ylim=(lines * height, -8), aspect="equal")
    axes.axis("off")
