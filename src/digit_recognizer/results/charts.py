"""Charts as numbers: the places of lines, points, bars and ticks that the templates draw as inline SVG.

The templates write all text, so that it is escaped; the pages' script shows `values` where a pointer is.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from matplotlib.ticker import LogLocator, MaxNLocator

# The size of a chart and of its margins, in the units of its viewBox.
WIDTH, HEIGHT = 420, 260
LEFT, RIGHT, TOP, BOTTOM = 74, 10, 10, 40
COLORS = 7  # classes c0 to c6 of page.css
_MOST_TICKS = 6
_FEWEST_DECADES = 2.2  # with less, a logarithmic axis has ticks between the powers of ten


@dataclass(frozen=True)
class Series:
    """One line of a chart, or points where `line` is False."""

    name: str
    xs: Sequence[float]
    ys: Sequence[float]
    color: int = 0
    dashed: bool = False
    line: bool = True
    marked: Sequence[float] = ()  # x of the points that are drawn as dots
    low: Sequence[float] = ()  # ends of the error bars, or none
    high: Sequence[float] = ()


@dataclass
class Axis:
    """Maps values to places between `start` and `end`, on a linear or logarithmic scale."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Returns the place of a value, of the nearest end for one beyond the axis."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        place = math.log(max(value, self.low)) if self.log else value
        share = (min(max(place, low), high) - low) / (high - low) if high > low else 0.5
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, integer: bool = False) -> list[tuple[float, str]]:
        """Returns the place and the text of each tick."""
        if self.log:
            narrow = math.log10(self.high / self.low) < _FEWEST_DECADES
            values = LogLocator(subs=(1, 2, 5) if narrow else (1,)).tick_values(self.low, self.high)
        else:
            values = MaxNLocator(_MOST_TICKS, integer=integer).tick_values(self.low, self.high)
        slack = 1e-9 * (self.high - self.low)
        inside = [float(each) for each in values if self.low - slack <= each <= self.high + slack]
        return [(self(each), f"{each:.6g}") for each in inside]


@dataclass
class Chart:
    """What a template draws; every place is in units of the viewBox."""

    id: str
    title: str
    description: str  # for those who do not see it
    x_label: str
    y_label: str
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    lines: list[dict[str, Any]] = field(default_factory=list)  # name, d, color, dashed
    dots: list[dict[str, Any]] = field(default_factory=list)  # x, y, color
    bars: list[dict[str, Any]] = field(default_factory=list)  # x, y, width, height, color
    legend: list[dict[str, Any]] = field(default_factory=list)  # name, color, dashed
    series: list[dict[str, Any]] = field(default_factory=list)  # name, points [x, y, text of x, text of y]

    @property
    def values(self) -> str:
        """The series as JSON, for the pages' script."""
        return json.dumps(self.series, separators=(",", ":"))


def _range(values: Sequence[float], log: bool) -> tuple[float, float]:
    """The ends of an axis for `values`, with some space beyond them."""
    found = np.array([each for each in values if math.isfinite(each) and (each > 0 or not log)], float)
    if len(found) == 0:
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = float(found.min()), float(found.max())
    if log:
        return low / 1.15, high * 1.15
    space = (high - low) * 0.05 or abs(high) * 0.05 or 1.0
    return low - space, high + space


def line_chart(
    id: str,
    title: str,
    description: str,
    labels: tuple[str, str],
    series: Sequence[Series],
    *,
    x_range: tuple[float, float] | None = None,
    y_range: tuple[float, float] | None = None,
    log: bool = False,
    integer: bool = True,
    legend: bool = True,
) -> Chart:
    """Returns a chart of lines, or points with error bars.

    Args:
        id: of its element, unique in the page.
        title: above it.
        description: what it shows, for those who do not see it.
        labels: of the x and the y axis.
        series: what to draw; points that are not finite are left out.
        x_range: the ends of the x axis; None: the ends of the data.
        y_range: likewise; what is beyond is drawn at the edge.
        log: whether the y axis is logarithmic.
        integer: whether the x axis has whole numbers.
        legend: whether the series' names stand below.
    """
    xs = [x for each in series for x in each.xs]
    ys = [y for each in series for y in (*each.ys, *each.low, *each.high)]
    low, high = x_range or (min(xs, default=0), max(xs, default=1))
    if low == high:
        low, high = low - 0.5, high + 0.5
    x_axis = Axis(low, high, LEFT, WIDTH - RIGHT)
    y_axis = Axis(*(y_range or _range(ys, log)), HEIGHT - BOTTOM, TOP, log)
    chart = Chart(id, title, description, *labels, x_axis.ticks(integer), y_axis.ticks())
    for each in series:
        points = [
            (x_axis(x), y_axis(y), f"{x:g}", f"{y:.5g}", x)
            for x, y in zip(each.xs, each.ys, strict=True)
            if math.isfinite(y)
        ]
        look = {"name": each.name, "color": each.color % COLORS, "dashed": each.dashed}
        if each.line:
            path = "L".join(f"{x},{y}" for x, y, *_ in points)
            chart.lines.append(look | {"d": f"M{path}" if points else ""})
        for x, low, high in zip(each.xs, each.low, each.high, strict=False):
            bar = f"M{x_axis(x)},{y_axis(low)}V{y_axis(high)}"
            chart.lines.append({"name": "", "color": look["color"], "dashed": False, "d": bar})
        for x, y, _, _, value in points:
            if not each.line or value in each.marked or len(points) == 1:
                chart.dots.append({"x": x, "y": y, "color": look["color"]})
        if legend:
            chart.legend.append(look)
        chart.series.append({"name": each.name, "points": [point[:4] for point in points]})
    return chart


def bar_chart(
    id: str,
    title: str,
    description: str,
    labels: tuple[str, str],
    groups: Sequence[str],
    series: Sequence[tuple[str, Sequence[float]]],
    log: bool = False,
) -> Chart:
    """Returns a chart of bars side by side: for each group one of each series (name, value of each group).

    The other arguments are as in `line_chart`.
    """
    tallest = max([value for _, heights in series for value in heights], default=1) or 1
    low = 0.5 if log else 0  # a single row has to be seen on a logarithmic axis
    y_axis = Axis(low, max(tallest * 1.05, 2 * low), HEIGHT - BOTTOM, TOP, log)
    space = (WIDTH - LEFT - RIGHT) / max(1, len(groups))
    width = space * 0.8 / max(1, len(series))
    step = -(-len(groups) // 16)  # as many names as there is room for
    ticks = [(round(LEFT + (i + 0.5) * space, 1), name) for i, name in enumerate(groups) if i % step == 0]
    chart = Chart(id, title, description, *labels, ticks, y_axis.ticks(integer=True))
    for number, (name, heights) in enumerate(series):
        points = []
        for index, value in enumerate(heights):
            left, top = LEFT + (index + 0.1) * space + number * width, y_axis(value)
            bar = {"x": round(left, 1), "y": top, "width": round(width, 1), "color": number}
            chart.bars.append(bar | {"height": round(HEIGHT - BOTTOM - top, 1)})
            points.append((round(left + width / 2, 1), top, groups[index], f"{value:.5g}"))
        if len(series) > 1:
            chart.legend.append({"name": name, "color": number, "dashed": False})
        chart.series.append({"name": name, "points": points})
    return chart
