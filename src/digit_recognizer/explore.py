"""What the data looks like before anything is trained: a text for the terminal, and pictures."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd

from digit_recognizer.digits import CLASSES, PIXELS, SIDE, Dataset, Digits
from digit_recognizer.run import atomic

_SHOWN = 5  # examples in a line
_SEED = 42  # of the random rows that are drawn


def text(dataset: Dataset) -> str:
    """Shapes, types, value ranges and missing values; label counts; duplicates; the leak check."""
    train, test = dataset.train, dataset.test
    unused = PIXELS - np.count_nonzero(train.images.any(axis=0))
    return "\n".join(
        [
            _arrays(dataset).to_string(),
            "missing values: none (reading refuses them, with file, row and column)",
            f"pictures without ink: {_blank(train)} training, {_blank(test)} test; "
            f"pixels without ink in every training picture: {unused} of {PIXELS}",
            "",
            _label_counts(dataset).to_string(na_rep=""),
            _balance(train.labels),
            "",
            _duplicates("training", train),
            _duplicates("test", test),
            _leak(train, test),
        ]
    )


def _arrays(dataset: Dataset) -> pd.DataFrame:
    """A line an array."""
    train, test = dataset.train, dataset.test
    arrays = {
        "training pictures": train.images,
        "training labels": train.labels,
        "test pictures": test.images,
        "test labels": test.labels,
    }
    lines = {
        name: {
            "shape": " x ".join(map(str, array.shape)),
            "type": array.dtype,
            "least": array.min(),
            "greatest": array.max(),
            "mean": f"{array.mean():.2f}",
        }
        for name, array in arrays.items()
        if array is not None
    }
    return pd.DataFrame.from_dict(lines, orient="index")


def _blank(digits: Digits) -> int:
    return int((~digits.images.any(axis=(1, 2))).sum())


def _label_counts(dataset: Dataset) -> pd.DataFrame:
    """Rows of each label, and their part, in the training rows and in the test rows that have labels."""
    table = pd.DataFrame(index=pd.Index(range(CLASSES), name="label"))
    for name, digits in (("training", dataset.train), ("test", dataset.test)):
        if digits.labels is not None:
            counts = np.bincount(digits.labels, minlength=CLASSES)
            table[f"{name} rows"] = counts
            table[f"{name} %"] = (100 * counts / counts.sum()).round(2)
    return table


def _balance(labels: np.ndarray) -> str:
    counts = np.bincount(labels, minlength=CLASSES)
    most, least = counts.argmax(), counts.argmin()
    ratio = f": {counts[most] / counts[least]:.2f} times as many" if counts[least] else ""
    return f"the most frequent label is {most} ({counts[most]} rows), the rarest {least} ({counts[least]} rows){ratio}"


def _duplicates(name: str, digits: Digits) -> str:
    """What of these rows is there more than once, pixel for pixel."""
    groups: dict[bytes, list[int]] = {}
    for row, image in enumerate(digits.images):
        groups.setdefault(image.tobytes(), []).append(row)
    repeated = [rows for rows in groups.values() if len(rows) > 1]
    line = f"{name} rows that repeat an earlier one: {len(digits.images) - len(groups)}"
    if digits.labels is not None:
        ambiguous = sum(len(set(digits.labels[rows])) > 1 for rows in repeated)
        line += f", pictures with several labels: {ambiguous}"
    return line + _listed(" = ".join(str(row + 1) for row in rows) for rows in repeated)


def _leak(train: Digits, test: Digits) -> str:
    """Which test rows are training rows too."""
    known = {image.tobytes(): row for row, image in enumerate(train.images)}
    pairs = [
        f"{row + 1} = {known[image.tobytes()] + 1}"
        for row, image in enumerate(test.images)
        if image.tobytes() in known
    ]
    return f"test rows that are training rows too: {len(pairs)} of {len(test.images)}" + _listed(pairs)


def _listed(found: Iterable[str]) -> str:
    """The first of what was found, in brackets."""
    found = list(found)
    more = ", ..." if len(found) > _SHOWN else ""
    return f" (rows {', '.join(found[:_SHOWN])}{more})" if found else ""


def write_pictures(dataset: Dataset, folder: Path) -> list[Path]:
    """Draws the label counts, 15 and 25 training pictures and the mean of each label into `folder`."""
    train = dataset.train
    drawn = np.random.default_rng(_SEED).permutation(len(train.images))[:25]
    figures = {
        "labels.png": draw_labels(dataset),
        "first_15.png": draw_pictures(
            train, np.arange(min(15, len(train.images))), "the first training rows"
        ),
        "random_25.png": draw_pictures(train, np.sort(drawn), "training rows drawn at random"),
        "means.png": draw_means(train),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        with atomic(folder / name) as file:
            figure.savefig(file, dpi=110)
    return [folder / name for name in figures]


def draw_labels(dataset: Dataset) -> matplotlib.figure.Figure:
    """A bar for each label: its part of the training rows, and of the test rows that have labels."""
    table = _label_counts(dataset).filter(like="%")
    figure = matplotlib.figure.Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / table.shape[1]
    for number, (name, column) in enumerate(table.items()):
        axes.bar(column.index + (number - (table.shape[1] - 1) / 2) * width, column, width, label=name[:-2])
    axes.axhline(100 / CLASSES, color="black", linestyle=":", label="all labels alike")
    axes.set(xticks=range(CLASSES), xlabel="label", ylabel="% of the rows", title="label counts")
    figure.legend(fontsize="small", ncols=3, loc="outside lower center")
    return figure


def draw_pictures(digits: Digits, rows: np.ndarray, title: str) -> matplotlib.figure.Figure:
    """The pictures of these rows, int (n,), five to a line, each with its label and its row from 1."""
    titles = [f"{digits.labels[row]}  (row {row + 1})" for row in rows]
    return _draw_grid(digits.images[rows], titles, title)


def draw_means(digits: Digits) -> matplotlib.figure.Figure:
    """The mean picture of each label that there is."""
    labels = np.unique(digits.labels)
    means = [digits.images[digits.labels == label].mean(axis=0) for label in labels]
    return _draw_grid(means, [str(label) for label in labels], "the mean training picture of each label")


def _draw_grid(images: Iterable[np.ndarray], titles: list[str], title: str) -> matplotlib.figure.Figure:
    """One picture of all, which draws several times as fast as axes for each."""
    columns, (height, width) = 5, (SIDE + 10, SIDE + 8)  # pixels of a cell; above the digit is its title
    lines = -(-len(titles) // columns)
    sheet = np.zeros((lines * height, columns * width))
    figure = matplotlib.figure.Figure(
        figsize=(7, 7 / columns * lines * height / width + 0.5), layout="constrained"
    )
    axes = figure.subplots()
    for number, (image, words) in enumerate(zip(images, titles, strict=True)):
        top, left = number // columns * height + 8, number % columns * width + 4
        sheet[top : top + SIDE, left : left + SIDE] = image
        axes.text(left + SIDE / 2, top - 1, words, ha="center", va="bottom", fontsize=9)
    axes.imshow(sheet, cmap="gray_r", vmin=0, vmax=255)
    axes.set_title(title)
    axes.axis("off")
    return figure
