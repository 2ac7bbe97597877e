"""From the members' probabilities to the ensemble's, out of fold and on the test rows."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from digit_recognizer.data.digits import Labels
from digit_recognizer.data.plan import Plan, TrainedModel, open_plan
from digit_recognizer.errors import UserError
from digit_recognizer.files import write_array, write_json
from digit_recognizer.recipes import from_json
from digit_recognizer.results import submission
from digit_recognizer.results.members import (
    covered_rows,
    is_blend,
    out_of_fold,
    plan_members,
    read_ensemble,
    refuse_repetition,
)
from digit_recognizer.run import Run

_DECIMALS = 4  # of a run's weight, as many as are printed


@dataclass(frozen=True)
class Prediction:
    """What one run predicts: its members, and the means of their probabilities."""

    run: Run
    members: list[Path]  # folders of the finished members
    missing: list[str]  # names of members that are not finished
    oof: np.ndarray  # float32 (training rows, 10), NaN where no member predicted the row
    test: np.ndarray  # float64 (test rows, 10)


def average_members(plan: Plan) -> Prediction:
    """Returns the equally weighted mean of the run's finished members; raises UserError if there is none."""
    members = plan_members(plan)
    finished = [member for member in members if member.finished]
    if not finished:
        raise UserError(f"{plan.run.folder} has no finished fold yet: run scripts/train.py")
    tests = [member.test_probabilities(len(plan.labels.ids)) for member in finished]
    return Prediction(
        plan.run,
        [member.folder for member in finished],
        [member.name for member in members if not member.finished],
        out_of_fold(finished, len(plan.labels.train)),
        np.mean(tests, axis=0, dtype=np.float64),
    )


def trained_models(run: Run) -> list[TrainedModel]:
    """Returns the saved networks of a run, a blend or a folder of runs, with their weights.

    They are the members in ensemble.json, else the finished members with equal weights. Raises UserError if there
    is none, or one is missing.
    """
    run.require_settings()
    weights = {run.folder / each["member"]: each["weight"] for each in read_ensemble(run)["members"]}
    if not weights:
        finished = [path.parent for path in sorted(run.folder.glob("fold_*/metrics.json"))]
        weights = {folder: 1 / len(finished) for folder in finished}
    if not weights:
        raise UserError(f"{run.folder} has no finished fold yet: run scripts/train.py")
    recipes = {
        folder: from_json(Run(folder).require_settings()) for folder in {member.parent for member in weights}
    }
    models = [
        TrainedModel(member / "model.keras", weight, recipes[member.parent])
        for member, weight in weights.items()
    ]
    for model in models:
        if not model.path.is_file():
            raise UserError(f"{model.path} is missing: run scripts/train.py, then scripts/ensemble.py, again")
    return models


def write(run: Run, labels: Labels, predictions: list[Prediction], weights: np.ndarray) -> None:
    """Writes ensemble.json, oof_probabilities.npy and submission.csv: the weighted mean of `predictions`.

    The run's lock has to be held. There is a weight for each prediction, their sum is 1, and the members of a
    prediction share its weight equally. Out of fold, the predictions that cover a row share it by their weights.
    """
    test = sum(weight * each.test for weight, each in zip(weights, predictions, strict=True))
    members = [
        {"member": os.path.relpath(member, run.folder), "weight": weight / len(each.members)}
        for weight, each in zip(weights.tolist(), predictions, strict=True)
        for member in each.members
    ]
    submission.write(run.submission, labels, test)
    write_array(run.oof_probabilities, _mean_out_of_fold(predictions, weights))
    missing = [
        os.path.relpath(each.run.folder / name, run.folder) for each in predictions for name in each.missing
    ]
    write_json(run.ensemble_json, {"members": members, "missing": missing})


def _mean_out_of_fold(predictions: list[Prediction], weights: np.ndarray) -> np.ndarray:
    """The weighted mean of the predictions that cover a row, float32 (rows, 10), NaN in rows without any."""
    total, shares = 0.0, 0.0
    for weight, each in zip(weights, predictions, strict=True):
        covered = covered_rows(each.oof)[:, None]
        total = total + weight * np.where(covered, each.oof, 0)
        shares = shares + weight * covered
    with np.errstate(invalid="ignore"):  # 0 / 0
        return (total / shares).astype(np.float32)


def equal_weights(predictions: list[Prediction]) -> np.ndarray:
    """Returns a weight for each prediction that gives every member the same, whichever run it is of."""
    counts = np.array([len(each.members) for each in predictions], float)
    return counts / counts.sum()


def oof_weights(predictions: list[Prediction], labels: np.ndarray) -> np.ndarray:
    """Returns a weight for each prediction, none negative and sum 1, for the least out-of-fold log loss.

    The loss is convex in the weights, so a local search from equal weights finds the least, here to four
    decimals. The rows that all predictions cover count; `labels` are uint8 (training rows,). Raises UserError if
    there is no such row.
    """
    covered = np.all([covered_rows(each.oof) for each in predictions], axis=0)
    if not covered.any():
        raise UserError("--weights oof: these runs have no validated row in common; use --weights equal")
    # (predictions, rows): the probability of the label
    right = np.array([each.oof[covered, labels[covered]] for each in predictions], np.float64)
    count = len(predictions)
    found = minimize(
        lambda weights: -np.log(np.maximum(weights @ right, 1e-15)).mean(),
        np.full(count, 1 / count),
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
    )
    weights = np.round(np.clip(found.x, 0, 1), _DECIMALS)  # the search may end a little outside of the bounds
    return weights / weights.sum()


def blend(run: Run, runs: list[Run], labels: Labels, weighting: str) -> list[tuple[Prediction, float]]:
    """Averages the finished members of `runs` into `run`, and returns each run's prediction and weight.

    `run` is one of `runs`, or a directory of its own. `weighting` is "equal" for each member, or "oof" for the
    runs' least out-of-fold log loss. Raises UserError if a run has no finished member, is of other data, is a blend
    or is given twice.
    """
    refuse_repetition(runs)
    for each in runs:
        if is_blend(each):
            raise UserError(f"{each.folder} is a blend itself: name the runs that it was made of")
    with run.lock():
        predictions = [average_members(open_plan(each, labels)) for each in runs]
        weights = oof_weights(predictions, labels.train) if weighting == "oof" else equal_weights(predictions)
        if run not in runs:
            _claim_blend(run, runs, labels)
        write(run, labels, predictions, weights)
    return list(zip(predictions, weights.tolist(), strict=True))


def _claim_blend(run: Run, runs: list[Run], labels: Labels) -> None:
    """Writes the blend's recipe.json; raises UserError if the directory holds another run."""
    sources = [each.require_settings() for each in runs]
    own = {"name": "blend", "data": labels.kind, "labels": labels.fingerprint()}
    own |= {"fingerprint": sources[0].get("fingerprint")}
    run.check_settings(run.settings(), own)
    write_json(run.recipe_json, own | {"runs": [str(each.folder) for each in runs]})


def format_blend(run: Run, labels: Labels, taken: list[tuple[Prediction, float]]) -> str:
    """Returns what `blend` took, as lines for a terminal."""
    lines = []
    for prediction, weight in taken:
        folder = prediction.run.folder
        lines.append(f"{folder}: {len(prediction.members)} members, weight {weight:.4f}")
        if prediction.missing:
            lines.append(f"{folder}: not finished, and not in it: {', '.join(prediction.missing)}")
    return "\n".join([*lines, f"{run.submission}: {len(labels.ids)} rows"])
