"""From the members' probabilities to those of the ensemble, out of fold and on the test rows."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import UserError, read_json, reading, write_array, write_json
from digit_recognizer.results import submission
from digit_recognizer.results.out_of_fold import covered_rows, out_of_fold
from digit_recognizer.runs.directory import Run, is_blend
from digit_recognizer.runs.member import Member
from digit_recognizer.runs.plan import open_plan, refuse_another_run

_DECIMALS = 4  # of a run's weight, as many as are printed


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Prediction:
    """What one run predicts: the mean of its finished members."""

    run: Run
    members: list[Member]  # finished
    missing: list[Member]  # not finished
    oof: np.ndarray  # float32 (training rows, 10), NaN in rows that no member predicted
    test: np.ndarray  # float64 (test rows, 10)


def average_members(run: Run, dataset: Dataset) -> Prediction:
    """Returns the equally weighted mean of the run's finished members.

    Raises UserError if no member is finished, or if the run is of other data.
    """
    members = open_plan(run, dataset).members
    finished = [member for member in members if member.is_finished]
    if not finished:
        raise UserError(f"{run.folder} has no finished fold yet: run scripts/train.py")
    test = np.mean([member.test_probabilities(len(dataset.ids)) for member in finished], axis=0, dtype=float)
    missing = [member for member in members if not member.is_finished]
    return Prediction(run, finished, missing, out_of_fold(finished, len(dataset.train_labels)), test)


def blend(run: Run, runs: Sequence[Run], dataset: Dataset, weighting: str) -> list[tuple[Prediction, float]]:
    """Averages the finished members of `runs` into `run`, and returns each run's prediction and weight.

    Args:
        run: where the result is written: the only one of `runs`, or a directory of its own.
        runs: whose members are averaged.
        dataset: that the runs were trained on.
        weighting: "equal" for each member, or "oof" for the runs' lowest out-of-fold log loss.

    Raises UserError if a run has no finished member, is of other data, is a blend, or is given twice.
    """
    refuse_repetition(runs)
    for source in runs:
        if is_blend(source.require_settings()):
            raise UserError(f"{source.folder} is a blend itself: name the runs that it was made of")
    with run.lock():
        predictions = [average_members(source, dataset) for source in runs]
        counts = np.array([len(prediction.members) for prediction in predictions], float)
        weights = oof_weights(predictions, dataset.train_labels) if weighting == "oof" else counts / counts.sum()
        if run not in runs:  # a blend
            settings = {"name": "blend", "data": dataset.kind, "fingerprint": dataset.fingerprint}
            refuse_another_run(run, run.settings(), settings)
            write_json(run.recipe_json, settings | {"runs": [str(source.folder) for source in runs]})
        write(run, dataset, predictions, weights)
    return list(zip(predictions, weights.tolist(), strict=True))


def refuse_repetition(runs: Sequence[Run]) -> None:
    """Raises UserError if two of the runs are the same folder."""
    folders = [run.folder.resolve() for run in runs]
    for run, folder in zip(runs, folders, strict=True):
        if folders.count(folder) > 1:
            raise UserError(f"{run.folder} is given twice: name each run once")


def write(run: Run, dataset: Dataset, predictions: Sequence[Prediction], weights: np.ndarray) -> None:
    """Writes ensemble.json, oof_probabilities.npy and, if there are test rows, submission.csv.

    They hold the weighted mean of the predictions. The caller holds the run's lock. `weights` has a weight for each prediction and sums to 1; the members of a
    prediction share its weight equally. Out of fold, a row is the weighted mean of the predictions that cover it.
    """
    if len(dataset.ids):
        test = sum(weight * prediction.test for weight, prediction in zip(weights, predictions, strict=True))
        submission.write(run.submission, dataset, test)
    # the members that did not predict a row have no weight there; a row that no member predicted stays NaN
    oof = np.ma.masked_invalid(np.array([prediction.oof for prediction in predictions], float))
    mean = np.ma.filled(np.ma.average(oof, axis=0, weights=weights), np.nan)
    write_array(run.oof_probabilities, mean.astype(np.float32))
    members = [
        {"member": member_path(run, member), "weight": weight / len(prediction.members)}
        for weight, prediction in zip(weights.tolist(), predictions, strict=True)
        for member in prediction.members
    ]
    missing = [member_path(run, member) for prediction in predictions for member in prediction.missing]
    # submit.py sends no other file
    sha256 = hashlib.sha256(run.submission.read_bytes()).hexdigest() if len(dataset.ids) else None
    write_json(run.ensemble_json, {"members": members, "missing": missing, "submission_sha256": sha256})


def oof_weights(predictions: Sequence[Prediction], labels: np.ndarray) -> np.ndarray:
    """Returns the weights, none negative and with sum 1, of the lowest log loss on the rows that all predictions cover.

    The loss is convex in the weights, so a local search from equal weights finds the minimum, here to four decimals.
    `labels` is uint8 (training rows,). Raises UserError if no row is covered by all.
    """
    covered = np.all([covered_rows(prediction.oof) for prediction in predictions], axis=0)
    if not covered.any():
        raise UserError("--weights oof: these runs have no validated row in common; use --weights equal")
    # (predictions, rows): the probability of the label
    of_label = np.array([prediction.oof[covered, labels[covered]] for prediction in predictions], float)
    count = len(predictions)
    result = minimize(
        lambda weights: -np.log(np.maximum(weights @ of_label, 1e-15)).mean(),
        np.full(count, 1 / count),
        method="SLSQP",
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
    )
    # the search may end a little outside of the bounds
    weights = np.round(np.clip(result.x, 0, 1), _DECIMALS)
    return weights / weights.sum()


def member_path(run: Run, member: Member) -> str:
    """Returns the path of a member's folder relative to a run or blend: its name there, such as fold_03."""
    return os.path.relpath(member.folder, run.folder)


@dataclass(frozen=True)
class EnsembleFile:
    """The contents of ensemble.json. Both are empty if there is no such file."""

    weights: dict[Path, float]  # of the members, by their resolved folders; those of weight 0 are left out
    missing: list[str]  # paths, relative to the run, of the members that were not finished


def read_ensemble(run: Run) -> EnsembleFile:
    """Returns the contents of ensemble.json; raises UserError if it is damaged."""
    if not run.ensemble_json.exists():
        return EnsembleFile({}, [])
    advice = "run scripts/ensemble.py again"
    contents = read_json(run.ensemble_json, advice)
    with reading(run.ensemble_json, advice):
        entries = contents["members"]
        weights = {(run.folder / entry["member"]).resolve(): float(entry["weight"]) for entry in entries}
        if not min(weights.values()) >= 0 or not abs(sum(weights.values()) - 1) < 0.01:
            raise ValueError("the weights do not sum to 1")
        missing = [str(Path(name)) for name in contents["missing"]]
    return EnsembleFile({folder: weight for folder, weight in weights.items() if weight > 0}, missing)


def read_members(run: Run, dataset: Dataset) -> list[Member]:
    """Returns the members of a run, or of a blend the members of other runs that it averages.

    Raises UserError if it is no run, or if it is one of other data.
    """
    if not is_blend(run.require_settings()):
        return open_plan(run, dataset).members
    weights = read_ensemble(run).weights
    sources = [Run(folder) for folder in dict.fromkeys(folder.parent for folder in weights)]
    members = [member for source in sources for member in open_plan(source, dataset).members]
    return [member for member in members if member.folder.resolve() in weights]


def trained_models(run: Run) -> dict[Path, float]:
    """Returns the paths of the saved networks of a run or a blend, with their weights; needs no data.

    They are the members in ensemble.json, else the finished members with equal weights. Raises UserError if there
    is none, or if a file is missing.
    """
    run.require_settings()
    weights = read_ensemble(run).weights
    if not weights:
        finished = [path.parent for path in sorted(run.folder.glob("fold_*/metrics.json"))]
        weights = {folder: 1 / len(finished) for folder in finished}
    if not weights:
        raise UserError(f"{run.folder} has no finished fold yet: run scripts/train.py")
    models = {folder / "model.keras": weight for folder, weight in weights.items()}
    for path in models:
        if not path.is_file():
            raise UserError(f"{path} is missing: run scripts/train.py, then scripts/ensemble.py, again")
    return models


def format_blend(run: Run, blended: list[tuple[Prediction, float]]) -> str:
    """Returns what `blend` averaged as lines for a terminal."""
    lines = []
    for prediction, weight in blended:
        folder, names = prediction.run.folder, ", ".join(member.name for member in prediction.missing)
        lines.append(f"{folder}: {len(prediction.members)} members, weight {weight:.4f}")
        lines += [f"{folder}: not finished and not included: {names}"] if names else []
    rows = len(blended[0][0].test)
    lines.append(f"{run.submission}: {rows} rows" if rows else "no test pictures, so no submission.csv")
    return "\n".join(lines)
