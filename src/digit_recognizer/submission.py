"""submission.csv: written only as the competition takes it."""

import csv
from pathlib import Path

import numpy as np

from digit_recognizer.digits import CLASSES, Dataset
from digit_recognizer.errors import UserError
from digit_recognizer.run import atomic


def write(path: Path, dataset: Dataset, probabilities: np.ndarray) -> None:
    """Writes the most probable label of each test row, with the ids and names of sample_submission.csv.

    Args:
        path: of submission.csv.
        dataset: whose test rows `probabilities` are of.
        probabilities: float (test rows, 10).

    Raises UserError, and writes nothing, where the competition would not take the result.
    """
    if probabilities.shape != (len(dataset.test.ids), CLASSES):
        raise UserError(
            f"{path} is not written: predictions of shape {probabilities.shape} for "
            f"{len(dataset.test.ids)} test rows of {CLASSES} classes"
        )
    broken = np.flatnonzero(~np.isfinite(probabilities).all(axis=1))
    if len(broken):
        raise UserError(
            f"{path} is not written: test row {broken[0] + 1} has probabilities that are no numbers"
        )
    with atomic(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(dataset.columns)
        writer.writerows(zip(dataset.test.ids, probabilities.argmax(axis=1), strict=True))
