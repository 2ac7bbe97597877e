"""Describes the data before anything is trained: a text for the terminal, and pictures."""

from collections.abc import Iterable
from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd

from digit_recognizer.data.digits import CLASSES, PIXELS, SIDE, Dataset
from digit_recognizer.files import write_figure

_EXAMPLES = 5  # rows named in a line
_SEED = 42  # of the choice of random rows


def explore(dataset: Dataset, folder: Path) -> None:
    """Prints `describe` and draws the pictures into `folder`."""
    print(describe(dataset), flush=True)
    print(f"pictures: {', '.join(map(str, write_pictures(dataset, folder)))}")


def describe(dataset: Dataset) -> str:
    """Returns shapes, types, value ranges, label counts, duplicates, and the test rows that are training rows."""
    train, test = dataset.train_images, dataset.test_images
    unused = PIXELS - np.count_nonzero(train.any(axis=0))
    blank = [np.count_nonzero(~images.any(axis=(1, 2))) for images in (train, test)]
    return "\n".join(
        [
            _arrays(dataset).to_string(),
            "missing values: none (reading refuses them, with file, row and column)",
            f"pictures without ink: {blank[0]} training, {blank[1]} test; "
            f"pixels without ink in every training picture: {unused} of {PIXELS}",
            "",
            _label_counts(dataset).to_string(na_rep=""),
            _balance(dataset.train_labels),
            "",
            _duplicates("training", train, dataset.train_labels),
            _duplicates("test", test, dataset.test_labels),
            _leak(dataset),
        ]
    )


def _arrays(dataset: Dataset) -> pd.DataFrame:
    arrays = {
        "training pictures": dataset.train_images,
        "training labels": dataset.train_labels,
        "test pictures": dataset.test_images,
        "test labels": dataset.test_labels,
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


def _label_counts(dataset: Dataset) -> pd.DataFrame:
    """Returns the count and the percentage of each label, in the training rows and in labelled test rows."""
    table = pd.DataFrame(index=pd.Index(range(CLASSES), name="label"))
    for name, each in (("training", dataset.train_labels), ("test", dataset.test_labels)):
        if each is not None:
            counts = np.bincount(each, minlength=CLASSES)
            table[f"{name} rows"] = counts
            table[f"{name} %"] = (100 * counts / counts.sum()).round(2)
    return table


def _balance(labels: np.ndarray) -> str:
    counts = np.bincount(labels, minlength=CLASSES)
    most, least = counts.argmax(), counts.argmin()
    ratio = f": {counts[most] / counts[least]:.2f} times as many" if counts[least] else ""
    return f"the most frequent label is {most} ({counts[most]} rows), the rarest {least} ({counts[least]} rows){ratio}"


def _duplicates(name: str, images: np.ndarray, labels: np.ndarray | None) -> str:
    """Returns a line on the rows whose picture is in an earlier row too, pixel for pixel."""
    groups: dict[bytes, list[int]] = {}
    for row, image in enumerate(images):
        groups.setdefault(image.tobytes(), []).append(row)
    repeated = [rows for rows in groups.values() if len(rows) > 1]
    line = f"{name} rows that repeat an earlier one: {len(images) - len(groups)}"
    if labels is not None:
        ambiguous = sum(len(set(labels[rows])) > 1 for rows in repeated)
        line += f", pictures with several labels: {ambiguous}"
    return line + _listed(" = ".join(map(str, rows)) for rows in repeated)


def _leak(dataset: Dataset) -> str:
    pairs = [f"{row} = {other}" for row, other in dataset.overlap]
    line = f"test rows that are training rows too: {len(pairs)} of {len(dataset.test_images)}"
    return line + _listed(pairs)


def _listed(found: Iterable[str]) -> str:
    """Returns the first examples, in brackets."""
    found = list(found)
    more = ", ..." if len(found) > _EXAMPLES else ""
    return f" (rows {', '.join(found[:_EXAMPLES])}{more}, counted from 0)" if found else ""


def write_pictures(dataset: Dataset, folder: Path) -> list[Path]:
    """Draws label counts, 15 and 25 training pictures and the mean of each label into `folder`; returns the files."""
    images, labels = dataset.train_images, dataset.train_labels
    drawn = np.random.default_rng(_SEED).permutation(len(images))[:25]
    figures = {
        "labels.png": draw_labels(dataset),
        "first_15.png": draw_pictures(
            images, labels, np.arange(min(15, len(images))), "the first training rows"
        ),
        "random_25.png": draw_pictures(images, labels, np.sort(drawn), "training rows drawn at random"),
        "means.png": draw_means(images, labels),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in figures.items():
        write_figure(folder / name, figure)
    return [folder / name for name in figures]


def draw_labels(dataset: Dataset) -> matplotlib.figure.Figure:
    """Returns a bar chart: the percentage of each label in the training rows, and in labelled test rows."""
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


def draw_pictures(
    images: np.ndarray, labels: np.ndarray, rows: np.ndarray, title: str
) -> matplotlib.figure.Figure:
    """Returns a sheet of the pictures in `rows`, int (n,), five to a line, each with its label and row number.

    `images` and `labels` are uint8 (m, 28, 28) and (m,). Rows are numbered from 0.
    """
    titles = [f"{labels[row]}  (row {row})" for row in rows]
    return _draw_grid(images[rows], titles, title)


def draw_means(images: np.ndarray, labels: np.ndarray) -> matplotlib.figure.Figure:
    """Returns a sheet with the mean picture of each label that occurs."""
    there = np.unique(labels)
    means = [images[labels == label].mean(axis=0) for label in there]
    return _draw_grid(means, [str(label) for label in there], "the mean training picture of each label")


def _draw_grid(images: Iterable[np.ndarray], titles: list[str], title: str) -> matplotlib.figure.Figure:
    """Returns a sheet of pictures, drawn as one image: axes for each picture take several times as long."""
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
