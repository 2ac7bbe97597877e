"""The members of a run, of a blend and of its report: what each validated and predicted, and their means."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from digit_recognizer.data.digits import CLASSES, Labels
from digit_recognizer.data.plan import Plan, open_plan, read_metrics
from digit_recognizer.errors import UserError
from digit_recognizer.files import read_array, read_json
from digit_recognizer.run import Run

_ROUNDING = 0.01  # by which the sum of a row's probabilities may differ from 1
_QUANTITIES = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")


@dataclass(frozen=True, eq=False)  # arrays do not compare
class MemberResult:
    """One network of a run or a blend, finished or not."""

    name: str  # path of its folder, as ensemble.json has it
    repeat: int
    folder: Path
    rows: np.ndarray  # int (n,): the rows it validates on
    finished: bool
    weight: float | None = None  # in the ensemble, None where it takes no part

    def metrics(self) -> dict[str, Any]:
        """Returns the contents of metrics.json; raises UserError where they are damaged."""
        return read_metrics(self.folder / "metrics.json")

    def validation_probabilities(self) -> np.ndarray:
        """Returns float32 (validation rows, 10); raises UserError where they are missing or damaged."""
        return load_probabilities(self.folder / "validation_probabilities.npy", len(self.rows))

    def test_probabilities(self, rows: int) -> np.ndarray:
        """Returns float32 (test rows, 10); raises UserError where they are missing or damaged."""
        return load_probabilities(self.folder / "test_probabilities.npy", rows)

    def history(self) -> pd.DataFrame:
        """Returns history.csv, a line for each epoch; no line where no epoch has ended yet.

        Raises UserError where the file is damaged.
        """
        path = self.folder / "history.csv"
        if not path.exists() and not self.finished:
            return pd.DataFrame(columns=["epoch", *_QUANTITIES], dtype=float)
        try:
            return pd.read_csv(path)[["epoch", *_QUANTITIES]].astype(float).astype({"epoch": int})
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{path} is missing or damaged ({type(error).__name__}): delete {path.parent}/metrics.json and "
                "train again; that fold starts over"
            ) from None


def plan_members(plan: Plan) -> list[MemberResult]:
    """Returns the members of a run, finished or not, without their weights in an ensemble."""
    return [
        MemberResult(each.name, each.repeat, plan.folder(each), each.validation_rows, plan.is_finished(each))
        for each in plan.members
    ]


def read_members(run: Run, labels: Labels) -> list[MemberResult]:
    """Returns the members of a run, or of the runs that a blend is made of, with their weights in the ensemble.

    Raises UserError where it is no run, or one of other data.
    """
    entries = {(run.folder / each["member"]).resolve(): each for each in read_ensemble(run)["members"]}
    sources = [run]
    if is_blend(run):
        folders = dict.fromkeys((run.folder / each["member"]).parent for each in entries.values())
        sources = [Run(folder) for folder in folders]
    found = []
    for source in sources:
        for member in plan_members(open_plan(source, labels)):
            entry = entries.get(member.folder.resolve())
            if entry:
                found.append(replace(member, name=entry["member"], weight=entry["weight"]))
            elif source is run:
                found.append(member)
    return found


def is_blend(run: Run) -> bool:
    """Returns whether `run` was blended of other runs, and so has no split of its own."""
    return "runs" in run.require_settings()


def refuse_repetition(runs: Sequence[Run]) -> None:
    """Raises UserError where two of the runs are the same folder."""
    folders = [run.folder.resolve() for run in runs]
    for run, folder in zip(runs, folders, strict=True):
        if folders.count(folder) > 1:
            raise UserError(f"{run.folder} is given twice: name each run once")


def read_ensemble(run: Run) -> dict[str, Any]:
    """Returns the contents of ensemble.json: `members`, each with its `weight`, and the names of those `missing`.

    A member of weight 0 has no part in the ensemble, and is left out. Both are empty where there is no such file.
    Raises UserError where it is damaged.
    """
    if not run.ensemble_json.exists():
        return {"members": [], "missing": []}
    contents = read_json(run.ensemble_json)
    try:
        members = [
            {"member": str(each["member"]), "weight": float(each["weight"])} for each in contents["members"]
        ]
        weights = [each["weight"] for each in members]
        if not min(weights) >= 0 or not abs(sum(weights) - 1) < _ROUNDING:
            raise ValueError
        missing = contents["missing"]
        if not isinstance(missing, list):
            raise TypeError
    except (TypeError, KeyError, ValueError, OverflowError):
        raise UserError(f"{run.ensemble_json} is damaged: run scripts/ensemble.py again") from None
    members = [each for each in members if each["weight"] > 0]
    return {"members": members, "missing": [str(each) for each in missing]}


def load_probabilities(path: Path, rows: int) -> np.ndarray:
    """Returns a member's probabilities, float (rows, 10).

    Raises UserError unless they are whole, and of this number of rows.
    """
    try:
        probabilities = read_array(path)
        if probabilities.shape != (rows, CLASSES) or not _are_probabilities(probabilities).all():
            raise ValueError
    except (OSError, ValueError):
        raise UserError(
            f"{path} is missing or damaged: delete {path.parent}/metrics.json and train again; that fold starts over"
        ) from None
    return probabilities


def _are_probabilities(rows: np.ndarray) -> np.ndarray:
    """Returns bool (n,): which rows, of an array of any type (n, 10), are probabilities."""
    if rows.dtype.kind != "f":
        return np.zeros(len(rows), bool)
    with np.errstate(all="ignore"):  # of what a damaged file may hold
        return ((rows >= 0) & (rows <= 1 + _ROUNDING)).all(axis=1) & (abs(rows.sum(axis=1) - 1) < _ROUNDING)


def load_oof(run: Run, rows: int) -> np.ndarray:
    """Returns the run's oof_probabilities.npy, float32 (rows, 10), NaN in rows that no member predicted.

    Raises UserError if it is missing, damaged, not of `rows`, or without a row that is predicted.
    """
    try:
        oof = read_array(run.oof_probabilities)
        if oof.shape != (rows, CLASSES) or not (_are_probabilities(oof) | np.isnan(oof).all(axis=1)).all():
            raise ValueError
    except (OSError, ValueError):
        raise UserError(
            f"{run.oof_probabilities} is missing, damaged, or not of these training rows: run scripts/ensemble.py again"
        ) from None
    if not covered_rows(oof).any():
        raise UserError(
            f"{run.oof_probabilities} has no row that a member predicted: run scripts/ensemble.py again"
        )
    return oof


def covered_rows(oof: np.ndarray) -> np.ndarray:
    """Returns bool (rows,): which rows of out-of-fold probabilities (rows, 10) a member predicted."""
    return np.isfinite(oof).all(axis=1)


def wrong_rows(oof: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Returns bool (rows,): which rows out-of-fold probabilities (rows, 10) have wrong, of those predicted."""
    return covered_rows(oof) & (oof.argmax(axis=1) != labels)


def out_of_fold(members: Iterable[MemberResult], rows: int) -> np.ndarray:
    """Returns the mean of what the finished members predict, float32 (rows, 10), NaN in rows without any."""
    total, times = np.zeros((rows, CLASSES)), np.zeros((rows, 1))
    for member in members:
        if member.finished:
            total[member.rows] += member.validation_probabilities()
            times[member.rows] += 1
    with np.errstate(invalid="ignore"):  # 0 / 0
        return (total / times).astype(np.float32)
