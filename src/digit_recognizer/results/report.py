"""A run's report: cv_report.json, cv_report.csv, a table for the terminal, pictures, and the page, also in training.

cv_report.md describes the entries of cv_report.json.
"""

import base64
import html
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from digit_recognizer.data import paths
from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import ROOT, atomic, reading, write_json
from digit_recognizer.results.charts import write_figures
from digit_recognizer.results.compare import format_comparison
from digit_recognizer.results.ensemble import average_members, open_ensemble
from digit_recognizer.results.evaluation import evaluate
from digit_recognizer.results.page import write_comparison, write_page
from digit_recognizer.runs.directory import Run, is_blend
from digit_recognizer.runs.member import METRICS

SECONDS = 10  # between two looks of `watch` at the run, and between two readings of the page by a browser

# What a page shows, as patterns. A run has started if it has a file of the last one.
_OF_COMPARISON = ("recipe.json", "ensemble.json", "fold_*/metrics.json")
_OF_RUN = (*_OF_COMPARISON, "submissions.json", "fold_*/history.csv", "folds.csv")

_FORMATTERS = {name: lambda value: f"{value:,.1f}".removesuffix(".0") for name in METRICS}  # of the table, for pandas
_FORMATTERS |= dict.fromkeys(("accuracy", "log_loss"), "{:.5f}".format)


def write_report(run: Run, dataset: Dataset) -> dict[str, Any]:
    """Writes the report of an ensemble and returns cv_report.json; raises UserError if a file is missing or wrong."""
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
    overall, interval, expected = report["overall"], report["interval"], report["expected_test_accuracy"]
    test_rows = report["test_rows"]
    worst = [f"{pair['label']} as {pair['predicted']} ({pair['rows']})" for pair in report["worst_confusions"]]
    confident = "likely mislabelled training rows" if report["likely_mislabelled"] else "confident errors"
    lines = [
        f"{_table(report).to_string(formatters=_FORMATTERS, na_rep='')}\n",
        f"out-of-fold accuracy {overall['accuracy']:.5f}: {overall['errors']} of {overall['rows']} rows wrong "
        f"({overall['rows_of_train_csv']} training rows)",
        f"95 % interval {interval['low']:.5f} to {interval['high']:.5f}"
        + (f"; expected on {test_rows} test rows: {expected['low']:.5f} to {expected['high']:.5f}" if expected else ""),
        f"most frequent mistakes: {', '.join(worst) or 'none'}",
        f"{confident}: {len(report['confident_errors'])}",
        f"{report['test_rows_also_in_train_csv']} of {test_rows} test rows are training rows too"
        if test_rows
        else "there are no test rows, so no submission.csv",
    ]
    if test := report["test"]:
        wrong = f"{test['errors']} of {test['rows']} rows wrong"
        lines.append(f"test accuracy {test['accuracy']:.5f}, log loss {test['log_loss']:.5f}: {wrong}")
    if report["missing"]:
        lines.append(f"not included: {', '.join(report['missing'])}: run scripts/train.py, then scripts/ensemble.py")
    return "\n".join(lines + report["warnings"])


def next_steps(locations: paths.Locations, kind: str, report: dict[str, Any]) -> str:
    """Returns three lines after a report on data of this `kind`: the page, the score, and how to submit."""
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


def watch(home: Run, runs: Sequence[Run], dataset: Dataset, seconds: float = SECONDS) -> None:
    """Writes the page of a run, `home`, after each epoch, or that of a comparison after each finished member.

    Ends if all members are finished. The page of a run shows the mean of the finished members and the epochs of the
    others, and the run need not have started; a comparison waits for the first finished member of each run. Nothing
    else in a run directory is written, so that the training can continue.

    Raises UserError if a run is of other data, or if its folder only holds other runs, and as `write_comparison` does.
    """
    refresh = max(1, round(seconds))
    for settings in _changes(runs or [home], _OF_COMPARISON if runs else _OF_RUN, seconds):
        if runs:
            comparison = write_comparison(home, runs, dataset, refresh)
            text = f"{format_comparison(comparison)}\n"
            unfinished = sum(len(ensemble.others) for ensemble in comparison.ensembles.values())
        else:
            blended = is_blend(settings)
            ensemble = open_ensemble(home, dataset) if blended else average_members(home, dataset, may_be_empty=True)
            finished, unfinished = len(ensemble.members), len(ensemble.others)
            write_page(ensemble, evaluate(ensemble), refresh if unfinished else None)
            epochs = sum(len(history) for history in ensemble.histories().values())
            text = f"{finished} of {finished + unfinished} members finished, {epochs} epochs in all: "
        print(f"{text}{home.report / 'index.html'}", flush=True)
        if not unfinished:
            return


def _changes(runs: Sequence[Run], patterns: Sequence[str], seconds: float) -> Iterator[dict]:
    """Yields the last run's recipe.json once all runs have started, and then whenever a file has changed."""
    known: dict[Path, int] | None = None
    while True:
        state, settings, has_started = {}, {}, True
        for run in runs:
            settings = (run.require_settings() if run.child_runs() else run.settings()) or {}
            start = "ensemble.json" if is_blend(settings) else patterns[-1]
            has_started &= bool(settings) and any(run.folder.glob(start))
            for path in [path for pattern in patterns for path in run.folder.glob(pattern)]:
                with suppress(FileNotFoundError):  # removed since, as --overwrite does
                    state[path] = path.stat().st_mtime_ns
        if has_started and state != known:
            known = state
            yield settings
        elif not has_started and known is None:
            print(f"waiting for {', '.join(str(run.folder) for run in runs)}", flush=True)
            known = {}
        time.sleep(seconds)


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
