"""From the members' probabilities to those of the ensemble, out of fold and on the test rows."""

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from os.path import relpath
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.optimize import minimize

from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import UserError, atomic, read_json, reading, write_array, write_json
from digit_recognizer.runs.directory import Run, is_blend
from digit_recognizer.runs.member import Member, covered_rows, load_oof, out_of_fold, wrong_rows
from digit_recognizer.runs.plan import open_plan, refuse_another_run

_DECIMALS = 4  # of a run's weight, as many as are printed


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Ensemble:
    """What several members of a run, or of the runs of a blend, predict together."""

    run: Run
    dataset: Dataset
    members: list[Member]  # all are finished
    weights: list[float]  # of the members; their sum is 1
    others: list[Member]  # of the run, but not of the ensemble: not finished, or finished later
    oof: np.ndarray  # float32 (training rows, 10), NaN in rows that no member predicted

    @functools.cached_property
    def tests(self) -> list[np.ndarray]:
        """The members' test probabilities, each float32 (test rows, 10)."""
        return [member.test_probabilities(len(self.dataset.ids)) for member in self.members]

    @functools.cached_property
    def test(self) -> np.ndarray:
        """float64 (test rows, 10): the probabilities of the ensemble."""
        return np.average(self.tests, axis=0, weights=self.weights)

    @functools.cached_property
    def votes(self) -> np.ndarray:
        """int8 (members, training rows): the members' classes out of fold, -1 if a member did not predict the row."""
        votes = np.full((len(self.members), len(self.oof)), -1, np.int8)
        for line, member in zip(votes, self.members, strict=True):
            line[member.validation_rows] = member.validation_probabilities().argmax(axis=1)
        return votes

    @functools.cached_property
    def wrong(self) -> np.ndarray:
        """int (n,): the rows that are wrong out of fold, the most confident predictions first."""
        rows = np.flatnonzero(wrong_rows(self.oof, self.dataset.train_labels))
        return rows[np.argsort(-self.oof[rows].max(axis=1), kind="stable")]

    def histories(self) -> dict[str, pd.DataFrame]:
        """Returns the history, as it is now, of each member that has an epoch, by name."""
        members = sorted([*self.members, *self.others], key=lambda member: member.folder)
        histories = {relpath(member.folder, self.run.folder): member.history() for member in members}
        return {name: history for name, history in histories.items() if len(history)}


def average_members(run: Run, dataset: Dataset, may_be_empty: bool = False) -> Ensemble:
    """Returns the finished members with equal weights; raises UserError for none (see `may_be_empty`) or other data."""
    members = open_plan(run, dataset).members
    finished = [member for member in members if member.is_finished]
    if not finished and not may_be_empty:
        raise UserError(f"{run.folder} has no finished fold yet: run scripts/train.py")
    others, weights = [member for member in members if not member.is_finished], [1 / len(finished) for _ in finished]
    return Ensemble(run, dataset, finished, weights, others, out_of_fold(finished, len(dataset.train_labels)))


def open_ensemble(run: Run, dataset: Dataset) -> Ensemble:
    """Returns what `ensemble.py` made of a run; raises UserError if a file is missing, damaged or of other data."""
    settings, (weights, _) = run.require_settings(), read_ensemble(run)
    if not weights:
        raise UserError(f"{run.folder} has no ensemble yet: run scripts/ensemble.py first")
    for folder in weights:
        if not (folder / "metrics.json").exists():
            problem = f"{folder.name} of the ensemble is not finished: run scripts/ensemble.py again"
            raise UserError(f"{run.folder}: {problem}")
    sources = dict.fromkeys(folder.parent for folder in weights) if is_blend(settings) else [run.folder]
    all_members = [member for folder in sources for member in open_plan(Run(folder), dataset).members]
    members = [member for member in all_members if member.folder.resolve() in weights]
    others = [] if is_blend(settings) else [member for member in all_members if member not in members]
    weights_of_members = [weights[member.folder.resolve()] for member in members]
    oof = load_oof(run.oof_probabilities, len(dataset.train_labels))
    return Ensemble(run, dataset, members, weights_of_members, others, oof)


def blend(run: Run, runs: Sequence[Run], dataset: Dataset, weighting: str) -> list[tuple[Ensemble, float]]:
    """Averages the finished members of `runs` into `run`, the only one of them or a directory of its own.

    Returns each run's ensemble and weight. `weighting` is "equal" for each member, or "oof" for the runs' lowest
    out-of-fold log loss.

    Raises UserError if a run has no finished member, is of other data, is a blend, or is given twice.
    """
    refuse_repetition(runs)
    for source in runs:
        if is_blend(source.require_settings()):
            raise UserError(f"{source.folder} is a blend itself: name the runs that it was made of")
    with run.lock():
        ensembles = [average_members(source, dataset) for source in runs]
        counts = np.array([len(ensemble.members) for ensemble in ensembles], float)
        weights = oof_weights(ensembles, dataset.train_labels) if weighting == "oof" else counts / counts.sum()
        write(run, ensembles, weights)
    return list(zip(ensembles, weights.tolist(), strict=True))


def refuse_repetition(runs: Sequence[Run]) -> None:
    """Raises UserError if two of the runs are the same folder."""
    folders = [run.folder.resolve() for run in runs]
    for run, folder in zip(runs, folders, strict=True):
        if folders.count(folder) > 1:
            raise UserError(f"{run.folder} is given twice: name each run once")


def write(run: Run, ensembles: Sequence[Ensemble], weights: np.ndarray) -> None:
    """Writes ensemble.json, oof_probabilities.npy and, if there are test rows, submission.csv; of a blend, recipe.json.

    They hold the weighted mean of the ensembles, out of fold of those that cover the row. `weights` has a weight for
    each ensemble and sums to 1; the members of an ensemble share its weight equally. The caller holds the run's lock.
    """
    dataset = ensembles[0].dataset
    test = sum(weight * ensemble.test for weight, ensemble in zip(weights, ensembles, strict=True))
    sources = [ensemble.run for ensemble in ensembles]
    if run not in sources:  # a blend
        settings = {"name": "blend", "data": dataset.kind, "fingerprint": dataset.fingerprint}
        refuse_another_run(run, run.settings(), settings)
        write_json(run.recipe_json, settings | {"runs": [str(source.folder) for source in sources]})
    sha256 = None
    if len(dataset.ids):
        labels = dict(zip(dataset.columns, (dataset.ids, np.asarray(test).argmax(axis=1)), strict=True))
        with atomic(run.submission) as file:
            pd.DataFrame(labels).to_csv(file, index=False, lineterminator="\n")
        sha256 = hashlib.sha256(run.submission.read_bytes()).hexdigest()  # submit.py sends no other file
    # the members that did not predict a row have no weight there; a row that no member predicted stays NaN
    oof = np.ma.masked_invalid(np.array([ensemble.oof for ensemble in ensembles], float))
    mean = np.ma.filled(np.ma.average(oof, axis=0, weights=weights), np.nan)
    write_array(run.oof_probabilities, mean.astype(np.float32))
    members = [
        {"member": relpath(member.folder, run.folder), "weight": weight / len(ensemble.members)}
        for weight, ensemble in zip(weights.tolist(), ensembles, strict=True)
        for member in ensemble.members
    ]
    missing = [relpath(member.folder, run.folder) for ensemble in ensembles for member in ensemble.others]
    write_json(run.ensemble_json, {"members": members, "missing": missing, "submission_sha256": sha256})


def oof_weights(ensembles: Sequence[Ensemble], labels: np.ndarray) -> np.ndarray:
    """Returns the weights, none negative and with sum 1, of the lowest log loss on the rows that all ensembles cover.

    The loss is convex in the weights, so a local search from equal weights finds the minimum, here to four decimals.
    `labels` is uint8 (training rows,). Raises UserError if no row is covered by all.
    """
    covered = np.all([covered_rows(ensemble.oof) for ensemble in ensembles], axis=0)
    if not covered.any():
        raise UserError("--weights oof: these runs have no validated row in common; use --weights equal")
    # (ensembles, rows): the probability of the label
    of_label = np.array([ensemble.oof[covered, labels[covered]] for ensemble in ensembles], float)
    result = minimize(
        lambda weights: -np.log(np.maximum(weights @ of_label, 1e-15)).mean(),
        np.full(len(ensembles), 1 / len(ensembles)),
        bounds=[(0, 1)] * len(ensembles),
        constraints={"type": "eq", "fun": lambda weights: weights.sum() - 1},
    )
    # the search may end a little outside of the bounds
    weights = np.round(np.clip(result.x, 0, 1), _DECIMALS)
    return weights / weights.sum()


def read_ensemble(run: Run) -> tuple[dict[Path, float], list[str]]:
    """Returns the contents of ensemble.json, empty if there is no such file; raises UserError if it is damaged.

    The first is the weight of each member, by its resolved folder; members of weight 0 are left out. The second are the
    members that were not finished, as paths relative to the run.
    """
    if not run.ensemble_json.exists():
        return {}, []
    advice = "run scripts/ensemble.py again"
    contents = read_json(run.ensemble_json, advice)
    with reading(run.ensemble_json, advice):
        entries = contents["members"]
        weights = {(run.folder / entry["member"]).resolve(): float(entry["weight"]) for entry in entries}
        if not min(weights.values()) >= 0 or not abs(sum(weights.values()) - 1) < 0.01:
            raise ValueError("the weights do not sum to 1")
        missing = [str(Path(name)) for name in contents["missing"]]
    return {folder: weight for folder, weight in weights.items() if weight > 0}, missing


def trained_models(run: Run) -> dict[Path, float]:
    """Returns the paths of the networks and their weights, whose sum is 1; raises UserError if one is missing."""
    run.require_settings()
    finished = [path.parent for path in sorted(run.folder.glob("fold_*/metrics.json"))]
    weights = read_ensemble(run)[0] or {folder: 1 / len(finished) for folder in finished}
    if not weights:
        raise UserError(f"{run.folder} has no finished fold yet: run scripts/train.py")
    models = {folder / "model.keras": weight for folder, weight in weights.items()}
    for path in models:
        if not path.is_file():
            raise UserError(f"{path} is missing: run scripts/train.py, then scripts/ensemble.py, again")
    return models


def format_blend(run: Run, blended: list[tuple[Ensemble, float]]) -> str:
    """Returns what `blend` averaged as lines for a terminal."""
    lines = []
    for ensemble, weight in blended:
        folder, names = ensemble.run.folder, ", ".join(member.name for member in ensemble.others)
        lines.append(f"{folder}: {len(ensemble.members)} members, weight {weight:.4f}")
        lines += [f"{folder}: not finished and not included: {names}"] if names else []
    rows = len(blended[0][0].dataset.ids)
    return "\n".join([*lines, f"{run.submission}: {rows} rows" if rows else "no test pictures, so no submission.csv"])
