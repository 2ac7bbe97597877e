"""The members of a run as its report takes them: which rows each validated, and what it predicted there."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from digit_recognizer.data.digits import Labels
from digit_recognizer.data.plan import METRICS, open_plan, read_metrics
from digit_recognizer.errors import UserError
from digit_recognizer.results.ensemble import load_oof, load_probabilities, mean_out_of_fold, read_ensemble
from digit_recognizer.run import Run

COLUMNS = METRICS  # of a report's table

_QUANTITIES = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate", "seconds")


@dataclass(frozen=True, eq=False)  # arrays do not compare
class MemberResult:
    """One network of a run or a blend, finished or not."""

    name: str  # of its folder, as ensemble.json has it
    source: str  # name of the folder of its run
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


def is_blend(run: Run) -> bool:
    """Returns whether `run` was blended of other runs, and so has no split of its own."""
    return "runs" in run.require_settings()


def _ensemble(run: Run) -> list[dict[str, Any]]:
    """The members in ensemble.json, with their weights; none where there is no such file."""
    return read_ensemble(run)["members"] if run.ensemble_json.exists() else []


def read_members(run: Run, labels: Labels) -> list[MemberResult]:
    """Returns the members of a run, or of the runs that a blend is made of.

    Raises UserError where it is no run, or one of other data.
    """
    weights = {(run.folder / each["member"]).resolve(): each for each in _ensemble(run)}
    sources = [run]
    if is_blend(run):
        folders = [(run.folder / each["member"]).parent for each in weights.values()]
        sources = [Run(folder) for folder in dict.fromkeys(folders)]
    found = []
    for source in sources:
        plan = open_plan(source, labels)
        for member in plan.members:
            folder = plan.folder(member)
            entry = weights.get(folder.resolve(), {})
            if source is run or entry:
                found.append(
                    MemberResult(
                        entry.get("member", member.name),
                        folder.resolve().parent.name,
                        member.repeat,
                        folder,
                        member.validation_rows,
                        plan.is_finished(member),
                        entry.get("weight"),
                    )
                )
    return found


def out_of_fold(members: list[MemberResult], rows: int) -> np.ndarray:
    """Returns the mean of what the finished members predict, float32 (rows, 10), NaN in rows without any."""
    finished = (member for member in members if member.finished)
    return mean_out_of_fold(((each.rows, each.validation_probabilities()) for each in finished), rows)


def run_out_of_fold(run: Run, members: list[MemberResult], rows: int) -> np.ndarray:
    """Returns the out-of-fold probabilities of a run, or those that `ensemble.py` left in a blend."""
    return load_oof(run, rows) if is_blend(run) else out_of_fold(members, rows)
