"""Times several ways to do the same work, in turns."""

import itertools
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]  # what, way, median, unit; where it has them ratio, cost, peak_mib and more

_MIN_ROUNDS, _MAX_SECONDS = 3, 240  # a slow machine makes fewer rounds


def timed(way: Callable[[], Any]) -> float:
    """Returns the seconds of a call of `way`: a float that the call returns, else the time on the clock."""
    began = time.perf_counter()
    own = way()
    return own if isinstance(own, float) else time.perf_counter() - began


def compare(
    what: str,
    ways: dict[str, Callable[[], Any]],
    rounds: int,
    unit: str = "s",
    value: Callable[[float], float] = float,
) -> Iterator[Row]:
    """Times the `ways` in turns, and yields a row for each.

    They take turns so that a machine that is busy for a while is so for all of them. A round before the
    others makes code and takes memory; `start_seconds` is how much longer it took.

    Args:
        what: the work.
        ways: functions that do it, by name; the first is the usual way.
        rounds: how often, at most.
        unit: of the medians.
        value: makes that unit of a round's seconds.

    In a row `ratio` is how many times as fast as the first way it is, the median of the rounds' ratios;
    `fastest` is the best round.
    """
    first = {name: timed(way) for name, way in ways.items()}
    seconds = {name: [] for name in ways}
    began = time.perf_counter()
    for done in range(rounds):
        if done >= _MIN_ROUNDS and time.perf_counter() - began > _MAX_SECONDS:
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
    """The end of one of several pieces of work whose cost may grow."""

    clock: float  # seconds
    probe: float  # seconds of a fixed work, right after it
    peak_mib: float  # the most memory that this process has had so far


def moment(probe: Callable[[], Any]) -> Moment:
    """Returns the time, the seconds of `probe`, which tell how fast the machine is, and the peak memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Moment(time.perf_counter(), timed(probe), peak / (2**20 if sys.platform == "darwin" else 2**10))


def growth(what: str, moments: list[Moment], group: int) -> Iterator[Row]:
    """Yields a row for each group of pieces of work, with its cost relative to the first group.

    The `cost` is counted in probes, those before and after each piece, because a shared machine changes its
    speed; `median` and `rounds` are seconds. The first of the `moments` is the end of a piece that warms
    up and does not count.
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
