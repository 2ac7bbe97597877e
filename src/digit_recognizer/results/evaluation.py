"""The numbers of a run's report, which cv_report.md describes."""

import hashlib
from os.path import relpath
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import betabinom, binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from digit_recognizer.data.digits import CLASSES
from digit_recognizer.files import read_json, reading
from digit_recognizer.results.ensemble import Ensemble, read_ensemble
from digit_recognizer.runs.directory import Run, is_blend
from digit_recognizer.runs.member import METRICS, covered_rows, describe_gap, scores

_CONFIDENT = 0.9  # probability
_WORST = 10  # most frequent confusions
_LEAST_SURE = 36  # test rows
_RIGHT_ON_NEARLY_ALL = 0.995  # accuracy from which on confident errors are more likely wrong labels


def evaluate(ensemble: Ensemble) -> dict[str, Any]:
    """Returns the contents of cv_report.json; without a finished member, only its first entries."""
    run, dataset, settings = ensemble.run, ensemble.dataset, ensemble.run.require_settings()
    missing = [relpath(member.folder, run.folder) for member in ensemble.others]
    if is_blend(settings):
        missing += read_ensemble(run)[1]
    report: dict[str, Any] = {
        "name": str(settings.get("name", "")),
        "finished": not missing,
        "missing": missing,
        "submissions": _submissions(run),
        "test_rows": len(dataset.ids),
        "test_rows_also_in_train_csv": len(dataset.overlap),
        "sample": dataset.is_sample,
    }
    if ensemble.members:
        report |= _about_members(ensemble) | _about_training_rows(ensemble) | _about_test_rows(ensemble)
        gap = describe_gap(report["training_accuracy"] or 0, report["overall"]["accuracy"])
        report["warnings"] = [f"{gap[0].upper()}{gap[1:]}."] if gap else []
        runs = {member.folder.parent for member in ensemble.members}
        if any(Run(folder).require_settings().get("kept_epoch") == "best" for folder in runs):
            flatters = (
                "The rows that score the members also chose the epochs that predict (kept_epoch=best), which flatters."
            )
            report["warnings"].append(flatters)
    return report


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


def _about_members(ensemble: Ensemble) -> dict[str, Any]:
    folds, device_of_run = [], ensemble.run.require_settings().get("device", "")
    for member in ensemble.members:
        metrics = member.metrics()
        line = {"member": relpath(member.folder, ensemble.run.folder)} | {name: metrics[name] for name in METRICS}
        folds.append(line | {"device": str(metrics.get("device") or device_of_run)})
    table = pd.DataFrame(folds)[list(METRICS)].astype(float)
    trained = pd.concat([member.history()["accuracy"].tail(1) for member in ensemble.members]).mean()
    return {
        "folds": folds,
        "mean": table.mean().to_dict(),
        "standard_deviation": table.std().to_dict() if len(table) > 1 else dict.fromkeys(METRICS),
        "seconds": float(table["seconds"].sum()),
        "training_accuracy": float(trained) if np.isfinite(trained) else None,
    }


def _about_training_rows(ensemble: Ensemble) -> dict[str, Any]:
    covered = covered_rows(ensemble.oof)
    labels, probabilities = ensemble.dataset.train_labels[covered], ensemble.oof[covered]
    predicted, overall = probabilities.argmax(axis=1), scores(labels, probabilities)
    wrong = pd.DataFrame({"label": labels, "predicted": predicted})[labels != predicted]
    confusions = wrong.groupby(["label", "predicted"]).size().sort_values(ascending=False, kind="stable")
    errors, rows, test_rows = overall["errors"], overall["rows"], len(ensemble.dataset.ids)
    digits = {"digit": range(CLASSES), "predicted": np.bincount(predicted, minlength=CLASSES)}
    columns = precision_recall_fscore_support(labels, predicted, labels=range(CLASSES), zero_division=np.nan)
    per_digit = pd.DataFrame(digits | dict(zip(("precision", "recall", "f1", "rows"), columns, strict=True)))
    per_digit = per_digit.astype(object)
    return {
        "overall": overall | {"rows_of_train_csv": len(covered)},
        "interval": accuracy_interval(errors, rows),
        "expected_test_accuracy": expected_accuracy(errors, rows, test_rows) if test_rows else None,
        "confusion_matrix": confusion_matrix(labels, predicted, labels=range(CLASSES)).tolist(),
        "worst_confusions": confusions.head(_WORST).reset_index(name="rows").to_dict("records"),
        "per_digit": per_digit.where(per_digit.notna(), None).to_dict("records"),
        "confident_errors": confident_errors(ensemble),
        "likely_mislabelled": overall["accuracy"] >= _RIGHT_ON_NEARLY_ALL,
    }


def accuracy_interval(errors: int, rows: int) -> dict[str, float]:
    """Returns the 95 % interval (Wilson) of the accuracy with `errors` in `rows`, as low and high."""
    interval = binomtest(rows - errors, rows).proportion_ci(method="wilson")
    return {"low": float(interval.low), "high": float(interval.high)}


def expected_accuracy(errors: int, rows: int, new_rows: int) -> dict[str, float]:
    """Returns the 95 % interval of the accuracy on other rows of the same kind, as low and high.

    It is the beta-binomial predictive distribution for Jeffreys' prior, so it includes the chance in both samples of
    rows. It does not include that an ensemble predicts new rows better than its members do.
    """
    tails = betabinom.ppf([0.975, 0.025], new_rows, errors + 0.5, rows - errors + 0.5)
    low, high = 1 - tails / new_rows
    return {"low": float(low), "high": float(high)}


def confident_errors(ensemble: Ensemble) -> list[dict[str, Any]]:
    """Returns the errors with a probability of at least 0.9 in which all members that predicted the row agree."""
    rows = ensemble.wrong
    probabilities, votes = ensemble.oof[rows], ensemble.votes[:, rows]
    labels, predicted = ensemble.dataset.train_labels[rows], probabilities.argmax(axis=1)
    columns = {"row": rows, "label": labels, "predicted": predicted, "probability": probabilities.max(axis=1)}
    agree, table = ((votes == predicted) | (votes < 0)).all(axis=0), pd.DataFrame(columns)
    return table[agree & (table["probability"] >= _CONFIDENT)].to_dict("records")


def _about_test_rows(ensemble: Ensemble) -> dict[str, Any]:
    test, dataset = ensemble.test, ensemble.dataset
    predicted = test.argmax(axis=1)
    votes = np.sum([probabilities.argmax(axis=1) == predicted for probabilities in ensemble.tests], axis=0)
    columns = {"id": dataset.ids, "predicted": predicted, "probability": test.max(axis=1), "votes": votes}
    table = pd.DataFrame(columns).rename_axis("row").sort_values("probability", kind="stable")
    return {
        "test": None if dataset.test_labels is None else scores(dataset.test_labels, test),
        "least_sure": table.head(_LEAST_SURE).reset_index().to_dict("records"),
    }
