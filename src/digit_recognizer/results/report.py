"""A run's report: cv_report.json, cv_report.csv, a table for the terminal, pictures, and the page.

cv_report.md describes the entries of cv_report.json.
"""

import base64
import html
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from digit_recognizer.data import paths
from digit_recognizer.data.digits import Dataset
from digit_recognizer.data.paths import Locations
from digit_recognizer.files import ROOT, atomic, reading, write_json
from digit_recognizer.results.charts import write_figures
from digit_recognizer.results.ensemble import open_ensemble
from digit_recognizer.results.evaluation import evaluate
from digit_recognizer.results.page import write_page
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.member import METRICS

# How pandas shows the table.
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
    test_rows = report["test_rows"]
    worst = [f"{pair['label']} as {pair['predicted']} ({pair['rows']})" for pair in report["worst_confusions"]]
    confident = "likely mislabelled training rows" if report["likely_mislabelled"] else "confident errors"
    lines = [
        f"out-of-fold accuracy {overall['accuracy']:.5f}: {overall['errors']} of {overall['rows']} rows wrong "
        f"({overall['rows_of_train_csv']} training rows)",
        f"95 % interval {interval['low']:.5f} to {interval['high']:.5f}"
        + (f"; expected on {test_rows} test rows: {expected['low']:.5f} to {expected['high']:.5f}" if expected else ""),
        f"most frequent mistakes: {', '.join(worst) or 'none'}",
        f"{confident}: {len(report['confident_errors'])}; "
        f"expected calibration error {report['calibration']['ece']:.5f}",
        f"{report['test_rows_also_in_train_csv']} of {test_rows} test rows are training rows too"
        if test_rows
        else "there are no test rows, so no submission.csv",
    ]
    if test := report["test"]:
        lines.append(
            f"test accuracy {test['accuracy']:.5f}, log loss {test['log_loss']:.5f}: "
            f"{test['errors']} of {test['rows']} rows wrong"
        )
    if report["missing"]:
        lines.append(f"not included: {', '.join(report['missing'])}: run scripts/train.py, then scripts/ensemble.py")
    return "\n".join(lines + report["warnings"])


def next_steps(locations: Locations, kind: str, report: dict[str, Any]) -> str:
    """Returns what to look at after a report, in three lines: the page, the score, and how to submit.

    `kind` is that of the data set, `report` the contents of cv_report.json.
    """
    page, expected = locations.output / "report/index.html", report["expected_test_accuracy"]
    score = f"{report['overall']['accuracy']:.5f} out of fold"
    if expected:
        score += f", {expected['low']:.4f} to {expected['high']:.4f} to expect on the test rows"
    if kind != "competition":
        submit = "not possible, the data is not the competition's"
    elif paths.on_kaggle():
        submit = "the button Submit to Competition beside this notebook's output"
    else:
        data = [] if locations.input == paths.input_folder(None) else ["--input", str(locations.input)]
        files = [sys.executable, str(ROOT / "scripts/submit.py")]
        files = [min(path, os.path.relpath(path), key=len) for path in files]
        submit = shlex.join([*files, *data, "--output", str(locations.output)])
    return f"page: {page if paths.on_kaggle() else page.resolve().as_uri()}\nscore: {score}\nsubmit: {submit}"


def show(folder: Path | str) -> None:
    """Displays the page of the run in `folder` inside a notebook, and its pictures if a frontend allows no frames.

    Raises UserError if `report.py` has not run yet.
    """
    from IPython.display import HTML, display

    run, pictures = Run(Path(folder)), ""
    with reading(run.report / "index.html", f"run scripts/report.py --output {run.folder}"):
        page = (run.report / "index.html").read_text(encoding="utf-8")
    for path in (run.report / name for name in ("curves.png", "confusion_matrix.png", "errors.png")):
        if path.is_file():
            source = f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
            pictures += f'<img src="{source}" alt="{path.stem}" width="900">'
    style = "width: 100%; height: 800px; border: 0"
    # the page keeps its own policy, and the sandbox keeps it from the notebook
    frame = f'<iframe srcdoc="{html.escape(page)}" sandbox="allow-scripts" style="{style}"></iframe>'
    display(HTML(f"{frame}<details><summary>No page above? Its pictures</summary>{pictures}</details>"))
