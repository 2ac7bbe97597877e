"""The pages' charts, as numbers that the templates draw as inline SVG.

The templates write all text, so that it is escaped. The pages' script shows `Chart.values` under the pointer.
"""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import Locator, LogLocator, MaxNLocator

# The size of a chart and of its margins, in the units of its viewBox.
WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 74, 10, 10, 40

# The colours of all lines, on pages and pictures, and GREY among them. Source: Petroff, 'Accessible color sequences for
# data visualization' (2021); people with other colour vision can tell them apart too.
PALETTE = ["#3f90da", "#ffa90e", "#bd1f01", "#832db6", "#a96b59", "#94a4a2", "#e76300", "#b9ac70", "#717581", "#92dadd"]
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
        """Returns the position of a value; a value beyond the axis has the position of the nearest end."""
        scale = math.log if self.log else float
        ends = scale(self.low), scale(self.high)
        return round(float(np.interp(scale(max(value, self.low)), ends, (self.start, self.end))), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Returns the position and the text of each tick."""
        locator: Locator = MaxNLocator(6, integer=self.integer)
        if self.log:  # within two decades, the powers of ten alone would be too few
            locator = LogLocator(subs=(1, 2, 5) if self.high < 150 * self.low else (1,))
        slack = 1e-9 * (self.high - self.low)
        values = [float(value) for value in locator.tick_values(self.low, self.high)]
        return [(self(value), f"{value:.6g}") for value in values if self.low - slack <= value <= self.high + slack]


@dataclass(frozen=True)
class Series:
    """Points (x, y), connected by a line, or with error bars from `low` to `high` and not connected."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    color: int = 0
    dashed: bool = False
    marked: float = math.nan  # x of the point of the line that is drawn as a dot
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Chart:
    """What a template draws, in the units of the viewBox."""

    id: str  # of the chart's element, unique in the page
    title: str
    description: str  # what the chart shows, for people who cannot see it
    x: Axis
    y: Axis
    series: Sequence[Series]
    legend: Sequence[Series]  # whose names stand below the chart

    def points(self, series: Series) -> list[tuple[float, float, str, str]]:
        """Returns x, y, text of x and text of y of the points whose y is finite."""
        pairs = zip(series.xs, series.ys, strict=True)
        return [(self.x(x), self.y(y), f"{x:g}", f"{y:.5g}") for x, y in pairs if math.isfinite(y)]

    def path(self, series: Series) -> str:
        """Returns the line or the error bars as data of an SVG path."""
        if series.low:
            bars = zip(series.xs, series.low, series.high, strict=True)
            ends = [(self.x(x), self.y(low), self.y(high)) for x, low, high in bars]
            return "".join(f"M{x},{low}V{high}m-4,0h8M{x - 4:.1f},{low}h8" for x, low, high in ends)
        points = self.points(series)
        return "M" + "L".join(f"{x},{y}" for x, y, *_ in points) if points else ""

    def dots(self, series: Series) -> list[tuple[float, float, str, str]]:
        """Returns the points that are drawn as dots."""
        points = self.points(series)
        has_all = bool(series.low) or len(points) == 1
        return [point for point in points if has_all or point[2] == f"{series.marked:g}"]

    @property
    def values(self) -> str:
        """The name and the points of each series, as JSON."""
        values = [{"name": series.name, "points": self.points(series)} for series in self.series]
        return json.dumps(values, separators=(",", ":"))


def mean_history(histories: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """Returns the mean of the history.csv of several members, over the epochs that all of them have."""
    tables = list(histories)
    epochs = pd.concat(tables).groupby("epoch")
    return epochs.mean()[epochs.size() == len(tables)].reset_index()


def learning_curves(histories: dict[str, pd.DataFrame], kept_epochs: dict[str, int]) -> list[Chart]:
    """Returns charts of loss, accuracy and learning rate over the epochs; none if there is no epoch.

    More lines than there are colours are grey, and their mean is drawn too.

    Args:
        histories: history.csv of each member, or a mean of several, by name.
        kept_epochs: the epoch that predicts, by name; it is marked.
    """
    if not histories:
        return []
    together = pd.concat(list(histories.values()))
    first, last = together["epoch"].min(), together["epoch"].max()
    space = 0.5 if first == last else 0
    epochs = Axis("epoch", first - space, last + space, LEFT, WIDTH - RIGHT, integer=True)
    # the first epochs do not flatten the others
    least = 1 - 6 * (1 - together["val_accuracy"].median())
    axes = {
        "loss": _y_axis("loss", together[["loss", "val_loss"]], log=True),
        "accuracy": _y_axis("accuracy", together[["accuracy", "val_accuracy"]], least),
        "learning_rate": _y_axis("learning rate", together[["learning_rate"]]),
    }
    colors = list(range(len(histories)))
    if len(histories) > len(PALETTE):
        colors = [GREY] * len(histories) + [0]
        histories = histories | {f"mean of {len(histories)}": mean_history(histories.values())}
    return [_curves(name, epochs, axis, histories, colors, kept_epochs) for name, axis in axes.items()]


def _y_axis(label: str, table: pd.DataFrame, least: float = -math.inf, log: bool = False) -> Axis:
    """Returns a y axis from the lowest positive value of a table, or from `least`, to the highest."""
    values = table.to_numpy().ravel()
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (max(values.min(), least), values.max()) if len(values) else (0.1, 1)
    space = 0.02 * (high - low) or 0.1 * high
    ends = (low / 1.05, high * 1.05) if log else (low - space, high + space)
    return Axis(label, *ends, HEIGHT - BOTTOM, TOP, log)


def _curves(
    quantity: str,
    x: Axis,
    y: Axis,
    histories: dict[str, pd.DataFrame],
    colors: Sequence[int],
    kept_epochs: dict[str, int],
) -> Chart:
    """Returns the chart of a column of history.csv; if it has a validation column too, training is dashed."""
    series, validation = [], f"val_{quantity}"
    for (name, table), color in zip(histories.items(), colors, strict=True):
        epochs = table["epoch"].tolist()
        if validation in table:
            series.append(Series(f"{name} training", epochs, table[quantity].tolist(), color, dashed=True))
        column = validation if validation in table else quantity
        marked = kept_epochs.get(name, math.nan) if validation in table else math.nan
        series.append(Series(name, epochs, table[column].tolist(), color, marked=marked))
    title = y.label.capitalize()
    legend = [line for line in series if not line.dashed and (line.color != GREY or len(histories) <= len(PALETTE))]
    return Chart(f"curve-{quantity}", title, f"{title} over the epochs: {len(series)} lines.", x, y, series, legend)


def reliability(calibration: dict[str, Any]) -> Chart:
    """Returns the chart of accuracy against confidence; `calibration` is that of cv_report.json."""
    bins = pd.DataFrame(calibration["bins"]).to_dict("list")
    measured = Series("out of fold", bins["confidence"], bins["accuracy"], low=bins["low"], high=bins["high"])
    first, lowest = bins["from"][0], min(bins["from"][0], *bins["low"])
    series = [Series("perfect", [first, 1], [first, 1], GREY, dashed=True), measured]
    x = Axis("mean probability of the predicted label", first, 1, LEFT, WIDTH - RIGHT)
    y = Axis("accuracy", lowest, 1, HEIGHT - BOTTOM, TOP)
    description = f"Accuracy against confidence; expected calibration error {calibration['ece']:.5f}."
    return Chart("reliability", "Reliability (bars: 95 % interval)", description, x, y, series, series)
