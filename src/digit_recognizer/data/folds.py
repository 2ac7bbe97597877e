"""Which rows train and which validate: stratified folds, repeats and holdouts, as folds.csv holds them."""

import hashlib
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd
from sklearn.model_selection import RepeatedStratifiedKFold, StratifiedShuffleSplit

from digit_recognizer.data.digits import CLASSES
from digit_recognizer.files import UserError
from digit_recognizer.recipes import Recipe, change

FIELDS = ("folds", "repeats", "holdout", "holdout_rows", "seed")  # of a recipe, that make the split


def split(labels: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Returns the fold in which each row is validated: int8 (rows, repeats), -1 for never (holdout).

    Each fold holds each class in about the proportion that all rows have (scikit-learn's stratified
    splitters), but for a holdout of the first rows, which is not stratified. Prints which classes have no
    row. Raises UserError where a class has fewer rows than there are folds. `labels` are uint8 (rows,).
    """
    missing = sorted(set(range(CLASSES)) - set(labels.tolist()))
    if missing:
        print(f"no training row has the label {', '.join(map(str, missing))}: no network will predict it")
    return _split(labels, recipe)


def _split(labels: np.ndarray, recipe: Recipe) -> np.ndarray:
    """See `split`; prints nothing."""
    classes, counts = np.unique(labels, return_counts=True)
    needed = max(recipe.folds, 2)
    if counts.min() < needed:
        raise UserError(
            f"the training rows: label {classes[counts.argmin()]} has {counts.min()} row(s), fewer than the "
            f"{needed} that this split needs: take fewer --folds, or more data"
        )
    if recipe.holdout and recipe.holdout_rows == "first":
        validated = np.arange(len(labels)) < max(1, round(recipe.holdout * len(labels)))
        return np.repeat(np.where(validated, 0, -1).astype(np.int8)[:, None], recipe.repeats, axis=1)
    if recipe.holdout:
        splitter = StratifiedShuffleSplit(recipe.repeats, test_size=recipe.holdout, random_state=recipe.seed)
        if min(recipe.holdout, 1 - recipe.holdout) * len(labels) < len(classes):
            raise UserError(
                f"--holdout {recipe.holdout}: too few rows for one of each of the {len(classes)} classes"
            )
    else:
        splitter = RepeatedStratifiedKFold(
            n_splits=recipe.folds, n_repeats=recipe.repeats, random_state=recipe.seed
        )
    validated_in = np.full((len(labels), recipe.repeats), -1, np.int8)
    for number, (_, validation) in enumerate(splitter.split(np.zeros(len(labels)), labels)):
        validated_in[validation, number // recipe.folds] = number % recipe.folds
    return validated_in


def fingerprint(validated_in: np.ndarray) -> str:
    """Returns the SHA-256 of a split."""
    return hashlib.sha256(np.ascontiguousarray(validated_in)).hexdigest()


def are_of(validated_in: np.ndarray, labels: np.ndarray, recipe: Recipe) -> bool:
    """Returns whether a table of folds is the one that `split` makes of these labels for this recipe."""
    try:
        return np.array_equal(validated_in, _split(labels, recipe))
    except UserError:  # a table of the user's own, that no seed makes
        return False


def adopt(recipe: Recipe, validated_in: np.ndarray, options: Collection[str]) -> Recipe:
    """Returns the recipe with the folds, repeats, holdout and holdout_rows of an existing split.

    Raises UserError where one of these differs and was asked for: its name is one of `options`.
    """
    shape = _shape(validated_in, recipe)
    for name, value in shape.items():
        if name in options and getattr(recipe, name) != value:
            raise UserError(
                f"folds.csv has {name}={value}, not {getattr(recipe, name)}: leave that option out, take another "
                "--output, or run scripts/split.py again"
            )
    return change(recipe, shape)


def _shape(validated_in: np.ndarray, recipe: Recipe) -> dict[str, int | float | str]:
    """Returns the recipe's fields that a split tells; `recipe` has the holdout before rounding to whole rows."""
    rows = np.flatnonzero(validated_in[:, 0] >= 0)
    part = len(rows) / len(validated_in)
    if abs(len(rows) - recipe.holdout * len(validated_in)) < 1:  # rows
        part = recipe.holdout
    kind = "first" if rows[-1] == len(rows) - 1 else "random"
    folds = int(validated_in.max()) + 1
    return {
        "folds": folds,
        "repeats": validated_in.shape[1],
        "holdout": part if folds == 1 else 0.0,
        "holdout_rows": kind if folds == 1 else recipe.holdout_rows,
    }


def to_csv(path: Path, validated_in: np.ndarray, labels: np.ndarray) -> None:
    """Writes folds.csv: row (from 0), label, and a column a repeat with the fold that validates the row."""
    table = pd.DataFrame({"row": np.arange(len(labels)), "label": labels})
    for repeat, column in enumerate(validated_in.T):
        table[f"repeat_{repeat}"] = column
    table.to_csv(path, index=False)


def from_csv(path: Path, labels: np.ndarray) -> np.ndarray:
    """Returns the table of `split` that folds.csv holds; `labels` belong to the training rows.

    Raises UserError where the file is damaged or made for other rows.
    """
    repair = "delete it to have it made again"
    if not path.exists():
        raise UserError(f"{path} is missing: run scripts/train.py again, which makes it anew")
    try:
        table = pd.read_csv(path)
        repeats = [f"repeat_{repeat}" for repeat in range(table.shape[1] - 2)]
        if list(table.columns) != ["row", "label", *repeats] or not repeats:
            raise ValueError("its columns are not row,label,repeat_0,...")
        numbers = table[repeats].to_numpy()
        if numbers.dtype.kind != "i" or ((numbers < -1) | (numbers > np.iinfo(np.int8).max)).any():
            raise ValueError("a fold there is no whole number from -1 to 127")
        if len(table) != len(labels) or (table["label"] != labels).any():
            raise ValueError("its labels differ from the training rows' labels")
    except ValueError as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}; {repair}") from None
    validated_in = numbers.astype(np.int8)
    for name, column in zip(repeats, validated_in.T, strict=True):
        sizes = np.bincount(column[column >= 0], minlength=max(1, validated_in.max() + 1))
        if not sizes.all():
            raise UserError(f"{path}: {name} has no row of fold {sizes.argmin()}; {repair}")
        if sizes.max() == len(column):
            raise UserError(f"{path}: {name} leaves no row to train on; {repair}")
    return validated_in
