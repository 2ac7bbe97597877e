"""submission.csv, as the competition takes it."""

import csv
from pathlib import Path

import numpy as np

from digit_recognizer.data.digits import CLASSES, Dataset
from digit_recognizer.files import UserError, atomic


def write(path: Path, dataset: Dataset, probabilities: np.ndarray) -> None:
    """Writes the most probable label of each test row, with the ids and column names of sample_submission.csv.

    `probabilities` are float (test rows, 10). Raises UserError, and writes nothing, if their shape is another or if a
    row is not finite.
    """
    rows, shape = len(dataset.ids), probabilities.shape
    if shape != (rows, CLASSES):
        raise UserError(
            f"{path} is not written: predictions of shape {shape} for {rows} test rows of {CLASSES} classes"
        )
    damaged = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if len(damaged):
        raise UserError(f"{path} is not written: test row {damaged[0] + 1} has probabilities that are no numbers")
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(dataset.columns)
        writer.writerows(zip(dataset.ids, probabilities.argmax(axis=1), strict=True))
