"""What a run came to: cv_report.json, cv_report.csv, a table for the terminal, pictures, and the page."""

from pathlib import Path
from typing import Any

import pandas as pd

from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import UserError, atomic, read_json, write_json
from digit_recognizer.results import epoch_choice
from digit_recognizer.results.evaluation import evaluate
from digit_recognizer.results.figures import write_figures
from digit_recognizer.results.page import write_page
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.member import METRICS

_PICTURES = ("curves.png", "confusion_matrix.png", "errors.png")  # those that a notebook shows


def write_report(run: Run, dataset: Dataset) -> dict[str, Any]:
    """Writes the report of what `ensemble.write` left in `run`, and returns cv_report.json's contents.

    These are cv_report.json, which cv_report.schema.json describes, cv_report.csv, pictures and the page.
    Raises UserError where there is no ensemble yet, or one of other data.
    """
    run.require_settings()
    with run.lock():
        evaluation = evaluate(run, dataset)
        write_json(run.cv_report_json, evaluation.report)
        with atomic(run.cv_report_csv) as file:
            _table(evaluation.report).to_csv(file)
        run.report.mkdir(exist_ok=True)
        write_figures(evaluation, dataset)
        write_page(evaluation, dataset)
    return evaluation.report


def _table(report: dict[str, Any]) -> pd.DataFrame:
    """A line a fold, then overall (out-of-fold), mean, standard deviation, and the test rows with labels."""
    rows = {fold["member"]: {column: fold[column] for column in METRICS} for fold in report["folds"]}
    overall = {column: report["overall"].get(column) for column in METRICS} | {"seconds": report["seconds"]}
    rows |= {
        "out-of-fold": overall,
        "mean": report["mean"],
        "standard deviation": report["standard_deviation"],
    }
    if report["test"]:
        rows["test"] = report["test"]
    table = pd.DataFrame.from_dict(rows, orient="index", columns=METRICS).astype(float)
    return table.rename_axis("fold")


def _format_table(report: dict[str, Any]) -> pd.DataFrame:
    table = _table(report)
    means = {"mean": report["mean"], "standard deviation": report["standard_deviation"]}
    for column in METRICS:
        form = "{:.5f}" if column in ("accuracy", "log_loss") else "{:.0f}"
        table[column] = table[column].astype(object).map(form.format, na_action="ignore")
        if form == "{:.0f}":  # a mean or a deviation of whole numbers is none itself
            for line, values in means.items():
                table.loc[line, column] = None if values[column] is None else f"{values[column]:.1f}"
    return table.fillna("")


def format_report(report: dict[str, Any]) -> str:
    """Returns the report as lines for a terminal."""
    return f"{_format_table(report).to_string()}\n\n{_format_scores(report)}"


def _format_scores(report: dict[str, Any]) -> str:
    overall, interval, expected = report["overall"], report["interval"], report["expected_test_accuracy"][0]
    worst = [f"{x['label']} as {x['predicted']} ({x['rows']})" for x in report["worst_confusions"]]
    lines = [
        f"out-of-fold accuracy {overall['accuracy']:.5f}: {overall['errors']} of {overall['rows']} rows wrong "
        f"({overall['rows_of_train_csv']} training rows)",
        f"95 % interval {interval['low']:.5f} to {interval['high']:.5f}; expected on {expected['rows']} test rows: "
        f"{expected['low']:.5f} to {expected['high']:.5f}",
        epoch_choice.describe(report["epoch_choice"]),
        f"most frequent mistakes: {', '.join(worst) or 'none'}",
        f"likely mislabelled training rows: {len(report['likely_mislabelled'])}; "
        f"expected calibration error {report['calibration']['ece']:.5f}",
        f"{report['test_rows_also_in_train_csv']} of {report['test_rows']} test rows are training rows too",
    ]
    if report["test"]:
        test = report["test"]
        lines.append(
            f"test accuracy {test['accuracy']:.5f}, log loss {test['log_loss']:.5f}: "
            f"{test['errors']} of {test['rows']} rows wrong"
        )
    if report["missing"]:
        lines.append(f"not finished, and not in this: {', '.join(report['missing'])}")
    if since := report.get("finished_since"):  # earlier versions did not tell it
        lines.append(f"finished since, and not in this: {', '.join(since)}: run scripts/ensemble.py again")
    return "\n".join(lines)


def show(run: Run | Path | str) -> None:
    """Displays the essentials of a run's report in a notebook: its table, and the pictures that it has.

    Raises UserError where `report.py` has not run yet.
    """
    from IPython.display import HTML, Image, display

    run = run if isinstance(run, Run) else Run(Path(run))
    if not run.cv_report_json.exists():
        raise UserError(f"{run.folder} has no report yet: run scripts/report.py --output {run.folder}")
    report = read_json(run.cv_report_json)
    try:
        table, scores = _format_table(report).to_html(escape=True), _format_scores(report)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        raise UserError(f"{run.cv_report_json} is damaged: run scripts/report.py again") from None
    display(HTML(table))
    print(scores)
    for name in _PICTURES:
        if (run.report / name).is_file():
            display(Image(str(run.report / name), width=900))
