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
from matplotlib.ticker import LogLocator, MaxNLocator

# The size of a chart and of its margins, in the units of its viewBox.
WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 74, 10, 10, 40

COLORS = 7  # classes c0 to c6 of page.css
_MOST_TICKS = 6
_FEWEST_DECADES = 2.2  # below, a logarithmic axis has ticks between the powers of ten
_LONGEST_LEGEND = 10  # lines


@dataclass(frozen=True)
class Axis:
    """Maps values to positions between `start` and `end`, on a linear or logarithmic scale."""

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
        low, high, value = scale(self.low), scale(self.high), scale(max(value, self.low))
        share = min((value - low) / (high - low), 1) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Returns the position and the text of each tick."""
        if self.log:
            is_narrow = math.log10(self.high / self.low) < _FEWEST_DECADES
            values = LogLocator(subs=(1, 2, 5) if is_narrow else (1,)).tick_values(self.low, self.high)
        else:
            values = MaxNLocator(_MOST_TICKS, integer=self.integer).tick_values(self.low, self.high)
        slack = 1e-9 * (self.high - self.low)
        inside = [float(value) for value in values if self.low - slack <= value <= self.high + slack]
        return [(self(value), f"{value:.6g}") for value in inside]


@dataclass(frozen=True)
class Series:
    """Points (x, y), connected by a line, or with error bars from `low` to `high` and not connected."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    color: int = 0
    dashed: bool = False
    marked: float | None = None  # x of the point of the line that is drawn as a dot
    low: Sequence[float] = ()
    high: Sequence[float] = ()


class Chart:
    """What a template draws, in the units of the viewBox."""

    def __init__(
        self,
        id: str,
        title: str,
        description: str,
        axes: tuple[Axis, Axis],
        series: Sequence[Series],
        legend: Sequence[Series] = (),
    ):
        """Places the series on the axes.

        Args:
            id: of the chart's element, unique in the page.
            title: above the chart.
            description: what the chart shows, for people who cannot see it.
            axes: x and y.
            series: what to draw; points whose y is not finite are left out.
            legend: the series whose names stand below the chart.
        """
        self.id, self.title, self.description = id, title, description
        self.x, self.y = axes
        self.legend = legend
        self.lines: list[dict[str, Any]] = []  # d, color, dashed
        self.dots: list[dict[str, Any]] = []  # x, y, color
        self._values: list[dict[str, Any]] = []
        for line in series:
            self._add(line)

    @property
    def values(self) -> str:
        """JSON: the name of each series and its points, as x, y, text of x, text of y."""
        return json.dumps(self._values, separators=(",", ":"))

    def _add(self, series: Series) -> None:
        color = series.color % COLORS
        points = [
            (self.x(x), self.y(y), f"{x:g}", f"{y:.5g}", x == series.marked)
            for x, y in zip(series.xs, series.ys, strict=True)
            if math.isfinite(y)
        ]
        if series.low:
            bars = zip(series.xs, series.low, series.high, strict=True)
            paths = [f"M{self.x(x)},{self.y(low)}V{self.y(high)}" for x, low, high in bars]
        else:
            paths = ["M" + "L".join(f"{x},{y}" for x, y, *_ in points)] if points else []
        self.lines += [{"d": path, "color": color, "dashed": series.dashed} for path in paths]
        for x, y, _, _, is_marked in points:
            if is_marked or series.low or len(points) == 1:
                self.dots.append({"x": x, "y": y, "color": color})
        self._values.append({"name": series.name, "points": [point[:4] for point in points]})


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
    axes = {
        "loss": _log_axis("loss", together[["loss", "val_loss"]]),
        "accuracy": _accuracy_axis(together[["accuracy", "val_accuracy"]]),
        "learning_rate": _log_axis("learning rate", together[["learning_rate"]]),
    }
    return [_curves(name, (epochs, axis), histories, kept_epochs) for name, axis in axes.items()]


def _log_axis(label: str, table: pd.DataFrame) -> Axis:
    """Returns a y axis with some space beyond the positive values of a table."""
    values = table.to_numpy().ravel()
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (values.min(), values.max()) if len(values) else (0.1, 1)
    return Axis(label, low / 1.15, high * 1.15, HEIGHT - BOTTOM, TOP, log=True)


def _accuracy_axis(table: pd.DataFrame) -> Axis:
    """Returns a y axis that ends at 1, where the first epochs do not flatten the others."""
    low = np.nanmax([1 - 6 * (1 - table["val_accuracy"].median()), table.min().min() - 0.002, 0])
    return Axis("accuracy", low if low < 1 else 0, 1, HEIGHT - BOTTOM, TOP)


def _curves(
    quantity: str, axes: tuple[Axis, Axis], histories: dict[str, pd.DataFrame], kept_epochs: dict[str, int]
) -> Chart:
    """Returns the chart of a column of history.csv; if it has a validation column too, training is dashed."""
    series, legend = [], []
    for number, (name, table) in enumerate(histories.items()):
        epochs, marked = table["epoch"].tolist(), kept_epochs.get(name)
        if f"val_{quantity}" not in table:
            series.append(Series(name, epochs, table[quantity].tolist(), number))
            continue
        series.append(Series(f"{name} training", epochs, table[quantity].tolist(), number, dashed=True))
        series.append(Series(name, epochs, table[f"val_{quantity}"].tolist(), number, marked=marked))
        legend.append(series[-1])
    title = axes[1].label.capitalize()
    description = f"{title} over the epochs: {len(series)} lines."
    if len(legend) > _LONGEST_LEGEND:
        legend = []
    return Chart(f"curve-{quantity}", title, description, axes, series, legend)


def reliability(calibration: dict[str, Any]) -> Chart:
    """Returns the chart of accuracy against confidence; `calibration` is that of cv_report.json."""
    bins = pd.DataFrame(calibration["bins"]).to_dict("list")
    measured = Series("out of fold", bins["confidence"], bins["accuracy"], low=bins["low"], high=bins["high"])
    series = [Series("perfect", [0, 1], [0, 1], 6, dashed=True), measured]
    x = Axis("mean probability of the predicted label", 0, 1, LEFT, WIDTH - RIGHT)
    y = Axis("accuracy", 0, 1, HEIGHT - BOTTOM, TOP)
    description = f"Accuracy against confidence; expected calibration error {calibration['ece']:.5f}."
    return Chart("reliability", "Reliability (bars: 95 % interval)", description, (x, y), series, series)
