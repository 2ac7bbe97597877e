"""What predictions tell beyond their scores: intervals, calibration, gain and disagreement of an ensemble.

Everything here takes arrays and returns what JSON can hold.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy.stats import betabinom, chi2_contingency, norm

from digit_recognizer.data.digits import CLASSES
from digit_recognizer.data.scores import scores

_LEVEL = 0.95
_BINS = 15  # of the reliability curve
_ORDERS = 10  # random orders in which members are added
_SURE = 0.9  # from this probability of another label on, a row may be mislabelled


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """Returns the 95 % interval of a proportion.

    Source: Wilson, 'Probable inference, the law of succession, and statistical inference' (1927).
    """
    if trials == 0:
        return 0.0, 1.0
    z = norm.ppf((1 + _LEVEL) / 2)
    share = successes / trials
    middle = share + z * z / (2 * trials)
    half = z * np.sqrt(share * (1 - share) / trials + (z / (2 * trials)) ** 2)
    scale = 1 + z * z / trials
    return max(0.0, float((middle - half) / scale)), min(1.0, float((middle + half) / scale))


def expected_accuracy(errors: int, rows: int, new_rows: int) -> tuple[float, float]:
    """Returns the 95 % interval of the accuracy on other rows of the same kind, after `errors` in `rows`.

    It is the predictive distribution for Jeffreys' prior, a beta-binomial one: it holds the chance of both
    samples of rows. It does not know that an ensemble does better on new rows than its members out of fold.
    """
    tails = betabinom.ppf([(1 + _LEVEL) / 2, (1 - _LEVEL) / 2], new_rows, errors + 0.5, rows - errors + 0.5)
    low, high = 1 - tails / new_rows
    return float(low), float(high)


def per_digit(matrix: np.ndarray) -> list[dict[str, Any]]:
    """Returns precision, recall and F1 of each digit from a confusion matrix int (10, 10), labels down.

    A precision or recall is None where its denominator is 0.
    """
    counts = zip(
        np.diag(matrix).tolist(), matrix.sum(axis=1).tolist(), matrix.sum(axis=0).tolist(), strict=True
    )
    return [
        {
            "digit": digit,
            "rows": rows,
            "predicted": predicted,
            "precision": right / predicted if predicted else None,
            "recall": right / rows if rows else None,
            "f1": 2 * right / (rows + predicted) if rows + predicted else None,
        }
        for digit, (right, rows, predicted) in enumerate(counts)
    ]


def calibration(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Returns the expected calibration error (ECE) and the bins of the reliability curve that have rows.

    The rows are binned by the highest probability, in 15 bins of the same width. The ECE is the mean
    distance of confidence and accuracy, weighted by the rows of the bins. `labels` are uint8 (rows,),
    `probabilities` float (rows, 10).

    Source: Guo and others, 'On calibration of modern neural networks' (2017).
    """
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = probabilities.argmax(axis=1) == labels
    number = np.minimum((confidence * _BINS).astype(int), _BINS - 1)
    bins = []
    for each in np.unique(number):
        inside = number == each
        rows, hits = int(inside.sum()), int(right[inside].sum())
        low, high = wilson_interval(hits, rows)
        bins.append(
            {
                "from": int(each) / _BINS,
                "to": (int(each) + 1) / _BINS,
                "rows": rows,
                "confidence": float(confidence[inside].mean()),
                "accuracy": hits / rows,
                "low": low,
                "high": high,
            }
        )
    distance = sum(each["rows"] * abs(each["confidence"] - each["accuracy"]) for each in bins)
    return {"ece": distance / len(labels), "bins": bins}


def _cumulative_means(
    parts: Sequence[np.ndarray], weights: Sequence[float]
) -> Iterator[tuple[int, np.ndarray]]:
    """Adds parts in several random orders; yields the number of parts and their weighted mean (rows, 10)."""
    random = np.random.default_rng(0)
    orders = [np.arange(len(parts)), *(random.permutation(len(parts)) for _ in range(_ORDERS - 1))]
    for order in orders:
        total, weight = np.zeros_like(parts[0], dtype=np.float32), 0.0
        for count, index in enumerate(order, start=1):
            total += np.float32(weights[index]) * parts[index]
            weight += weights[index]
            yield count, total / np.float32(weight)


def out_of_fold_gain(
    labels: np.ndarray, splits: Sequence[np.ndarray], weights: Sequence[float]
) -> list[dict[str, Any]]:
    """Returns the scores of 1, 2, ... splits averaged, the mean of ten random orders; [] for a single split.

    Args:
        labels: uint8 (rows,).
        splits: for each split of the rows (a repeat, or a run of a blend) the out-of-fold probabilities of
            its members, float (rows, 10).
        weights: of the splits in the ensemble.
    """
    if len(splits) < 2:
        return []
    found: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for count, mean in _cumulative_means(splits, weights):
        found[count].append(scores(labels, mean))
    return [
        {
            "splits": count,
            "errors": float(np.mean([each["errors"] for each in results])),
            "least_errors": min(each["errors"] for each in results),
            "most_errors": max(each["errors"] for each in results),
            "log_loss": float(np.mean([each["log_loss"] for each in results])),
        }
        for count, results in found.items()
    ]


def test_gain(
    tests: Sequence[np.ndarray], weights: Sequence[float], labels: np.ndarray | None
) -> list[dict[str, Any]]:
    """Returns how test predictions settle as members are added: the mean of ten random orders; [] for one member.

    `changed` is the number of rows with another label than the whole ensemble gives; `errors` is None where
    the test rows have no labels.

    Args:
        tests: the members' test probabilities, each float (test rows, 10).
        weights: of the members in the ensemble.
        labels: uint8 (test rows,), or None.
    """
    if len(tests) < 2:
        return []
    predicted: dict[int, list[np.ndarray]] = defaultdict(list)
    for count, mean in _cumulative_means(tests, weights):
        predicted[count].append(mean.argmax(axis=1))
    whole = predicted[len(tests)][0]
    return [
        {
            "members": count,
            "changed": float(np.mean([(each != whole).sum() for each in found])),
            "errors": None if labels is None else float(np.mean([(each != labels).sum() for each in found])),
        }
        for count, found in predicted.items()
    ]


def disagreement(votes: np.ndarray, ensemble: np.ndarray) -> dict[str, Any]:
    """Returns how members disagree: with each other, and with the ensemble.

    `pairs` is a matrix (members, members): rows to which two members give different labels. `dissenters`
    tells to how many rows 0, 1, 2, ... members give another label than the ensemble. `votes` are the members'
    labels, int (members, rows), and `ensemble` the ensemble's, int (rows,).
    """
    pairs = [[int((one != other).sum()) for other in votes] for one in votes]
    dissenters = np.bincount((votes != ensemble).sum(axis=0), minlength=len(votes) + 1)
    return {"pairs": pairs, "dissenters": dissenters.tolist()}


def likely_mislabelled(labels: np.ndarray, probabilities: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Returns the rows whose label may be wrong, int (n,), the surest first.

    All members that validated the row agree on one other label, and the mean gives it a probability of 0.9
    or more.

    Args:
        labels: uint8 (rows,).
        probabilities: float (rows, 10), NaN where no member predicted the row.
        votes: int (members, rows), the members' labels, -1 where a member did not validate the row.
    """
    label = probabilities.argmax(axis=1)
    agree = ((votes == label) | (votes < 0)).all(axis=0)
    sure = np.nan_to_num(probabilities.max(axis=1))
    found = np.flatnonzero(agree & (label != labels) & (sure >= _SURE))
    return found[np.argsort(-sure[found], kind="stable")]


def label_drift(train: np.ndarray, predicted: np.ndarray) -> dict[str, Any]:
    """Returns the counts of each label in training, uint8 (n,), and among the test predictions, int (m,).

    `p` is that of the chi-squared test that both are drawn from one distribution.
    """
    counts = np.array([np.bincount(each, minlength=CLASSES) for each in (train, predicted)])
    found = counts[:, counts.any(axis=0)]
    p = chi2_contingency(found).pvalue if found.shape[1] > 1 else 1.0
    return {"train": counts[0].tolist(), "predicted": counts[1].tolist(), "p": float(p)}
