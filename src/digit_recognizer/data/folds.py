"""Which rows train and which validate: stratified folds, repeats and holdouts, as folds.csv holds them."""

import hashlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import RepeatedStratifiedKFold, StratifiedShuffleSplit

from digit_recognizer.data.digits import CLASSES
from digit_recognizer.files import UserError, reading
from digit_recognizer.recipes import Recipe, change

FIELDS = ("folds", "repeats", "holdout", "holdout_rows", "seed")  # of a recipe, that make the split


def split(labels: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Returns the fold in which each row is validated: int8 (rows, repeats), -1 for rows that are only trained on.

    `labels` are uint8 (rows,). Each fold holds each class in about the proportion that all rows have (scikit-learn's
    stratified splitters); a holdout of the first rows is not stratified. Prints which classes have no row. Raises
    UserError if a class has fewer rows than there are folds, or if all of its rows would be held out.
    """
    if missing := sorted(set(range(CLASSES)) - set(labels.tolist())):
        print(f"no training row has the label {', '.join(map(str, missing))}: no network will predict it")
    classes, counts = np.unique(labels, return_counts=True)
    needed = max(recipe.folds, 2)
    if counts.min() < needed:
        rare = (
            f"label {classes[counts.argmin()]} has {counts.min()} row(s), fewer than the {needed} that this split needs"
        )
        raise UserError(f"the training rows: {rare}: take fewer --folds, or more data")
    if recipe.holdout and recipe.holdout_rows == "first":
        is_validated = np.arange(len(labels)) < max(1, round(recipe.holdout * len(labels)))
        if missing := sorted(set(labels.tolist()) - set(labels[~is_validated].tolist())):
            problem = f"the first rows are held out, and no other has the label {missing[0]}"
            raise UserError(f"{problem}: add --set holdout_rows=random")
        return np.repeat(np.where(is_validated, 0, -1).astype(np.int8)[:, None], recipe.repeats, axis=1)
    if recipe.holdout:
        splitter = StratifiedShuffleSplit(recipe.repeats, test_size=recipe.holdout, random_state=recipe.seed)
        if min(recipe.holdout, 1 - recipe.holdout) * len(labels) < len(classes):
            raise UserError(f"--holdout {recipe.holdout}: too few rows for one of each of the {len(classes)} classes")
    else:
        splitter = RepeatedStratifiedKFold(n_splits=recipe.folds, n_repeats=recipe.repeats, random_state=recipe.seed)
    table = np.full((len(labels), recipe.repeats), -1, np.int8)
    for number, (_, validation) in enumerate(splitter.split(np.zeros(len(labels)), labels)):
        table[validation, number // recipe.folds] = number % recipe.folds
    return table


def fingerprint(table: np.ndarray) -> str:
    """Returns the SHA-256 of a split."""
    return hashlib.sha256(table.tobytes()).hexdigest()


def adopt(recipe: Recipe, table: np.ndarray, options: Collection[str]) -> Recipe:
    """Returns the recipe with the folds, repeats and holdout of `table`; raises UserError if `options` differ."""
    rows = np.flatnonzero(table[:, 0] >= 0)
    share, count = len(rows) / len(table), int(table.max()) + 1
    if abs(len(rows) - recipe.holdout * len(table)) < 1:  # the recipe has the share before rounding to whole rows
        share = recipe.holdout
    shape: dict[str, int | float | str] = {"folds": count, "repeats": table.shape[1], "holdout": 0.0}
    if count == 1:
        shape |= {"holdout": share, "holdout_rows": "first" if rows[-1] == len(rows) - 1 else "random"}
    for name, value in shape.items():
        if name in options and getattr(recipe, name) != value:
            advice = "leave that option out, take another --output, or run scripts/split.py again"
            raise UserError(f"folds.csv has {name}={value}, not {getattr(recipe, name)}: {advice}")
    return change(recipe, shape)


def to_csv(path: Path, table: np.ndarray, labels: np.ndarray) -> None:
    """Writes folds.csv: row (from 0), label, and for each repeat a column with the fold that validates the row."""
    repeats = {f"repeat_{repeat}": column for repeat, column in enumerate(table.T)}
    pd.DataFrame({"row": np.arange(len(labels)), "label": labels} | repeats).to_csv(path, index=False)


def from_csv(path: Path, labels: np.ndarray) -> np.ndarray:
    """Returns the split in folds.csv for these labels; raises UserError if it is missing, damaged or of other rows."""
    advice = "delete it and run scripts/train.py, which makes it anew"
    with reading(path, advice):
        csv = pd.read_csv(path)
        names = [f"repeat_{repeat}" for repeat in range(csv.shape[1] - 2)]
        if list(csv.columns) != ["row", "label", *names] or not names:
            raise ValueError("its columns are not row,label,repeat_0,...")
        numbers = csv[names].to_numpy()
        if numbers.dtype.kind != "i" or ((numbers < -1) | (numbers > np.iinfo(np.int8).max)).any():
            raise ValueError("a fold is not a whole number from -1 to 127")
        if len(csv) != len(labels) or (csv["label"] != labels).any():
            raise UserError(f"{path} was made for other training rows, its labels differ: {advice}")
        for name, column in zip(names, numbers.T, strict=True):
            sizes = np.bincount(column[column >= 0], minlength=max(1, numbers.max() + 1))
            if not sizes.all():
                raise ValueError(f"{name} has no row of fold {sizes.argmin()}")
            if sizes.max() == len(column):
                raise ValueError(f"{name} leaves no row to train on")
    return numbers.astype(np.int8)
