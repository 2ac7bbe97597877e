"""Charts of a run or a comparison, which the templates draw as inline SVG, and a run's pictures as PNG.

The templates write all text, so that it is escaped. The pages' script shows `Chart.values` under the pointer.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.figure
import numpy as np
import pandas as pd
from matplotlib.ticker import LogLocator, MaxNLocator

from digit_recognizer.data.digits import CLASSES
from digit_recognizer.files import write_figure
from digit_recognizer.results.ensemble import Ensemble

# The size of a chart and of its margins, in the units of its viewBox.
WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 74, 10, 10, 40

# The colours of all lines, on pages and pictures, and GREY among them. Source: Petroff, 'Accessible color sequences for
# data visualization' (2021); people with other colour vision can tell them apart too.
PALETTE = ["#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"]
GREY = 8


@dataclass(frozen=True)
class Axis:
    """Maps values from `low` to `high` to positions from `start` to `end`, on a linear or logarithmic scale."""

    label: str
    low: float
    high: float
    start: float
    end: float
    log: bool = False
    integer: bool = False  # whether ticks are at whole numbers only

    def __call__(self, value: float) -> float:
        """Returns the position of a value, extrapolated beyond the axis; on a log axis, `low` replaces lower values."""
        scale = math.log if self.log else float
        low, high = scale(self.low), scale(self.high)
        share = (scale(max(value, self.low) if self.log else value) - low) / (high - low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Returns the position and the text of each tick."""
        # within two decades, the powers of ten alone would be too few
        subs = (1, 2, 5) if self.high < 150 * self.low else (1,)
        locator = LogLocator(subs=subs) if self.log else MaxNLocator(6, integer=self.integer)
        slack = 1e-9 * (self.high - self.low)
        values = [float(value) for value in locator.tick_values(self.low, self.high)]
        return [(self(value), f"{value:.6g}") for value in values if self.low - slack <= value <= self.high + slack]


@dataclass(frozen=True)
class Series:
    """Points (x, y), connected by a line."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    color: int = 0
    dashed: bool = False
    marked: float = math.nan  # x of the point of the line that is drawn as a dot


@dataclass(frozen=True)
class Chart:
    """What a template draws, in the units of the viewBox."""

    id: str  # of the chart's element, unique in the page
    title: str
    x: Axis
    y: Axis
    series: Sequence[Series]
    legend: Sequence[Series]  # whose names stand below the chart

    def points(self, series: Series) -> list[tuple[float, float, str, str]]:
        """Returns x, y, text of x and text of y of the points whose y is finite."""
        pairs = zip(series.xs, series.ys, strict=True)
        return [(self.x(x), self.y(y), f"{x:g}", f"{y:.5g}") for x, y in pairs if math.isfinite(y)]

    def path(self, series: Series) -> str:
        """Returns the line as data of an SVG path."""
        points = self.points(series)
        return "M" + "L".join(f"{x},{y}" for x, y, *_ in points) if points else ""

    def dots(self, series: Series) -> list[tuple[float, float, str, str]]:
        """Returns the points that are drawn as dots."""
        points = self.points(series)
        return [point for point in points if len(points) == 1 or point[2] == f"{series.marked:g}"]

    @property
    def values(self) -> str:
        """The name and the points of each series, as JSON."""
        values = [{"name": series.name, "points": self.points(series)} for series in self.series]
        return json.dumps(values, separators=(",", ":"))


def mean_history(histories: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Returns the mean of the history.csv of several members, over the epochs that all of them have."""
    epochs = pd.concat(histories).groupby("epoch")
    return epochs.mean()[epochs.size() == len(histories)].reset_index()


def learning_curves(histories: dict[str, pd.DataFrame], kept_epochs: dict[str, int]) -> list[Chart]:
    """Returns charts of loss, accuracy and learning rate over the epochs of each history.csv; none without an epoch.

    The `kept_epochs`, which predict, are marked. More lines than there are colours are grey, and their mean is drawn
    too.
    """
    if not histories:
        return []
    together = pd.concat(list(histories.values()))
    first, last = together["epoch"].min(), together["epoch"].max()
    space = 0.5 if first == last else 0
    epochs_axis = Axis("epoch", first - space, last + space, LEFT, WIDTH - RIGHT, integer=True)
    # the first epochs do not flatten the others
    least = 1 - 6 * (1 - together["val_accuracy"].median())
    axes = {
        "loss": _y_axis("loss", together[["loss", "val_loss"]], log=True),
        "accuracy": _y_axis("accuracy", together[["accuracy", "val_accuracy"]], least),
        "learning_rate": _y_axis("learning rate", together[["learning_rate"]]),
    }
    colors, names = list(range(len(histories))), list(histories)
    if len(histories) > len(PALETTE):
        colors, names = [GREY] * len(histories) + [0], [f"mean of {len(histories)}"]
        histories = histories | {names[0]: mean_history(list(histories.values()))}
    curves = []
    for quantity, axis in axes.items():
        title, series, validation = axis.label.capitalize(), [], f"val_{quantity}"
        for (name, table), color in zip(histories.items(), colors, strict=True):
            epochs, marked = table["epoch"].tolist(), math.nan
            if validation in table:
                series.append(Series(f"{name} training", epochs, table[quantity].tolist(), color, dashed=True))
                marked = kept_epochs.get(name, math.nan)
            column = validation if validation in table else quantity
            series.append(Series(name, epochs, table[column].tolist(), color, marked=marked))
        legend = [line for line in series if line.name in names]
        curves.append(Chart(f"curve-{quantity}", title, epochs_axis, axis, series, legend))
    return curves


def _y_axis(label: str, table: pd.DataFrame, least: float = -math.inf, log: bool = False) -> Axis:
    """Returns a y axis from the lowest positive value of a table, or from `least`, to the highest."""
    values = table.to_numpy().ravel()
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (max(values.min(), least), values.max()) if len(values) else (0.1, 1)
    space = 0.02 * (high - low) or 0.1 * high
    ends = (low / 1.05, high * 1.05) if log else (low - space, high + space)
    return Axis(label, *ends, HEIGHT - BOTTOM, TOP, log)


def write_figures(ensemble: Ensemble, report: dict[str, Any]) -> None:
    """Writes the pictures into report/, which has to exist; `report` is the contents of cv_report.json."""
    matrix, curves = np.array(report["confusion_matrix"]), learning_curves(ensemble.histories(), {})
    figures = {"confusion_matrix.png": draw_confusions(matrix), "errors.png": draw_errors(ensemble)}
    for name, figure in (figures | ({"curves.png": draw_curves(curves)} if curves else {})).items():
        write_figure(ensemble.run.report / name, figure, dpi=150)


def draw_curves(charts: Sequence[Chart]) -> matplotlib.figure.Figure:
    """Returns charts of the page side by side."""
    figure = matplotlib.figure.Figure(figsize=(14, 4.2), layout="constrained")
    for axes, chart in zip(figure.subplots(1, len(charts)), charts, strict=True):
        for line in chart.series:
            style = {"linestyle": "--", "alpha": 0.5} if line.dashed else {"label": line.name.replace("$", r"\$")}
            axes.plot(line.xs, line.ys, color=PALETTE[line.color], marker="." if len(line.xs) == 1 else None, **style)
        note = " (dashed: training)" if any(line.dashed for line in chart.series) else ""
        axes.set(title=chart.title + note, xlabel=chart.x.label, xlim=(chart.x.low, chart.x.high))
        axes.set(yscale="log" if chart.y.log else "linear", ylim=(chart.y.low, chart.y.high))
        axes.grid(alpha=0.3)
        axes.xaxis.get_major_locator().set_params(integer=True)
    if chart.legend:
        axes.legend(fontsize="small", ncols=1 + len(chart.legend) // 6)
    return figure


def draw_confusions(matrix: np.ndarray) -> matplotlib.figure.Figure:
    """Returns a confusion matrix int (10, 10), labels down, predictions across; the shade shows only errors."""
    figure = matplotlib.figure.Figure(figsize=(6.4, 6), layout="constrained")
    axes = figure.subplots()
    wrong = matrix - np.diag(np.diag(matrix))
    axes.imshow(wrong, cmap="Reds", vmax=max(1, wrong.max()) * 1.4)
    for label, predicted in np.argwhere(matrix):
        weight = "bold" if label == predicted else None
        axes.text(predicted, label, matrix[label, predicted], ha="center", va="center", fontsize=9, weight=weight)
    title = f"out-of-fold predictions: {wrong.sum()} of {matrix.sum()} wrong"
    axes.set(xticks=range(CLASSES), yticks=range(CLASSES), xlabel="predicted", ylabel="label", title=title)
    return figure


def draw_errors(ensemble: Ensemble) -> matplotlib.figure.Figure:
    """Returns the out-of-fold errors with the highest probability as pictures."""
    rows = ensemble.wrong[:40]
    figure = matplotlib.figure.Figure(figsize=(8.5, 4.7), layout="constrained")
    empty = {"xticks": [], "yticks": [], "frame_on": False}
    for axes, row in zip(figure.subplots(4, 10, subplot_kw=empty).flat, rows, strict=False):
        axes.imshow(ensemble.dataset.train_images[row], cmap="gray_r")
        label, predicted = ensemble.dataset.train_labels[row], ensemble.oof[row].argmax()
        axes.set_title(f"{label} as {predicted}\n{ensemble.oof[row].max():.3f}", fontsize=7)
    figure.suptitle(f"the {len(rows)} of {len(ensemble.wrong)} errors with the highest probability", fontsize=9)
    return figure
