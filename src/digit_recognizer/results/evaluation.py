"""All that a run predicts, read once, and the numbers that its report tells."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix

from digit_recognizer.data.digits import CLASSES, Dataset
from digit_recognizer.data.scores import scores
from digit_recognizer.files import UserError, read_json
from digit_recognizer.results import analysis, epoch_choice
from digit_recognizer.results.ensemble import member_path, read_ensemble, read_members
from digit_recognizer.results.out_of_fold import covered_rows, load_oof, out_of_fold, wrong_rows
from digit_recognizer.runs.directory import Run, is_blend
from digit_recognizer.runs.member import METRICS, Member

_WORST = 10  # confusions
_LEAST_SURE = 48  # test rows


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Evaluation:
    """What a run predicts, and its report."""

    run: Run
    dataset: Dataset
    settings: dict[str, Any]  # contents of recipe.json
    members: list[Member]  # finished, and part of the ensemble
    unfinished: list[Member]
    left_out: list[Member]  # finished, but after `ensemble.py` ran
    histories: dict[str, pd.DataFrame]  # of every member that has an epoch
    oof: np.ndarray  # float32 (training rows, 10), NaN where no member predicted the row
    votes: np.ndarray  # int8 (members, training rows), out of fold, -1 where a member did not predict the row
    test: np.ndarray | None  # float32 (test rows, 10), None where no member is finished
    test_votes: np.ndarray  # int8 (members, test rows)
    report: dict[str, Any] = field(default_factory=dict)  # contents of cv_report.json

    @property
    def is_finished(self) -> bool:
        """Whether no member is left to train."""
        return not self.unfinished

    @property
    def wrong(self) -> np.ndarray:
        """The rows that are wrong out of fold, int (n,), the most probable predictions first."""
        rows = np.flatnonzero(wrong_rows(self.oof, self.dataset.train_labels))
        return rows[np.argsort(-self.oof[rows].max(axis=1), kind="stable")]


def evaluate(run: Run, dataset: Dataset, *, unfinished: bool = False) -> Evaluation:
    """Reads what `ensemble.py` left in a run or a blend, and computes its report.

    With `unfinished`, the finished members count with equal weights, as if they were all; there may be none.
    Raises UserError where there is no ensemble yet, or a member of it is gone; where a file is damaged, or the data
    is another.
    """
    if not unfinished and not run.ensemble_json.exists():
        raise UserError(f"{run.folder} has no ensemble yet: run scripts/ensemble.py first")
    members, rows = read_members(run, dataset), len(dataset.train_labels)
    weight_of = {} if unfinished else read_ensemble(run).weights
    part = [each for each in members if each.is_finished and (unfinished or each.folder.resolve() in weight_of)]
    for folder in weight_of:
        if not (folder / "metrics.json").exists():
            raise UserError(
                f"{run.folder}: {folder.name} of the ensemble is not finished: run scripts/ensemble.py again"
            )
    weights = [1.0 if unfinished else weight_of[each.folder.resolve()] for each in part]
    oof = out_of_fold(part, rows) if unfinished else load_oof(run, rows)
    tests = [each.test_probabilities(len(dataset.test_images)) for each in part]
    votes = np.full((len(part), rows), -1, np.int8)
    for number, member in enumerate(part):
        votes[number, member.validation_rows] = member.validation_probabilities().argmax(axis=1)
    histories = {member_path(run, each): each.history() for each in members}
    evaluation = Evaluation(
        run,
        dataset,
        run.require_settings(),
        part,
        [each for each in members if not each.is_finished],
        [each for each in members if each.is_finished and each not in part],
        {name: history for name, history in histories.items() if len(history)},
        oof,
        votes,
        np.average(tests, axis=0, weights=weights).astype(np.float32) if tests else None,
        np.array([each.argmax(axis=1) for each in tests], np.int8),
    )
    evaluation.report.update(_report(evaluation, dataset, tests, weights))
    return evaluation


def _report(
    evaluation: Evaluation, dataset: Dataset, tests: list[np.ndarray], weights: list[float]
) -> dict[str, Any]:
    """The contents of cv_report.json; cv_report.schema.json describes them."""
    run = evaluation.run
    missing, finished_since = _absent(evaluation)
    report = {
        "name": str(evaluation.settings.get("name", "")),
        "finished": not missing and not finished_since,
        "missing": missing,
        "finished_since": finished_since,
        "submissions": _submissions(run),
        "test_rows": len(dataset.test_images),
        "test_rows_also_in_train_csv": len(dataset.overlap),
        "sample": dataset.is_sample,
    }
    if evaluation.members:
        report |= _folds(evaluation) | _out_of_fold(evaluation, weights)
        report |= _on_test_rows(evaluation, tests, weights)
    return report


def _absent(evaluation: Evaluation) -> tuple[list[str], list[str]]:
    """The names of the members that are not in this: the ones not finished, and the ones finished since."""
    run = evaluation.run
    missing = [member_path(run, each) for each in evaluation.unfinished]
    finished_since = [member_path(run, each) for each in evaluation.left_out]
    if is_blend(evaluation.settings):  # its members are the ones that it was made of
        for name in read_ensemble(run).missing:
            finished = (run.folder / name / "metrics.json").exists()
            (finished_since if finished else missing).append(name)
    return missing, finished_since


def _folds(evaluation: Evaluation) -> dict[str, Any]:
    """A line for each member, their mean and their deviation, and the seconds of all."""
    metrics = {member_path(evaluation.run, member): member.metrics() for member in evaluation.members}
    folds = [
        {"member": name}
        | {column: values[column] for column in METRICS}
        | {"device": str(values.get("device") or evaluation.settings.get("device", ""))}
        for name, values in metrics.items()
    ]
    table = pd.DataFrame(folds)[list(METRICS)].astype(float)
    deviation = table.std()  # of a sample; one fold has none
    return {
        "folds": folds,
        "mean": table.mean().to_dict(),
        "standard_deviation": {name: deviation[name] if len(table) > 1 else None for name in METRICS},
        "seconds": float(table["seconds"].sum()),
        "epoch_choice": epoch_choice.count(folds, evaluation.histories),
    }


def _out_of_fold(evaluation: Evaluation, weights: list[float]) -> dict[str, Any]:
    covered = covered_rows(evaluation.oof)
    labels, probabilities = evaluation.dataset.train_labels[covered], evaluation.oof[covered]
    matrix = confusion_matrix(labels, probabilities.argmax(axis=1), labels=range(CLASSES))
    overall = scores(labels, probabilities)
    errors, rows, tests = overall["errors"], overall["rows"], len(evaluation.dataset.ids)
    quarter = max(1, round(tests / 4))  # as much as Kaggle's public score was of for years
    expected = [
        {"rows": each} | _interval(analysis.expected_accuracy(errors, rows, each))
        for each in (tests, quarter)
    ]
    mislabelled = analysis.likely_mislabelled(evaluation.dataset.train_labels, evaluation.oof, evaluation.votes)
    return {
        "overall": overall | {"rows_of_train_csv": len(covered)},
        "interval": _interval(analysis.wilson_interval(rows - errors, rows)),
        "expected_test_accuracy": expected,
        "confusion_matrix": matrix.tolist(),
        "worst_confusions": _worst_confusions(matrix),
        "per_digit": analysis.per_digit(matrix),
        "calibration": analysis.calibration(labels, probabilities),
        "likely_mislabelled": _rows(evaluation, mislabelled),
        "gain": _gain(evaluation, weights),
    }


def _interval(ends: tuple[float, float]) -> dict[str, float]:
    return dict(zip(("low", "high"), ends, strict=True))


def _gain(evaluation: Evaluation, weights: list[float]) -> list[dict[str, Any]]:
    """What the ensemble gains as splits of the rows are added, one for each repeat of each run."""
    splits: dict[tuple[str, int], list[int]] = {}
    for number, member in enumerate(evaluation.members):
        splits.setdefault((str(member.folder.parent), member.repeat), []).append(number)
    rows = len(evaluation.dataset.train_labels)
    means = [out_of_fold([evaluation.members[i] for i in each], rows) for each in splits.values()]
    shared = np.all([covered_rows(each) for each in means], axis=0)
    if not shared.any():
        return []
    totals = [sum(weights[i] for i in each) for each in splits.values()]
    return analysis.out_of_fold_gain(
        evaluation.dataset.train_labels[shared], [each[shared] for each in means], totals
    )


def _rows(evaluation: Evaluation, rows: np.ndarray) -> list[dict[str, Any]]:
    """Training rows with their label, what the ensemble says, and how sure it is."""
    return [
        {
            "row": int(row),
            "label": int(evaluation.dataset.train_labels[row]),
            "predicted": int(evaluation.oof[row].argmax()),
            "probability": float(evaluation.oof[row].max()),
        }
        for row in rows
    ]


def _worst_confusions(matrix: np.ndarray) -> list[dict[str, int]]:
    """The most frequent mistakes, at most ten, of a confusion matrix int (10, 10)."""
    wrong = matrix - np.diag(np.diag(matrix))
    order = np.argsort(-wrong, axis=None, kind="stable")[:_WORST]
    pairs = zip(*np.unravel_index(order, wrong.shape), strict=True)
    return [
        {"label": int(label), "predicted": int(predicted), "rows": int(wrong[label, predicted])}
        for label, predicted in pairs
        if wrong[label, predicted]
    ]


def _on_test_rows(evaluation: Evaluation, tests: list[np.ndarray], weights: list[float]) -> dict[str, Any]:
    test, dataset = evaluation.test, evaluation.dataset
    predicted, sure = test.argmax(axis=1), test.max(axis=1)
    least = np.argsort(sure, kind="stable")[:_LEAST_SURE]
    return {
        # what has no labels, as the competition's test rows, has no score
        "test": None if dataset.test_labels is None else scores(dataset.test_labels, test),
        "test_gain": analysis.test_gain(tests, weights, dataset.test_labels),
        "disagreement": analysis.disagreement(evaluation.test_votes, predicted),
        "least_sure": [
            {
                "row": int(row),
                "id": str(dataset.ids[row]),
                "predicted": int(predicted[row]),
                "probability": float(sure[row]),
                "votes": int((evaluation.test_votes[:, row] == predicted[row]).sum()),
            }
            for row in least
        ],
        "labels": analysis.label_drift(dataset.train_labels, predicted),
    }


def _submissions(run: Run) -> list[dict[str, Any]]:
    """What was sent, when and with what score, of submissions.json, and whether it is submission.csv as it is now."""
    records = read_json(run.submissions_json, list) if run.submissions_json.exists() else []
    now = hashlib.sha256(run.submission.read_bytes()).hexdigest() if run.submission.exists() else ""
    names = ("time", "message", "status", "public_score")
    return [
        {name: each.get(name) for name in names} | {"current": each.get("sha256") == now}
        for each in records
        if isinstance(each, dict)
    ]
