"""Several runs side by side as one page, report/index.html of the comparison's directory."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import UserError, atomic
from digit_recognizer.results.charts import Axis, Chart
from digit_recognizer.results.compare import Comparison, compare_runs
from digit_recognizer.results.gallery import Item, compared_items
from digit_recognizer.results.out_of_fold import covered_rows, wrong_rows
from digit_recognizer.results.page_charts import learning_curve
from digit_recognizer.results.templating import render
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.member import Member

_SHOWN = 100  # rows, at most, that one run has right and the other wrong
_PAIRS = 10  # of which such rows are shown
_SECTIONS = [("runs", "Runs"), ("pairs", "Pairs"), ("curves", "Learning curves"), ("rows", "Rows")]


def write_comparison(
    home: Run, runs: Sequence[Run], dataset: Dataset, refresh: int | None = None
) -> Comparison:
    """Compares runs, and writes index.html, runs.csv and pairs.csv into the folder report/ of `home`.

    As long as a run is not finished, the page reads itself again after `refresh` seconds, never for None.

    Raises UserError as `compare_runs` does, and where `home` holds a run, whose report this would replace.
    """
    if home.recipe_json.exists():
        raise UserError(f"{home.folder} holds a run: give the comparison an --output of its own")
    comparison = compare_runs(runs, dataset)
    page = render(
        "comparison.html.j2",
        sections=_SECTIONS,
        comparison=comparison,
        runs=comparison.runs.reset_index().to_dict("records"),
        pairs=_pair_lines(comparison.pairs),
        curves=_curves(comparison),
        rows=_rows(comparison, dataset),
        shown=_SHOWN,
        refresh=None if comparison.is_finished else refresh,
    )
    home.report.mkdir(parents=True, exist_ok=True)
    with atomic(home.report / "runs.csv") as file:
        comparison.runs.to_csv(file)
    with atomic(home.report / "pairs.csv") as file:
        comparison.pairs.to_csv(file, index=False)
    with atomic(home.report / "index.html") as file:
        file.write_text(page, encoding="utf-8")
    return comparison


def _pair_lines(pairs: pd.DataFrame) -> list[dict[str, Any]]:
    """The table of pairs, with the places of each interval in a drawing 200 wide around 100 for no difference."""
    known = pairs[pairs["rows"] > 0]
    most = float(known[["low", "high"]].abs().max().max()) if len(known) else 0
    axis = Axis(-most or -1, most or 1, 5, 195)
    return [
        line | {"places": {name: axis(line[name]) for name in ("low", "difference", "high")}}
        for line in pairs.to_dict("records")
    ]


def _mean_history(members: list[Member]) -> pd.DataFrame:
    """The mean of the members' histories, a line for each epoch that each finished member has."""
    histories = [member.history() for member in members if member.is_finished]
    table = pd.concat(histories).groupby("epoch").agg(["mean", "size"])
    whole = table[("loss", "size")] == len(histories)
    return table.loc[whole].xs("mean", axis=1, level=1).reset_index()


def _curves(comparison: Comparison) -> list[Chart]:
    """The mean learning curves of the runs' finished members, over each other."""
    names, members = comparison.names, comparison.members
    histories = {name: _mean_history(own) for name, own in zip(names, members, strict=True)}
    best = max(history["val_accuracy"].max() for history in histories.values())
    return [
        learning_curve(
            quantity,
            f"Mean {quantity} in training and validation over the epochs, of {len(histories)} runs.",
            histories,
            max(0.0, 1 - 10 * (1 - best)),  # the first epochs would flatten all that follows
            {},
        )
        for quantity in ("loss", "accuracy")
    ]


def _rows(comparison: Comparison, dataset: Dataset) -> list[tuple[str, int, list[Item]]]:
    """For each pair and order: what the rows are, how many there are, and pictures of those."""
    labels, oof = dataset.train_labels, dict(zip(comparison.names, comparison.probabilities, strict=True))
    found = []
    for pair in comparison.pairs.head(_PAIRS).itertuples():
        for wrong, right in ((pair.first, pair.second), (pair.second, pair.first)):
            is_right = covered_rows(oof[right]) & ~wrong_rows(oof[right], labels)
            rows = np.flatnonzero(is_right & wrong_rows(oof[wrong], labels))
            rows = rows[np.argsort(-oof[wrong][rows].max(axis=1), kind="stable")]
            items = compared_items(
                dataset.train_images, labels, rows[:_SHOWN].tolist(), (wrong, right), (oof[wrong], oof[right])
            )
            found.append((f"{wrong} wrong, {right} right", len(rows), items))
    return found
