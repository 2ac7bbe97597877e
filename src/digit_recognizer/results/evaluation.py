"""What a run predicts, and the numbers of its report, which cv_report.md describes."""

import functools
import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from digit_recognizer.data.digits import CLASSES, Dataset
from digit_recognizer.files import UserError, read_json, reading
from digit_recognizer.results import out_of_fold
from digit_recognizer.results.ensemble import member_path, read_ensemble, read_members
from digit_recognizer.results.out_of_fold import covered_rows, wrong_rows
from digit_recognizer.runs.directory import Run, is_blend
from digit_recognizer.runs.member import METRICS, Member, describe_gap, scores

_WORST = 10  # most frequent confusions
_LEAST_SURE = 48  # test rows
_RIGHT_ON_NEARLY_ALL = 0.995  # accuracy from which on confident errors are more likely wrong labels


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Evaluation:
    """What a run predicts."""

    run: Run
    dataset: Dataset
    members: list[Member]  # of the ensemble; all are finished
    weights: list[float]  # of the members
    others: list[Member]  # of the run, but not of the ensemble: not finished, or finished later
    oof: np.ndarray  # float32 (training rows, 10), NaN in rows that no member predicted

    def name(self, member: Member) -> str:
        """Returns the name of a member on page and terminal: fold_03, or ../run/fold_03 in a blend."""
        return member_path(self.run, member)

    def histories(self) -> dict[str, pd.DataFrame]:
        """Returns the history, as it is now, of each member that has an epoch, by name."""
        members = sorted([*self.members, *self.others], key=lambda member: member.folder)
        histories = {self.name(member): member.history() for member in members}
        return {name: history for name, history in histories.items() if len(history)}

    @functools.cached_property
    def votes(self) -> np.ndarray:
        """int8 (members, training rows): the members' classes out of fold, -1 if a member did not predict the row."""
        votes = np.full((len(self.members), len(self.oof)), -1, np.int8)
        for line, member in zip(votes, self.members, strict=True):
            line[member.validation_rows] = member.validation_probabilities().argmax(axis=1)
        return votes

    @functools.cached_property
    def tests(self) -> list[np.ndarray]:
        """The members' test probabilities, each float32 (test rows, 10)."""
        return [member.test_probabilities(len(self.dataset.ids)) for member in self.members]

    @functools.cached_property
    def test(self) -> np.ndarray:
        """float32 (test rows, 10): the probabilities of the ensemble."""
        return np.average(self.tests, axis=0, weights=self.weights).astype(np.float32)

    @functools.cached_property
    def wrong(self) -> np.ndarray:
        """int (n,): the rows that are wrong out of fold, the most confident predictions first."""
        rows = np.flatnonzero(wrong_rows(self.oof, self.dataset.train_labels))
        return rows[np.argsort(-self.oof[rows].max(axis=1), kind="stable")]

    @functools.cached_property
    def report(self) -> dict[str, Any]:
        """The contents of cv_report.json; raises UserError if a file of the run is damaged."""
        report = _about_run(self)
        if self.members:
            report |= _about_members(self) | _about_training_rows(self) | _about_test_rows(self)
            report["warnings"] = _warnings(self, report)
        return report


def evaluate(run: Run, dataset: Dataset, *, unfinished: bool = False) -> Evaluation:
    """Reads what `ensemble.py` made of a run, or of several runs in a blend.

    With `unfinished`, the ensemble is the mean of the members that are finished now; there may be none.
    Raises UserError if there is no ensemble yet, if a member of it is gone, if a file is damaged, or if the run is of
    other data.
    """
    if not unfinished and not run.ensemble_json.exists():
        raise UserError(f"{run.folder} has no ensemble yet: run scripts/ensemble.py first")
    all_members, rows = read_members(run, dataset), len(dataset.train_labels)
    weights = read_ensemble(run).weights
    if unfinished:
        weights = {member.folder.resolve(): 1.0 for member in all_members if member.is_finished}
    for folder in weights:
        if not (folder / "metrics.json").exists():
            raise UserError(
                f"{run.folder}: {folder.name} of the ensemble is not finished: run scripts/ensemble.py again"
            )
    members = [member for member in all_members if member.folder.resolve() in weights]
    others = [member for member in all_members if member not in members]
    oof = out_of_fold.out_of_fold(members, rows) if unfinished else out_of_fold.load_oof(run, rows)
    return Evaluation(run, dataset, members, [weights[member.folder.resolve()] for member in members], others, oof)


def _about_run(evaluation: Evaluation) -> dict[str, Any]:
    run, dataset, settings = evaluation.run, evaluation.dataset, evaluation.run.require_settings()
    missing = [evaluation.name(member) for member in evaluation.others]
    if is_blend(settings):
        missing += read_ensemble(run).missing
    return {
        "name": str(settings.get("name", "")),
        "finished": not missing,
        "missing": missing,
        "submissions": _submissions(run),
        "test_rows": len(dataset.ids),
        "test_rows_also_in_train_csv": len(dataset.overlap),
        "sample": dataset.is_sample,
    }


def _submissions(run: Run) -> list[dict[str, Any]]:
    """Returns what submissions.json says was sent, and whether it is the same as submission.csv is now."""
    path, advice = run.submissions_json, "restore it, or delete it"
    if not path.exists():
        return []
    now = hashlib.sha256(run.submission.read_bytes()).hexdigest() if run.submission.exists() else ""
    names = ("time", "message", "status", "public_score")
    with reading(path, advice):
        records = read_json(path, advice, list)
        return [{name: line.get(name) for name in names} | {"current": line.get("sha256") == now} for line in records]


def _about_members(evaluation: Evaluation) -> dict[str, Any]:
    folds = []
    for member in evaluation.members:
        metrics = member.metrics()
        device = metrics.get("device") or evaluation.run.require_settings().get("device", "")
        numbers = {name: metrics[name] for name in METRICS}
        folds.append({"member": evaluation.name(member)} | numbers | {"device": str(device)})
    table = pd.DataFrame(folds)[list(METRICS)].astype(float)
    trained = pd.concat([member.history()["accuracy"].tail(1) for member in evaluation.members]).mean()
    return {
        "folds": folds,
        "mean": table.mean().to_dict(),
        "standard_deviation": table.std().to_dict() if len(table) > 1 else dict.fromkeys(METRICS),
        "seconds": float(table["seconds"].sum()),
        "training_accuracy": float(trained) if np.isfinite(trained) else None,
    }


def _about_training_rows(evaluation: Evaluation) -> dict[str, Any]:
    all_labels, oof = evaluation.dataset.train_labels, evaluation.oof
    covered = covered_rows(oof)
    labels, probabilities = all_labels[covered], oof[covered]
    predicted = probabilities.argmax(axis=1)
    wrong = pd.DataFrame({"label": labels, "predicted": predicted})[labels != predicted]
    confusions = wrong.groupby(["label", "predicted"]).size().sort_values(ascending=False, kind="stable")
    overall = scores(labels, probabilities)
    errors, rows, test_rows = overall["errors"], overall["rows"], len(evaluation.dataset.ids)
    return {
        "overall": overall | {"rows_of_train_csv": len(covered)},
        "interval": out_of_fold.accuracy_interval(errors, rows),
        "expected_test_accuracy": out_of_fold.expected_accuracy(errors, rows, test_rows) if test_rows else None,
        "confusion_matrix": confusion_matrix(labels, predicted, labels=range(CLASSES)).tolist(),
        "worst_confusions": confusions.head(_WORST).reset_index(name="rows").to_dict("records"),
        "per_digit": _per_digit(labels, predicted),
        "calibration": out_of_fold.calibration(labels, probabilities),
        "confident_errors": out_of_fold.confident_errors(all_labels, oof, evaluation.votes),
        "likely_mislabelled": overall["accuracy"] >= _RIGHT_ON_NEARLY_ALL,
        "gain": out_of_fold.gain(evaluation.members, evaluation.weights, all_labels),
    }


def _per_digit(labels: np.ndarray, predicted: np.ndarray) -> list[dict[str, Any]]:
    digits = range(CLASSES)
    precision, recall, f1, rows = precision_recall_fscore_support(
        labels, predicted, labels=digits, zero_division=np.nan
    )
    counts = {"digit": digits, "rows": rows, "predicted": np.bincount(predicted, minlength=CLASSES)}
    table = pd.DataFrame(counts | {"precision": precision, "recall": recall, "f1": f1}).astype(object)
    return table.where(table.notna(), None).to_dict("records")


def _about_test_rows(evaluation: Evaluation) -> dict[str, Any]:
    test, dataset, members = evaluation.test, evaluation.dataset, len(evaluation.members)
    predicted, confidence = test.argmax(axis=1), test.max(axis=1)
    votes = np.sum([probabilities.argmax(axis=1) == predicted for probabilities in evaluation.tests], axis=0)
    columns = {"id": dataset.ids, "predicted": predicted, "probability": confidence, "votes": votes}
    table = pd.DataFrame(columns).rename_axis("row").sort_values("probability", kind="stable")
    return {
        "test": None if dataset.test_labels is None else scores(dataset.test_labels, test),
        "dissenters": np.bincount(members - votes, minlength=members + 1).tolist(),
        "least_sure": table.head(_LEAST_SURE).reset_index().to_dict("records"),
        "labels": {
            "train": np.bincount(dataset.train_labels, minlength=CLASSES).tolist(),
            "predicted": np.bincount(predicted, minlength=CLASSES).tolist(),
        },
    }


def _warnings(evaluation: Evaluation, report: dict[str, Any]) -> list[str]:
    gap = describe_gap(report["training_accuracy"] or 0, report["overall"]["accuracy"])
    warnings = [f"{gap[0].upper()}{gap[1:]}."] if gap else []
    runs = {member.folder.parent for member in evaluation.members}
    if any(Run(folder).require_settings().get("kept_epoch") == "best" for folder in runs):
        warnings.append(
            "The rows that score the members also chose the epochs that predict (kept_epoch=best), which flatters."
        )
    return warnings
