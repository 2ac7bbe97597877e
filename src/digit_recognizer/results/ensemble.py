"""From the members' probabilities to the ensemble's, out of fold and on the test rows."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import minimize

from digit_recognizer.data.digits import CLASSES, Labels
from digit_recognizer.data.plan import Plan, TrainedModel, open_plan
from digit_recognizer.errors import UserError
from digit_recognizer.files import read_array, read_json, write_array, write_json
from digit_recognizer.recipes import from_json
from digit_recognizer.results import submission
from digit_recognizer.run import Run

_ROUNDING = 0.01  # by which the sum of a row's probabilities may differ from 1


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
    finished = [member for member in plan.members if plan.is_finished(member)]
    if not finished:
        raise UserError(f"{plan.run.folder} has no finished fold yet: run scripts/train.py")
    folders = [plan.folder(member) for member in finished]
    rows = [member.validation_rows for member in finished]
    validation = [
        load_probabilities(folder / "validation_probabilities.npy", len(own))
        for folder, own in zip(folders, rows, strict=True)
    ]
    oof = mean_out_of_fold(zip(rows, validation, strict=True), len(plan.labels.train))
    count = len(plan.labels.ids)
    tests = [load_probabilities(folder / "test_probabilities.npy", count) for folder in folders]
    missing = [member.name for member in plan.members if member not in finished]
    return Prediction(plan.run, folders, missing, oof, np.mean(tests, axis=0, dtype=np.float64))


def mean_out_of_fold(predictions: Iterable[tuple[np.ndarray, np.ndarray]], rows: int) -> np.ndarray:
    """Returns the mean of members' out-of-fold predictions, float32 (rows, 10), NaN in rows without any.

    `predictions` are, for each member, its validation rows, int (n,), and their probabilities, float (n, 10).
    """
    total, times = np.zeros((rows, CLASSES)), np.zeros((rows, 1))
    for validated, probabilities in predictions:
        total[validated] += probabilities
        times[validated] += 1
    with np.errstate(invalid="ignore"):  # 0 / 0
        return (total / times).astype(np.float32)


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


def covered_rows(oof: np.ndarray) -> np.ndarray:
    """Returns bool (rows,): which rows of out-of-fold probabilities (rows, 10) a member predicted."""
    return np.isfinite(oof).all(axis=1)


def load_oof(run: Run, rows: int) -> np.ndarray:
    """Returns the run's oof_probabilities.npy, float32 (rows, 10); raises UserError if it is not of `rows`."""
    try:
        oof = read_array(run.oof_probabilities)
        if oof.shape != (rows, CLASSES) or not (_are_probabilities(oof) | np.isnan(oof).all(axis=1)).all():
            raise ValueError
    except ValueError:
        raise UserError(
            f"{run.oof_probabilities} is damaged, or not of these training rows: run scripts/ensemble.py again"
        ) from None
    return oof


def read_ensemble(run: Run) -> dict[str, Any]:
    """Returns the contents of ensemble.json: `members`, each with its `weight`, and the names of those `missing`.

    Raises UserError where the file is damaged.
    """
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
    return {"members": members, "missing": [str(each) for each in missing]}


def ensemble_test_probabilities(run: Run, rows: int) -> np.ndarray:
    """Returns the probabilities that submission.csv is made of, float64 (rows, 10).

    They are the mean of the members' test probabilities with the weights of ensemble.json.
    """
    return sum(
        member["weight"]
        * load_probabilities(run.folder / member["member"] / "test_probabilities.npy", rows).astype(
            np.float64
        )
        for member in read_ensemble(run)["members"]
    )


def trained_models(run: Run) -> list[TrainedModel]:
    """Returns the saved networks of a run, a blend or a folder of runs, with their weights.

    They are the members in ensemble.json, else the finished members with equal weights. Raises UserError if there
    is none, or one is missing.
    """
    run.require_settings()
    if run.ensemble_json.exists():
        members = read_ensemble(run)["members"]
        weights = {run.folder / member["member"]: member["weight"] for member in members}
    else:
        finished = [path.parent for path in sorted(run.folder.glob("fold_*/metrics.json"))]
        weights = {folder: 1 / len(finished) for folder in finished}
    if not weights:
        raise UserError(f"{run.folder} has no finished fold yet: run scripts/train.py")
    shifts = {
        folder: from_json(Run(folder).require_settings()).tta_shift
        for folder in {member.parent for member in weights}
    }
    models = [
        TrainedModel(member / "model.keras", weight, shifts[member.parent])
        for member, weight in weights.items()
    ]
    for model in models:
        if not model.path.is_file():
            raise UserError(f"{model.path} is missing: run scripts/train.py, then scripts/ensemble.py, again")
    return models


def write(run: Run, labels: Labels, predictions: list[Prediction], weights: np.ndarray) -> None:
    """Writes ensemble.json, oof_probabilities.npy and submission.csv: the weighted mean of `predictions`.

    Args:
        run: where to; its lock has to be held.
        labels: of the data that the predictions are of.
        predictions: one for each run that takes part.
        weights: one for each prediction, sum 1; the members of a prediction share its weight equally.
    """
    oof = sum(weight * each.oof for weight, each in zip(weights, predictions, strict=True))
    test = sum(weight * each.test for weight, each in zip(weights, predictions, strict=True))
    members = [
        {"member": os.path.relpath(member, run.folder), "weight": weight / len(each.members)}
        for weight, each in zip(weights.tolist(), predictions, strict=True)
        for member in each.members
    ]
    submission.write(run.submission, labels, test)
    write_array(run.oof_probabilities, np.asarray(oof, np.float32))
    missing = [name for each in predictions for name in each.missing]
    write_json(run.ensemble_json, {"members": members, "missing": missing})


def equal_weights(predictions: list[Prediction]) -> np.ndarray:
    """Returns a weight for each prediction that gives every member the same, whichever run it is of."""
    counts = np.array([len(each.members) for each in predictions], float)
    return counts / counts.sum()


def oof_weights(predictions: list[Prediction], labels: np.ndarray) -> np.ndarray:
    """Returns a weight for each prediction, none negative and sum 1, for the least out-of-fold log loss.

    The loss is convex in the weights, so a local search from equal weights finds the least.

    Args:
        predictions: of the runs; the rows that all of them cover count.
        labels: uint8 (training rows,).

    Raises UserError if they have no covered row in common.
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
    return found.x / found.x.sum()


def blend(run: Run, runs: list[Run], labels: Labels, weighting: str) -> list[tuple[Prediction, float]]:
    """Averages the finished members of `runs` into `run`, and returns each run's prediction and weight.

    Args:
        run: where ensemble.json, oof_probabilities.npy and submission.csv go; one of `runs`, or a directory
            of its own.
        runs: the runs that take part.
        labels: of the data that they were trained on.
        weighting: "equal" for each member, or "oof" for the runs' least out-of-fold log loss.

    Raises UserError if a run has no finished member or is of other data.
    """
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
