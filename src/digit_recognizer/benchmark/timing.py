"""Times several ways to do the same thing beside each other, and shows what came out."""

import itertools
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.figure
import numpy as np
import pandas as pd

from digit_recognizer.errors import UserError
from digit_recognizer.files import read_json

Row = dict[str, Any]  # what, way, median, unit; where it has them ratio, cost, peak_mib and more

_LEAST_ROUNDS, _LONGEST = 3, 240  # seconds: a slow machine makes fewer rounds


def timed(way: Callable[[], Any]) -> float:
    """The seconds that a call of `way` takes, or, where it returns a float, that it says the work took."""
    began = time.perf_counter()
    told = way()
    return told if isinstance(told, float) else time.perf_counter() - began


def compare(
    what: str,
    ways: dict[str, Callable[[], Any]],
    rounds: int,
    unit: str = "s",
    value: Callable[[float], float] = float,
) -> Iterator[Row]:
    """Times the `ways` in turn, at most so many rounds; a row for each.

    They take turns so that a machine that is busy for a while is so for all of them. `ratio` is how many times
    as fast as the first of them a way is, the median of the rounds'; `fastest` is the best round. `value` turns
    a round's seconds into `unit`. A round before the others, which makes code and takes memory, is told only by
    how much longer it took.
    """
    first = {name: timed(way) for name, way in ways.items()}
    seconds = {name: [] for name in ways}
    began = time.perf_counter()
    for done in range(rounds):
        if done >= _LEAST_ROUNDS and time.perf_counter() - began > _LONGEST:
            break
        for name, way in ways.items():
            seconds[name].append(timed(way))
    usual = next(iter(seconds.values()))
    for name, taken in seconds.items():
        median = statistics.median(taken)
        yield {
            "what": what,
            "way": name,
            "median": value(median),
            "unit": unit,
            "ratio": statistics.median(one / other for one, other in zip(usual, taken, strict=True)),
            "fastest": value(min(taken)),
            "rounds": [value(each) for each in taken],
            "start_seconds": max(0.0, first[name] - median),
        }


@dataclass(frozen=True)
class Moment:
    """The end of one of many things whose cost may grow."""

    clock: float  # seconds
    probe: float  # the seconds that a work which is always the same took right after it
    peak_mib: float  # the most memory that this process has had so far


def moment(probe: Callable[[], Any]) -> Moment:
    """Now; `probe` is the work that tells how fast the machine is."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Moment(time.perf_counter(), timed(probe), peak / (2**20 if sys.platform == "darwin" else 2**10))


def growth(what: str, moments: list[Moment], group: int) -> Iterator[Row]:
    """What one of many costs, in groups of so many; `cost` is that in parts of the first group's.

    The cost is counted in probes, those before and after each, because a shared machine changes its speed;
    `median` and `rounds` are seconds. The first of the `moments`, which warms up, is not counted.
    """
    pairs = list(itertools.pairwise(moments))
    seconds = [later.clock - earlier.clock - earlier.probe for earlier, later in pairs]
    probes = [(earlier.probe + later.probe) / 2 for earlier, later in pairs]
    costs = [one / probe for one, probe in zip(seconds, probes, strict=True)]
    for start in range(0, len(seconds), group):
        taken = seconds[start : start + group]
        last = start + len(taken)
        yield {
            "what": what,
            "way": f"{start + 1} to {last}",
            "median": statistics.median(taken),
            "unit": "s",
            "cost": statistics.median(costs[start:last]) / statistics.median(costs[:group]),
            "peak_mib": moments[last].peak_mib,
            "rounds": taken,
            "probes": probes[start:last],
        }


def earlier(path: Path, machine: dict[str, Any]) -> dict[str, Any]:
    """The machine, and the parts that the JSON file `path` has of it.

    Raises UserError where they are another machine's, with which nothing can be compared.
    """
    known = read_json(path) if path.exists() else {"machine": machine, "parts": {}}
    for name, value in machine.items():
        if known["machine"].get(name) != value:
            raise UserError(f"{path} was measured with another {name}: take another --output")
    return known


def line(row: Row) -> dict[str, str]:
    """A row as the table has it."""
    cells = {name: row[name] for name in ("what", "way", "unit")}
    for name in ("median", "fastest"):
        if name in row:
            cells[name] = format(row[name], ".0f" if row[name] >= 100 else ".3g")
    for key, name, form in (
        ("ratio", "times as fast", ".2f"),
        ("cost", "times the cost", ".2f"),
        ("start_seconds", "start, s", ".1f"),
        ("peak_mib", "peak, MiB", ".0f"),
    ):
        if key in row:
            cells[name] = format(row[key], form)
    return cells


def table(rows: list[Row]) -> str:
    """The rows as lines for a terminal."""
    frame = pd.DataFrame([line(row) for row in rows]).fillna("")
    for name in ("what", "way"):  # to the left, as words are
        frame[name] = frame[name].str.ljust(frame[name].str.len().max())
    return frame.to_string(index=False)


def draw(rows: list[Row]) -> matplotlib.figure.Figure:
    """The ratios as bars, a colour a comparison, without the first way of each."""
    rows = [row for row in rows if "ratio" in row]
    whats = [row["what"] for row in rows]
    shown = [row for number, row in enumerate(rows) if row["what"] in whats[:number]]
    figure = matplotlib.figure.Figure(figsize=(10, 0.9 + 0.28 * len(shown)), layout="constrained")
    axes = figure.subplots()
    ratios = np.array([row["ratio"] for row in shown])
    colours = [f"C{list(dict.fromkeys(whats)).index(row['what']) % 10}" for row in shown]
    bars = axes.barh(range(len(shown)), ratios - 1, left=1, color=colours)
    axes.bar_label(bars, [f"{ratio:.3g}" for ratio in ratios], padding=3)
    axes.set_yticks(range(len(shown)), [f"{row['what']}: {row['way']}" for row in shown])
    axes.invert_yaxis()
    ticks = [0.25, 0.5, 1, 2, 5, 10, 20, 50, 100]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xlim(0.6 * min(1, *ratios), 2 * max(1, *ratios))
    axes.axvline(1, color="black", linewidth=0.8)
    axes.grid(axis="x", alpha=0.3)
    axes.set(xlabel="times as fast as the usual way")
    return figure
