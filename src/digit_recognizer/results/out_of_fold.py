"""Out-of-fold probabilities, and what they say. A row's are those of the members that were not trained on it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import betabinom, binomtest

from digit_recognizer.data.digits import CLASSES
from digit_recognizer.files import UserError
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.member import Member, read_probabilities, scores

_BINS = 15  # of the reliability curve


def out_of_fold(members: Iterable[Member], rows: int) -> np.ndarray:
    """Returns the mean of finished members' validation probabilities, float32 (rows, 10).

    Rows that no member predicted are NaN.
    """
    total, count = np.zeros((rows, CLASSES)), np.zeros((rows, 1))
    for member in members:
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


def accuracy_interval(errors: int, rows: int) -> dict[str, float]:
    """Returns the 95 % interval (Wilson) of the accuracy with `errors` in `rows`, as low and high."""
    interval = binomtest(rows - errors, rows).proportion_ci(method="wilson")
    return {"low": float(interval.low), "high": float(interval.high)}


def expected_accuracy(errors: int, rows: int, new_rows: int) -> dict[str, float]:
    """Returns the 95 % interval of the accuracy on other rows of the same kind, as low and high.

    It is the beta-binomial predictive distribution for Jeffreys' prior, so it includes the chance in both samples of
    rows. It does not include that an ensemble predicts new rows better than its members do.
    """
    tails = betabinom.ppf([0.975, 0.025], new_rows, errors + 0.5, rows - errors + 0.5)
    low, high = 1 - tails / new_rows
    return {"low": float(low), "high": float(high)}


def calibration(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Returns the expected calibration error (ECE) and the bins of the reliability curve that have rows.

    The rows are binned by their highest probability, in 15 bins of the same width. The ECE is the mean distance of
    confidence and accuracy, weighted by the rows of the bins. `labels` is uint8 (rows,), `probabilities` float
    (rows, 10). Source: Guo and others, 'On calibration of modern neural networks' (2017).
    """
    confidence = probabilities.max(axis=1).astype(float)
    right = probabilities.argmax(axis=1) == labels
    numbers = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins = []
    for number, inside in pd.DataFrame({"confidence": confidence, "accuracy": right}).groupby(numbers):
        errors, rows = int((~inside["accuracy"]).sum()), len(inside)
        ends = {"from": int(number) / _BINS, "to": (int(number) + 1) / _BINS, "rows": rows}
        bins.append(ends | inside.mean().to_dict() | accuracy_interval(errors, rows))
    distance = sum(line["rows"] * abs(line["confidence"] - line["accuracy"]) for line in bins)
    return {"ece": distance / len(labels), "bins": bins}


def gain(members: Sequence[Member], weights: Sequence[float], labels: np.ndarray) -> list[dict[str, Any]]:
    """Returns the scores of the mean of the first 1, 2, ... splits; a split is a repeat of one run.

    Only rows that all splits predict count. The list is empty if there is no such row, or a single split.
    `weights` are those of the members in the ensemble, `labels` are uint8 (training rows,).
    """
    splits: dict[tuple[Path, int], list[int]] = {}
    for number, member in enumerate(members):
        splits.setdefault((member.folder.parent, member.repeat), []).append(number)
    means = np.array([out_of_fold([members[i] for i in split], len(labels)) for split in splits.values()])
    shared = np.all([covered_rows(mean) for mean in means], axis=0)
    if len(means) < 2 or not shared.any():
        return []
    shares = np.array([sum(weights[i] for i in split) for split in splits.values()])[:, None, None]
    means = np.cumsum(shares * means[:, shared], axis=0) / np.cumsum(shares, axis=0)
    return [{"splits": count} | scores(labels[shared], mean) for count, mean in enumerate(means, start=1)]
