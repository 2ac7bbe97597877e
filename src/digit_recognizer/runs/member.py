"""A member of a run: one network, its training and validation rows, the files it leaves, and what they score."""

import functools
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import log_loss

from digit_recognizer.data.digits import CLASSES
from digit_recognizer.files import UserError, read_json, reading

# The files of a finished member. The last one makes it finished: it is written, and copied, after the others.
_PROBABILITIES = "validation_probabilities.npy", "test_probabilities.npy"
FINISHED_FILES = ("model.keras", "history.csv", *_PROBABILITIES, "metrics.json")

# The columns of history.csv.
HISTORY = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "seconds")

# The numbers of metrics.json that the report shows.
METRICS = ("accuracy", "log_loss", "errors", "rows", "best_epoch", "epochs", "seconds")

_FAR = 0.2  # accuracy in training above the accuracy of other rows
_ROUNDING = 0.01  # by which the sum of a row's probabilities may differ from 1


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Member:
    """One network of the ensemble: the fold of a repeat that it validates on.

    `train_rows` and `validation_rows` are disjoint, ascending int arrays of row numbers from 0.
    """

    repeat: int
    fold: int  # in its repeat
    index: int  # in the run: repeat * folds + fold
    train_rows: np.ndarray
    validation_rows: np.ndarray
    folder: Path  # in the run directory

    @property
    def name(self) -> str:
        """The name of its folder, such as fold_07."""
        return self.folder.name

    @property
    def is_finished(self) -> bool:
        """Whether its metrics.json, the last of its files, exists."""
        return (self.folder / "metrics.json").exists()

    def metrics(self) -> dict[str, Any]:
        """Returns the contents of metrics.json; raises UserError if it is missing or damaged."""
        path = self.folder / "metrics.json"
        values = read_json(path, self._repair)
        with reading(path, self._repair):
            for name in METRICS:
                if not abs(float(values[name])) < 1e300:
                    raise ValueError(f"{name} is {values[name]}")
        return values

    def history(self) -> pd.DataFrame:
        """Returns history.csv, a row for each epoch, no rows before the first; raises UserError if it is damaged."""
        path = self.folder / "history.csv"
        if not path.exists() and not self.is_finished:
            return pd.DataFrame(columns=list(HISTORY), dtype=float)
        with reading(path, self._repair):
            return pd.read_csv(path)[list(HISTORY)].astype(float).astype({"epoch": int})

    def validation_probabilities(self) -> np.ndarray:
        """Returns float32 (validation rows, 10); raises UserError if the file is missing or damaged."""
        return read_probabilities(self.folder / _PROBABILITIES[0], len(self.validation_rows), self._repair)

    def test_probabilities(self, rows: int) -> np.ndarray:
        """Returns float32 (test rows, 10); raises UserError if the file is missing or damaged."""
        return read_probabilities(self.folder / _PROBABILITIES[1], rows, self._repair)

    @property
    def _repair(self) -> str:
        return f"delete {self.folder / 'metrics.json'} and train again; that fold starts over"


def read_probabilities(path: Path, rows: int, advice: str, nan_rows: bool = False) -> np.ndarray:
    """Returns the class probabilities in an .npy file, float (rows, 10), read-only; `nan_rows` may be NaN as a whole.

    A file that has not changed is read once in a process. A UserError about a missing or damaged file ends with
    `advice`.
    """
    with reading(path, advice):
        status = path.stat()
        return _read_probabilities(path, (status.st_ino, status.st_mtime_ns, status.st_size), rows, nan_rows)


@functools.lru_cache(maxsize=128)  # files, of 1 MB each
def _read_probabilities(path: Path, version: tuple[int, ...], rows: int, nan_rows: bool) -> np.ndarray:
    """Reads the file; `version` differs if its contents may differ."""
    # The file is mapped before it is read: a header that promises more than there is takes no memory.
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    if not isinstance(array, np.ndarray) or array.shape != (rows, CLASSES) or array.dtype.kind != "f":
        raise ValueError(f"expected float probabilities of {rows} rows and {CLASSES} classes")
    array = np.array(array)
    with np.errstate(all="ignore"):  # of what a damaged file may hold
        valid = ((array >= 0) & (array <= 1 + _ROUNDING)).all(axis=1)
        valid &= abs(array.sum(axis=1) - 1) < _ROUNDING
    if nan_rows:
        valid |= np.isnan(array).all(axis=1)
    if not valid.all():
        raise ValueError(f"row {int(np.flatnonzero(~valid)[0])} holds no probabilities")
    array.flags.writeable = False  # shared by all callers
    return array


def state_facts(path: Path) -> dict[str, Any]:
    """Returns what a state.npz holds beside its arrays; nothing if it is missing or damaged."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(json.loads(str(arrays["facts"])))
    except Exception:  # a damaged file can raise nearly anything; the member starts over
        return {}


def epochs_in(path: Path) -> int:
    """Returns how many epochs of a member a state.npz holds; 0 if it is missing or damaged."""
    history = state_facts(path).get("history")
    return len(history) if isinstance(history, list) else 0


def out_of_fold(members: Iterable[Member], rows: int) -> np.ndarray:
    """Returns the mean of the validation probabilities, float32 (rows, 10); NaN in rows that no member predicted."""
    total, count = np.zeros((rows, CLASSES)), np.zeros((rows, 1))
    for member in members:
        total[member.validation_rows] += member.validation_probabilities()
        count[member.validation_rows] += 1
    with np.errstate(invalid="ignore"):  # 0 / 0
        return (total / count).astype(np.float32)


def load_oof(path: Path, rows: int) -> np.ndarray:
    """Returns oof_probabilities.npy, float32 (rows, 10); raises UserError if it is missing, damaged or empty."""
    advice = "run scripts/ensemble.py again"
    oof = read_probabilities(path, rows, advice, nan_rows=True)
    if not covered_rows(oof).any():
        raise UserError(f"{path} has no row that a member predicted: {advice}")
    return oof


def covered_rows(oof: np.ndarray) -> np.ndarray:
    """Returns bool (rows,): the rows of out-of-fold probabilities (rows, 10) that a member predicted."""
    return np.isfinite(oof).all(axis=1)


def wrong_rows(oof: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns bool (rows,): the predicted rows whose most probable class is not the label."""
    return covered_rows(oof) & (oof.argmax(axis=1) != labels)


def scores(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, Any]:
    """Returns rows, errors, accuracy and log loss (nats) of probabilities, float (n, 10), against labels (n,)."""
    errors = int((probabilities.argmax(axis=1) != labels).sum())
    # float64 rows that sum to 1 exactly, as scikit-learn wants them
    probabilities = probabilities.astype(np.float64)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    loss = float(log_loss(labels, probabilities, labels=np.arange(probabilities.shape[1])))
    return {"rows": len(labels), "errors": errors, "accuracy": 1 - errors / len(labels), "log_loss": loss}


def describe_gap(trained: float, validated: float) -> str:
    """Returns a warning if the accuracy in training is far above that of rows that were not trained on, else ""."""
    advice = "try more --epochs, a smaller --batch-size or a lower --set learning_rate"
    text = f"the accuracy is {trained:.2f} in training and {validated:.2f} in validation"
    return f"something is wrong: {text}: {advice}" if trained - validated > _FAR else ""
