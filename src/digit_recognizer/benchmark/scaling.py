"""How the cost of many members grows on several kinds of machines: a simulation with measured costs.

Members go to the first worker that is free, as `training.dispatch` sends them. The driver's own times are measured
here; where a machine was not at hand, such as a GPU, its time for a member is an assumption and is named as one.
"""

import heapq
import importlib.util
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from digit_recognizer import cli
from digit_recognizer.files import UserError, atomic

# Of `fast`, measured: bytes of an epoch's state, which comes to the driver after each epoch, and of a
# finished member; epochs of a member.
STATE, FINISHED, EPOCHS = 10e6, 5e6, 16
DATA = 55e6  # bytes of the data set, which goes to each node once
LINK = 1.25e9 / 2  # bytes a second into the driver, assumed: half of 10 Gbit/s
SPREAD = 0.05  # standard deviation of a member's time, as a part of it: 498 to 558 s in a run of five
MEMBERS = (5, 25, 100, 1000)


@dataclass(frozen=True)
class Machine:
    """A kind of machine, or of cluster, and what the recipe `fast` costs there."""

    name: str
    workers: int
    nodes: int
    seconds: float  # of a member, with as many beside it as there are workers
    start: float  # seconds until a worker trains: its process, the backend, tracing
    price: float  # an hour, in US dollars
    measured: bool


MACHINES = (
    # machines A, C and B of the benchmark's page, which says of which members
    Machine("laptop, 2 cores with bfloat16", 1, 1, 175, 14, 0, True),
    Machine("laptop, 2 cores with AVX-512, float32", 1, 1, 546, 14, 0, True),
    Machine("laptop, 2 cores with AVX2, float32", 1, 1, 880, 14, 0, True),
    Machine("T4 x2", 2, 1, 100, 20, 0, False),
    Machine("one H200, 4 folds at once", 4, 1, 40, 20, 4, False),
    Machine("8 nodes of 8 H200, 4 folds on each GPU", 256, 8, 40, 25, 256, False),
)


@dataclass(frozen=True)
class DriverCosts:
    """What the driver does alone, one after the other, in seconds."""

    member: float  # Ray's own time to begin and end a member
    epoch: float  # to take an epoch's state from the store and to have it on the disk


def simulate(machine: Machine, members: int, costs: DriverCosts, seed: int = 42) -> dict[str, float]:
    """Returns wall seconds, dollars, and as parts of the wall time: workers, driver and its link busy.

    Args:
        machine: that trains.
        members: how many.
        costs: of the driver; without effect where there is one worker, which needs no Ray.
        seed: of the members' times.
    """
    times = machine.seconds * np.random.default_rng(seed).normal(1, SPREAD, members).clip(0.5)
    remote, on_ray = machine.nodes > 1, machine.workers > 1
    free = [machine.start + machine.nodes * DATA / LINK * remote] * min(machine.workers, members)
    heapq.heapify(free)
    driver, ends = 0.0, []
    for seconds in times:
        driver = max(driver, heapq.heappop(free)) + costs.member * on_ray
        ends.append(driver + seconds)
        heapq.heappush(free, ends[-1])
    sent = members * (EPOCHS * STATE + FINISHED) / LINK * remote  # the link is busy for so long
    worked = members * (EPOCHS * costs.epoch + costs.member) * on_ray  # and the driver
    wall = max(*ends, sent, worked)
    return {
        "wall": wall,
        "dollars": wall / 3600 * machine.price,
        "busy": times.sum() / (wall * machine.workers),
        "driver": worked / wall,
        "link": sent / wall,
    }


def table(costs: DriverCosts) -> str:
    """Returns the simulation of all machines as a Markdown table."""
    lines = [
        "| machine | members | wall time | cost | workers busy | driver busy | its link busy |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for machine in MACHINES:
        for members in MEMBERS:
            found = simulate(machine, members, costs)
            name = machine.name + ("" if machine.measured else " (assumed)")
            cost = f"${found['dollars']:.2f}" if machine.price else "-"
            parts = " | ".join(f"{found[part]:.0%}" for part in ("busy", "driver", "link"))
            lines.append(f"| {name} | {members:,} | {_span(found['wall'])} | {cost} | {parts} |")
    return "\n".join(lines)


def _span(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


class _Sleeper:
    def train(self, seconds: float, size: float) -> bytes:
        time.sleep(seconds)
        return bytes(int(size))


@contextmanager
def _sleepers(number: int) -> Iterator[list]:
    """Yields actors of this machine."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    with tempfile.TemporaryDirectory(prefix="digits_", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=number,
            include_dashboard=False,
            object_store_memory=500 * 2**20,
            log_to_driver=False,
            logging_level="CRITICAL",
            _temp_dir=folder,
        )
        try:
            sleepers = [ray.remote(_Sleeper).options(num_cpus=1).remote() for _ in range(number)]
            ray.get([each.train.remote(0, 0) for each in sleepers])
            yield sleepers
        finally:
            ray.shutdown()


def measure_member(members: int = 200, workers: int = 20, seconds: float = 1.0) -> float:
    """Returns Ray's own wall seconds for a member: members that sleep, on actors of this machine.

    It is the wall time beyond the sleep, divided by the members: the driver serves one member at a time.
    """
    import ray

    with _sleepers(workers) as sleepers:
        began = time.perf_counter()
        pending = {each.train.remote(seconds, FINISHED): each for each in sleepers}
        sent = len(pending)
        while pending:
            ready, _ = ray.wait(list(pending), num_returns=1)
            sleeper = pending.pop(ready[0])
            ray.get(ready[0])
            if sent < members:
                pending[sleeper.train.remote(seconds, FINISHED)] = sleeper
                sent += 1
        return (time.perf_counter() - began - members / workers * seconds) / members


def measure_epoch(folder: Path, epochs: int = 40) -> float:
    """Returns the driver's median seconds for an epoch: to get its state and to have it on the disk of `folder`."""
    import ray

    times = []
    with _sleepers(1) as [sleeper]:
        for _ in range(epochs):
            reference = sleeper.train.remote(0, STATE)
            ray.wait([reference])
            began = time.perf_counter()
            state = ray.get(reference)
            with atomic(folder / "state.npz") as file:
                file.write_bytes(state)
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    """Measures the driver's costs and prints the table; raises UserError where Ray is not installed."""
    if not importlib.util.find_spec("ray"):
        raise UserError("Ray is not installed: pip install ray")
    with tempfile.TemporaryDirectory() as folder:
        costs = DriverCosts(measure_member(), measure_epoch(Path(folder)))
    print(f"the driver's own time: {costs.member:.3f} s a member, {costs.epoch:.3f} s an epoch\n")
    print(table(costs))


if __name__ == "__main__":
    cli.main(main)
