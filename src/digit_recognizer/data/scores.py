"""How good probabilities are: one definition for folds, runs and reports."""

from typing import Any

import numpy as np
from sklearn.metrics import log_loss


def scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Rows, errors, accuracy and log loss (nats) of float probabilities (n, 10) against labels (n,)."""
    errors = int((probabilities.argmax(axis=1) != labels).sum())
    # float64 rows that sum to 1 exactly, as scikit-learn wants them
    probabilities = probabilities.astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return {
        "rows": len(labels),
        "errors": errors,
        "accuracy": 1 - errors / len(labels),
        "log_loss": float(log_loss(labels, probabilities, labels=np.arange(probabilities.shape[1]))),
    }
