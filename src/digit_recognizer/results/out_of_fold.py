"""Out-of-fold probabilities: the mean over the members that did not learn from a row, NaN if there is none."""

from collections.abc import Iterable

import numpy as np

from digit_recognizer.data.digits import CLASSES
from digit_recognizer.files import UserError
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.member import Member, read_probabilities


def out_of_fold(members: Iterable[Member], rows: int) -> np.ndarray:
    """Returns the mean of the finished members' validation probabilities, float32 (rows, 10)."""
    total, count = np.zeros((rows, CLASSES)), np.zeros((rows, 1))
    for member in members:
        if member.is_finished:
            total[member.validation_rows] += member.validation_probabilities()
            count[member.validation_rows] += 1
    with np.errstate(invalid="ignore"):  # 0 / 0
        return (total / count).astype(np.float32)


def load_oof(run: Run, rows: int) -> np.ndarray:
    """Returns the run's oof_probabilities.npy, float32 (rows, 10).

    Raises UserError if it is missing, damaged, of another number of rows, or without a predicted row.
    """
    advice = "run scripts/ensemble.py again"
    oof = read_probabilities(run.oof_probabilities, rows, advice, nan_rows=True)
    if not covered_rows(oof).any():
        raise UserError(f"{run.oof_probabilities} has no row that a member predicted: {advice}")
    return oof


def covered_rows(oof: np.ndarray) -> np.ndarray:
    """Returns bool (rows,): the rows of out-of-fold probabilities (rows, 10) that a member predicted."""
    return np.isfinite(oof).all(axis=1)


def wrong_rows(oof: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns bool (rows,): the predicted rows whose most probable class is not the label."""
    return covered_rows(oof) & (oof.argmax(axis=1) != labels)
