"""Describes the data before anything is trained: a text for the terminal, and pictures."""

from pathlib import Path

import matplotlib.figure
import numpy as np
import pandas as pd

from digit_recognizer.data.digits import CLASSES, PIXELS, Dataset
from digit_recognizer.files import write_figure

_EXAMPLES = 5  # rows named in a line
_SEED = 42  # of the choice of random rows


def explore(dataset: Dataset, folder: Path) -> None:
    """Prints `describe`, and draws 25 random training pictures into `folder`."""
    print(describe(dataset), flush=True)
    images, labels = dataset.train_images, dataset.train_labels
    rows = np.sort(np.random.default_rng(_SEED).permutation(len(images))[:25])
    folder.mkdir(parents=True, exist_ok=True)
    write_figure(folder / "digits.png", draw_pictures(images, labels, rows))
    print(f"pictures: {folder / 'digits.png'}")


def describe(dataset: Dataset) -> str:
    """Returns shapes, types, value ranges, label counts, duplicates, and the test rows that are training rows."""
    train, test = dataset.train_images, dataset.test_images
    blank = [np.count_nonzero(~images.any(axis=(1, 2))) for images in (train, test)]
    unused = PIXELS - np.count_nonzero(train.any(axis=0))
    names, test_names = dataset.train_names, dataset.ids if dataset.kind == "folder" else None
    pairs = [[(test_names, row), (names, other)] for row, other in dataset.overlap]
    arrays: dict[str, np.ndarray | None] = {"training pictures": train, "training labels": dataset.train_labels}
    arrays |= {"test pictures": test, "test labels": dataset.test_labels}
    columns = ["", "shape", "type", "least", "greatest", "mean"]
    shapes = [
        (name, " x ".join(map(str, array.shape)), array.dtype, array.min(), array.max(), round(array.mean(), 2))
        for name, array in arrays.items()
        if array is not None and array.size
    ]
    counts = pd.DataFrame(index=pd.Index(range(CLASSES), name="label"))
    for name, labels in (("training", dataset.train_labels), ("test", dataset.test_labels)):
        if labels is not None:
            counts[f"{name} rows"] = rows = np.bincount(labels, minlength=CLASSES)
            counts[f"{name} %"] = (100 * rows / rows.sum()).round(2)
    return "\n".join(
        [
            pd.DataFrame(shapes, columns=columns).set_index("").to_string(),
            "missing values: none (reading refuses them, with file, row and column)",
            f"pictures without ink: {blank[0]} training, {blank[1]} test; pixels without ink in every training "
            f"picture: {unused} of {PIXELS}\n",
            f"{counts.to_string(na_rep='')}\n",
            _duplicates("training", train, dataset.train_labels, names),
            _duplicates("test", test, dataset.test_labels, test_names),
            f"test rows that are training rows too: {len(pairs)} of {len(test)}{_listed(pairs)}",
        ]
    )


def _duplicates(name: str, images: np.ndarray, labels: np.ndarray | None, names: np.ndarray | None) -> str:
    """Returns a line on the rows whose picture is in an earlier row too, pixel for pixel; `names` are their files."""
    groups: dict[bytes, list[int]] = {}
    for row, image in enumerate(images):
        groups.setdefault(image.tobytes(), []).append(row)
    repeated = [rows for rows in groups.values() if len(rows) > 1]
    line = f"{name} rows that repeat an earlier one: {len(images) - len(groups)}"
    if labels is not None:
        ambiguous = sum(len(set(labels[rows])) > 1 for rows in repeated)
        line += f", pictures with several labels: {ambiguous}"
    return line + _listed([[(names, row) for row in rows] for rows in repeated])


def _listed(groups: list[list[tuple[np.ndarray | None, int]]]) -> str:
    """Returns the first groups of rows, in brackets: each row by its name among the names, else by its number."""
    if not groups:
        return ""
    texts = [" = ".join(str(row if names is None else names[row]) for names, row in group) for group in groups]
    shown = ", ".join(texts[:_EXAMPLES]) + ", ..." * (len(texts) > _EXAMPLES)
    return f" (rows {shown}, counted from 0)" if groups[0][0][0] is None else f" ({shown})"


def draw_pictures(images: np.ndarray, labels: np.ndarray, rows: np.ndarray) -> matplotlib.figure.Figure:
    """Returns a sheet of the pictures, uint8 (m, 28, 28), in `rows`, int (n,), with their labels and row numbers."""
    lines = -(-len(rows) // 5)
    figure = matplotlib.figure.Figure(figsize=(7, 1.7 * lines + 0.4), layout="constrained")
    figure.suptitle("training rows drawn at random")
    grid = figure.subplots(lines, 5, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, row in zip(grid.flat, rows, strict=False):
        axes.imshow(images[row], cmap="gray_r", vmin=0, vmax=255)
        axes.set_title(f"{labels[row]}  (row {row})", fontsize=9)
    return figure
