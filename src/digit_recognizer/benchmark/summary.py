"""Shows measurements: a line each, a table, and a chart of what a user waits for."""

import matplotlib.figure
import pandas as pd

from digit_recognizer.benchmark.timing import Row

CHARTED = ("a", "b", "f", "e")  # parts that a user waits for


def cells(row: Row) -> dict[str, str]:
    """Returns a row's cells of the table, by column."""
    found = {name: row[name] for name in ("what", "way", "unit")}
    found["what"] += _shortfall(row)
    for name in ("median", "fastest"):
        if name in row:
            found[name] = format(row[name], ".0f" if row[name] >= 100 else ".3g")
    for key, name, form in (
        ("ratio", "times as fast", ".2f"),
        ("cost", "times the cost", ".2f"),
        ("start_seconds", "start, s", ".1f"),
        ("peak_mib", "peak, MiB", ".0f"),
    ):
        if key in row:
            found[name] = format(row[key], form)
    return found


def _shortfall(row: Row) -> str:
    """Says of a row of part b that its accuracy was not reached, or not by every seed; else it is empty."""
    if row.get("reached", True):
        return ""
    return ", not reached" if "accuracies" in row else ", not reached by every seed"


def _speed(row: Row) -> float:
    """Returns a row's median as work by time, whether its unit is images/s, s or ms."""
    return row["median"] if row["unit"].endswith("/s") else 1 / row["median"]


def table(rows: list[Row]) -> str:
    """Returns the rows as lines for a terminal."""
    frame = pd.DataFrame([cells(row) for row in rows]).fillna("")
    for name in ("what", "way"):  # to the left, as words are
        frame[name] = frame[name].str.ljust(frame[name].str.len().max())
    return frame.to_string(index=False)


def draw(parts: dict[str, list[Row]]) -> matplotlib.figure.Figure | None:
    """Returns a chart: one panel for each of the parts CHARTED, one bar for each way.

    A bar is as long as the way is fast beside the first, usual one, by the medians that the labels have.
    Without any of these parts there is no chart: None.
    """
    panels = []
    for part in CHARTED:
        rows = [row for row in parts.get(part, []) if "ratio" in row]
        if rows:
            panels.append(rows)
    if not panels:
        return None
    heights = [len(rows) + 1.2 for rows in panels]
    figure = matplotlib.figure.Figure(figsize=(9, 0.4 * sum(heights)), layout="constrained")
    grid = figure.subplots(len(panels), 1, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axes, rows in zip(grid[:, 0], panels, strict=True):
        ratios = [_speed(row) / _speed(rows[0]) for row in rows]
        ours = [row["way"].startswith(("ours", "fast")) for row in rows]
        bars = axes.barh(range(len(rows)), ratios, color=["C0" if each else "0.7" for each in ours])
        labels = [
            f"{cells(row)['median']} {row['unit']}, {ratio:.3g}{_shortfall(row)}"
            for row, ratio in zip(rows, ratios, strict=True)
        ]
        axes.bar_label(bars, labels, padding=3, fontsize=8)
        axes.set_yticks(range(len(rows)), [row["way"] for row in rows], fontsize=8)
        axes.invert_yaxis()
        axes.set_xlim(0, 1.35 * max(ratios))
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_title(rows[0]["what"], fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    grid[-1, 0].set_xlabel("times as fast as the first way, by the medians")
    return figure
