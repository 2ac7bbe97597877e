"""A run's report: cv_report.json, cv_report.csv, a table for the terminal, pictures, and the page.

cv_report.md describes the entries of cv_report.json.
"""

from pathlib import Path
from typing import Any

import pandas as pd

from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import UserError, atomic, read_json, reading, write_json
from digit_recognizer.results.charts import write_figures
from digit_recognizer.results.ensemble import open_ensemble
from digit_recognizer.results.evaluation import evaluate
from digit_recognizer.results.page import write_page
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.member import METRICS

_FORMATTERS = {name: lambda value: f"{value:,.1f}".removesuffix(".0") for name in METRICS}  # of the table, for pandas
_FORMATTERS |= dict.fromkeys(("accuracy", "log_loss"), "{:.5f}".format)


def write_report(run: Run, dataset: Dataset) -> dict[str, Any]:
    """Writes the report of what `ensemble.py` made in `run`, and returns the contents of cv_report.json.

    Raises UserError if there is no ensemble yet, if a file is damaged, or if the run is of other data.
    """
    run.require_settings()
    with run.lock():
        ensemble = open_ensemble(run, dataset)
        report = evaluate(ensemble)
        write_json(run.cv_report_json, report)
        with atomic(run.cv_report_csv) as file:
            _table(report).to_csv(file)
        write_page(ensemble, report)
        write_figures(ensemble, report)
    return report


def _table(report: dict[str, Any]) -> pd.DataFrame:
    """Returns a line for each fold, then out-of-fold, mean, standard deviation, and the test rows if labelled."""
    lines = {fold["member"]: fold for fold in report["folds"]}
    lines["out-of-fold"] = report["overall"] | {"seconds": report["seconds"]}
    lines |= {"mean": report["mean"], "standard deviation": report["standard_deviation"]}
    if report["test"]:
        lines["test"] = report["test"]
    table = pd.DataFrame.from_dict(lines, orient="index").reindex(columns=METRICS)
    return table.astype(float).rename_axis("fold")


def format_report(report: dict[str, Any]) -> str:
    """Returns the report as lines for a terminal."""
    return f"{_table(report).to_string(formatters=_FORMATTERS, na_rep='')}\n\n{_format_scores(report)}"


def _format_scores(report: dict[str, Any]) -> str:
    overall, interval, expected = report["overall"], report["interval"], report["expected_test_accuracy"]
    worst = [f"{pair['label']} as {pair['predicted']} ({pair['rows']})" for pair in report["worst_confusions"]]
    confident = "likely mislabelled training rows" if report["likely_mislabelled"] else "confident errors"
    lines = [
        f"out-of-fold accuracy {overall['accuracy']:.5f}: {overall['errors']} of {overall['rows']} rows wrong "
        f"({overall['rows_of_train_csv']} training rows)",
        f"95 % interval {interval['low']:.5f} to {interval['high']:.5f}; expected on {report['test_rows']} test rows: "
        f"{expected['low']:.5f} to {expected['high']:.5f}",
        f"most frequent mistakes: {', '.join(worst) or 'none'}",
        f"{confident}: {len(report['confident_errors'])}; "
        f"expected calibration error {report['calibration']['ece']:.5f}",
        f"{report['test_rows_also_in_train_csv']} of {report['test_rows']} test rows are training rows too",
    ]
    if test := report["test"]:
        lines.append(
            f"test accuracy {test['accuracy']:.5f}, log loss {test['log_loss']:.5f}: "
            f"{test['errors']} of {test['rows']} rows wrong"
        )
    if report["missing"]:
        lines.append(f"not included: {', '.join(report['missing'])}: run scripts/train.py, then scripts/ensemble.py")
    return "\n".join(lines + report["warnings"])


def show(folder: Path | str) -> None:
    """Displays the essentials of the report of the run in `folder`, in a notebook: table, scores and pictures.

    Raises UserError if `report.py` has not run yet, or if cv_report.json is damaged.
    """
    from IPython.display import HTML, Image, display

    run = Run(Path(folder))
    if not run.cv_report_json.exists():
        raise UserError(f"{run.folder} has no report yet: run scripts/report.py --output {run.folder}")
    advice = "run scripts/report.py again"
    report = read_json(run.cv_report_json, advice)
    with reading(run.cv_report_json, advice):
        table, scores = _table(report).to_html(formatters=_FORMATTERS, na_rep=""), _format_scores(report)
    display(HTML(table))
    print(scores)
    for name in ("curves.png", "confusion_matrix.png", "errors.png"):
        if (run.report / name).is_file():
            display(Image(str(run.report / name), width=900))
