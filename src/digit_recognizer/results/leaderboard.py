"""Several recipes' runs on the same folds, side by side."""

import pandas as pd

from digit_recognizer.data import folds
from digit_recognizer.data.digits import Dataset
from digit_recognizer.data.scores import scores
from digit_recognizer.files import atomic
from digit_recognizer.results.out_of_fold import covered_rows, out_of_fold
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.plan import Plan, open_plan

_COLUMNS = ("accuracy", "log_loss", "errors", "rows", "parameters", "folds", "seconds")


def write(home: Run, dataset: Dataset) -> pd.DataFrame:
    """Writes leaderboard.csv of the folder `home`, and returns it: a line for each run, the most accurate first.

    The runs are all below `home` that have a finished member and the folds of its folds.csv; others are told.
    Accuracy, log loss, errors and rows are out of fold; parameters count one network, folds is the number of
    finished members and seconds the training of all of them. Raises UserError where a run is damaged or of other
    data.
    """
    split, lines = folds.fingerprint(folds.from_csv(home.folds_csv, dataset.train_labels)), {}
    for run in home.child_runs():
        if run.require_settings().get("split") == split:
            lines[run.folder.name] = _line(open_plan(run, dataset), dataset)
        else:
            print(f"{run.folder} has other folds than {home.folds_csv}: it is not compared")
    table = pd.DataFrame.from_dict(lines, orient="index", columns=_COLUMNS)
    table = table.sort_values(["accuracy", "log_loss"], ascending=[False, True]).rename_axis("recipe")
    with home.lock(), atomic(home.leaderboard) as file:
        table.to_csv(file)
    return table


def _line(plan: Plan, dataset: Dataset) -> dict[str, float]:
    members = [member for member in plan.members if member.is_finished]
    oof = out_of_fold(members, len(dataset.train_labels))
    covered, metrics = covered_rows(oof), [member.metrics() for member in members]
    return scores(dataset.train_labels[covered], oof[covered]) | {
        "parameters": metrics[0].get("parameters"),
        "folds": len(metrics),
        "seconds": sum(each["seconds"] for each in metrics),
    }


def format_leaderboard(table: pd.DataFrame) -> str:
    """Returns the leaderboard as lines for a terminal; one without a run is a line."""
    if table.empty:
        return "no fold is finished yet"
    form = {"accuracy": "{:.5f}", "log_loss": "{:.5f}", "parameters": "{:,}", "seconds": "{:.0f}"}
    return table.to_string(formatters={name: form[name].format for name in form})
