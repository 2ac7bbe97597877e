"""The pages' charts, as numbers that the templates draw as inline SVG.

The templates write all text, so that it is escaped. The pages' script shows `Chart.values` under the pointer.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.ticker import Locator, LogLocator, MaxNLocator

# The size of a chart and of its margins, in the units of its viewBox.
WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 74, 10, 10, 40

_COLORS = 7  # classes c0 to c6 of page.css
_LONGEST_LEGEND = 10  # lines


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
            return "".join(f"M{self.x(x)},{self.y(low)}V{self.y(high)}" for x, low, high in bars)
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


def learning_curves(histories: dict[str, pd.DataFrame], kept_epochs: dict[str, int]) -> list[Chart]:
    """Returns charts of loss, accuracy and learning rate over the epochs; none if there is no epoch.

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
    # the y axis ends at 1 and begins where the first epochs do not flatten the others
    lowest = together[["accuracy", "val_accuracy"]].min().min() - 0.002
    low = np.nanmax([1 - 6 * (1 - together["val_accuracy"].median()), lowest, 0])
    accuracy = Axis("accuracy", low if low < 1 else 0, 1, HEIGHT - BOTTOM, TOP)
    axes = {
        "loss": _log_axis("loss", together[["loss", "val_loss"]]),
        "accuracy": accuracy,
        "learning_rate": _log_axis("learning rate", together[["learning_rate"]]),
    }
    return [_curves(name, epochs, axis, histories, kept_epochs) for name, axis in axes.items()]


def _log_axis(label: str, table: pd.DataFrame) -> Axis:
    """Returns a y axis with some space beyond the positive values of a table."""
    values = table.to_numpy().ravel()
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (values.min(), values.max()) if len(values) else (0.1, 1)
    return Axis(label, low / 1.15, high * 1.15, HEIGHT - BOTTOM, TOP, log=True)


def _curves(quantity: str, x: Axis, y: Axis, histories: dict[str, pd.DataFrame], kept_epochs: dict[str, int]) -> Chart:
    """Returns the chart of a column of history.csv; if it has a validation column too, training is dashed."""
    series, validation = [], f"val_{quantity}"
    for number, (name, table) in enumerate(histories.items()):
        epochs, color = table["epoch"].tolist(), number % _COLORS
        if validation in table:
            series.append(Series(f"{name} training", epochs, table[quantity].tolist(), color, dashed=True))
        column = validation if validation in table else quantity
        marked = kept_epochs.get(name, math.nan) if validation in table else math.nan
        series.append(Series(name, epochs, table[column].tolist(), color, marked=marked))
    title = y.label.capitalize()
    legend = [line for line in series if not line.dashed] if len(histories) <= _LONGEST_LEGEND else []
    return Chart(f"curve-{quantity}", title, f"{title} over the epochs: {len(series)} lines.", x, y, series, legend)


def reliability(calibration: dict[str, Any]) -> Chart:
    """Returns the chart of accuracy against confidence; `calibration` is that of cv_report.json."""
    bins = pd.DataFrame(calibration["bins"]).to_dict("list")
    measured = Series("out of fold", bins["confidence"], bins["accuracy"], low=bins["low"], high=bins["high"])
    series = [Series("perfect", [0, 1], [0, 1], 6, dashed=True), measured]
    x = Axis("mean probability of the predicted label", 0, 1, LEFT, WIDTH - RIGHT)
    y = Axis("accuracy", 0, 1, HEIGHT - BOTTOM, TOP)
    description = f"Accuracy against confidence; expected calibration error {calibration['ece']:.5f}."
    return Chart("reliability", "Reliability (bars: 95 % interval)", description, x, y, series, series)
