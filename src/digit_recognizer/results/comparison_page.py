"""Several runs side by side as one page, report/index.html of the comparison's directory."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import UserError, atomic
from digit_recognizer.results.charts import Axis, learning_curves
from digit_recognizer.results.compare import Comparison, compare_runs
from digit_recognizer.results.out_of_fold import covered_rows, wrong_rows
from digit_recognizer.results.templating import Item, probabilities_text, render
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.member import Member

_MOST_ROWS = 100  # shown for each pair and order
_MOST_PAIRS = 10  # whose rows are shown


def write_comparison(home: Run, runs: Sequence[Run], dataset: Dataset, refresh: int | None = None) -> Comparison:
    """Compares runs, and writes index.html, runs.csv and pairs.csv into the folder report/ of `home`.

    Until all runs are finished, a browser reads the page again after `refresh` seconds, or never if that is None.

    Raises UserError as `compare_runs` does, and if `home` holds a run, whose report this would replace.
    """
    if home.recipe_json.exists():
        raise UserError(f"{home.folder} holds a run: give the comparison an --output of its own")
    comparison = compare_runs(runs, dataset)
    pairs = comparison.pairs
    most = pairs.loc[pairs["rows"] > 0, ["low", "high"]].abs().to_numpy().max(initial=0) or 1.0
    histories = {name: _mean_history(members) for name, members in comparison.members.items()}
    page = render(
        "comparison.html.j2",
        names=list(comparison.members),
        runs=comparison.runs.reset_index().to_dict("records"),
        pairs=pairs.to_dict("records"),
        position=Axis("difference", -most, most, 5, 195),  # in a drawing of width 200
        curves=learning_curves(histories, {}),
        rows=_rows(comparison, dataset),
        shown=_MOST_ROWS,
        refresh=None if comparison.is_finished else refresh,
    )
    texts = {"runs.csv": comparison.runs.to_csv(), "pairs.csv": pairs.to_csv(index=False)}
    home.report.mkdir(parents=True, exist_ok=True)
    for name, text in (texts | {"index.html": page}).items():
        with atomic(home.report / name, several_writers=True) as file:
            file.write_text(text, encoding="utf-8", newline="")
    return comparison


def _mean_history(members: list[Member]) -> pd.DataFrame:
    """Returns the mean of finished members' histories, over the epochs that all of them have."""
    epochs = pd.concat([member.history() for member in members]).groupby("epoch")
    return epochs.mean()[epochs.size() == len(members)].reset_index()


def _rows(comparison: Comparison, dataset: Dataset) -> list[tuple[str, int, list[Item]]]:
    """Returns, for each pair and order, a title, the number of rows and an item for the most confident of them."""
    labels, oof = dataset.train_labels, comparison.oof
    lists = []
    for pair in comparison.pairs.head(_MOST_PAIRS).itertuples():
        for wrong, right in ((pair.first, pair.second), (pair.second, pair.first)):
            is_right = covered_rows(oof[right]) & ~wrong_rows(oof[right], labels)
            rows = np.flatnonzero(is_right & wrong_rows(oof[wrong], labels))
            rows = rows[np.argsort(-oof[wrong][rows].max(axis=1), kind="stable")]
            items = []
            for row in rows[:_MOST_ROWS].tolist():
                title = f"label {labels[row]}"
                lines = [f"{name}: {probabilities_text(oof[name][row])}" for name in (wrong, right)]
                name = dataset.row_name(row)
                items.append(Item(dataset.train_images[row], f"Training {name}: {title}", title, [*lines, name]))
            lists.append((f"{wrong} wrong, {right} right", len(rows), items))
    return lists
