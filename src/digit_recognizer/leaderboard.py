"""Several recipes' runs on the same folds, side by side."""

import pandas as pd

from digit_recognizer import ensemble
from digit_recognizer.digits import Dataset
from digit_recognizer.folds import Fold
from digit_recognizer.run import Run, atomic, read_json
from digit_recognizer.scores import scores

_COLUMNS = ("accuracy", "log_loss", "errors", "rows", "parameters", "folds", "seconds")


def write(home: Run, runs: list[Run], folds: list[Fold], dataset: Dataset) -> pd.DataFrame:
    """Writes leaderboard.csv of `home`, and returns it: a line a run, the most accurate first.

    Accuracy, log loss, errors and rows are out-of-fold; parameters are those of one network, folds the
    finished ones of `folds` and seconds the training of all of them. A run without any is left out.
    """
    begun = [run for run in runs if any(run.is_finished(fold.name) for fold in folds)]
    lines = {run.folder.name: _line(run, folds, dataset) for run in begun}
    table = pd.DataFrame.from_dict(lines, orient="index", columns=_COLUMNS)
    table = table.sort_values(["accuracy", "log_loss"], ascending=[False, True]).rename_axis("recipe")
    with atomic(home.leaderboard) as file:
        table.to_csv(file)
    return table


def _line(run: Run, folds: list[Fold], dataset: Dataset) -> dict[str, float]:
    prediction = ensemble.predict(run, folds, dataset)
    metrics = [read_json(member / "metrics.json") for member in prediction.members]
    covered = ~pd.isna(prediction.oof).any(axis=1)
    return scores(dataset.train.labels[covered], prediction.oof[covered]) | {
        "parameters": metrics[0]["parameters"],
        "folds": len(metrics),
        "seconds": sum(each["seconds"] for each in metrics),
    }


def text(table: pd.DataFrame) -> str:
    """The leaderboard as lines for a terminal."""
    form = {"accuracy": "{:.5f}", "log_loss": "{:.5f}", "parameters": "{:,}", "seconds": "{:.0f}"}
    return table.to_string(formatters={name: form[name].format for name in form})
