"""submission.csv: written only as the competition takes it."""

import csv
from pathlib import Path

import numpy as np

from digit_recognizer.data.digits import CLASSES, Dataset
from digit_recognizer.files import UserError, atomic

_LABELS = {str(label) for label in range(CLASSES)}


def write(path: Path, dataset: Dataset, probabilities: np.ndarray) -> None:
    """Writes the most probable label of each test row, with the ids and names of sample_submission.csv.

    `probabilities` are float (test rows, 10). Raises UserError, and writes nothing, where the competition would
    not take the result.
    """
    if probabilities.shape != (len(dataset.ids), CLASSES):
        raise UserError(
            f"{path} is not written: predictions of shape {probabilities.shape} for "
            f"{len(dataset.ids)} test rows of {CLASSES} classes"
        )
    broken = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if len(broken):
        raise UserError(
            f"{path} is not written: test row {broken[0] + 1} has probabilities that are no numbers"
        )
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(dataset.columns)
        writer.writerows(zip(dataset.ids, probabilities.argmax(axis=1), strict=True))


def check(path: Path, dataset: Dataset) -> None:
    """Raises UserError, naming the row, where `path` is not what the competition of `labels` takes.

    That is the columns of sample_submission.csv and each of its ids once, in any order, with a label of
    0 to 9.
    """
    again = "run scripts/ensemble.py again"
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except FileNotFoundError:
        raise UserError(f"{path} is missing: run scripts/ensemble.py first") from None
    except (ValueError, csv.Error) as error:
        raise UserError(f"{path} is no CSV ({error}): {again}") from None
    if not rows or tuple(rows[0]) != dataset.columns:
        first = ",".join(rows[0])[:40] if rows else ""
        raise UserError(f"{path}: its first line is {first!r}, not {','.join(dataset.columns)!r}: {again}")
    known, seen = set(dataset.ids.tolist()), set()
    for number, row in enumerate(rows[1:], start=1):
        wrong = _wrong(row, known, seen)
        if wrong:
            raise UserError(f"{path}: row {number} (line {number + 1}) {wrong}: {again}")
        seen.add(row[0])
    if len(seen) != len(known):
        missing = next(each for each in dataset.ids if each not in seen)
        raise UserError(
            f"{path} has {len(seen)} rows, sample_submission.csv has {len(known)}: "
            f"{dataset.columns[0]} {missing} is missing: {again}"
        )


def _wrong(row: list[str], known: set[str], seen: set[str]) -> str:
    """What the competition would not take of a row, or nothing."""
    if len(row) != 2:
        return f"has {len(row)} columns, not 2"
    if row[0] not in known:
        return f"has the id {row[0][:40]!r}, which sample_submission.csv has not"
    if row[0] in seen:
        return f"has the id {row[0]!r} a second time"
    if row[1] not in _LABELS:
        return f"has the label {row[1][:40]!r}, not a digit from 0 to {CLASSES - 1}"
    return ""
