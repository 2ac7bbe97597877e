"""How the cost of many members grows on several kinds of machines: a simulation with measured costs.

Members go to the first worker that is free, as `training.pool` sends them. What the simulation does not know,
such as a GPU's time for an epoch, is an assumption and is named as one.
"""

import heapq
import os
import tempfile
import time
from dataclasses import dataclass

import numpy as np

STATE = 10e6  # bytes of an epoch's state, which come to the driver after each epoch
FINISHED = 5e6  # bytes of a finished member: model, history and probabilities
DATA = 55e6  # bytes of the data set, which goes to each node once
LINK = 1.25e9 / 2  # bytes a second into the driver: half of 10 Gbit/s
SPREAD = 0.05  # standard deviation of a member's time, as a part of it
EPOCHS = 16
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
    Machine("laptop, 2 cores with bfloat16", 1, 1, 175, 8, 0, True),
    Machine("laptop, 2 cores, float32", 1, 1, 25 * EPOCHS + 7, 8, 0, True),
    Machine("T4 x2", 2, 1, 100, 20, 0, False),
    Machine("one H200, 4 folds at once", 4, 1, 40, 20, 4, False),
    Machine("8 nodes of 8 H200, 4 folds on each GPU", 256, 8, 40, 25, 256, False),
)


def simulate(machine: Machine, members: int, overhead: float, seed: int = 42) -> dict[str, float]:
    """Returns wall seconds, dollars, and the parts that limit: the driver's link, the last workers' idle time.

    Args:
        machine: that trains.
        members: how many.
        overhead: seconds of the driver for a member, in which it does nothing else.
        seed: of the members' times.
    """
    times = machine.seconds * np.random.default_rng(seed).normal(1, SPREAD, members).clip(0.5)
    remote = machine.nodes > 1
    free = [machine.start + machine.nodes * DATA / LINK * remote] * min(machine.workers, members)
    heapq.heapify(free)
    driver, ends = 0.0, []
    for seconds in times:
        driver = max(driver, heapq.heappop(free)) + overhead
        ends.append(driver + seconds)
        heapq.heappush(free, ends[-1])
    sent = members * (EPOCHS * STATE + FINISHED) / LINK * remote  # the link is busy for so long
    wall = max(max(ends), sent)
    busy = times.sum() / (wall * machine.workers)
    return {"wall": wall, "dollars": wall / 3600 * machine.price, "link": sent / wall, "busy": busy}


def table(overhead: float) -> str:
    """Returns the simulation of all machines as a Markdown table; for `overhead` see `simulate`."""
    lines = [
        "| machine | members | wall time | cost | workers busy | driver's link busy |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for machine in MACHINES:
        for members in MEMBERS:
            found = simulate(machine, members, overhead)
            name = machine.name + ("" if machine.measured else " (assumed)")
            cost = f"${found['dollars']:.2f}" if machine.price else "-"
            lines.append(
                f"| {name} | {members:,} | {_span(found['wall'])} | {cost} | {found['busy']:.0%} | {found['link']:.0%} |"
            )
    return "\n".join(lines)


def _span(seconds: float) -> str:
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def measure_overhead(members: int = 200, workers: int = 20, seconds: float = 1.0) -> float:
    """Returns Ray's own wall seconds for a member: members that sleep, on actors of this machine.

    It is the wall time beyond the sleep, divided by the members: the driver serves one member at a time.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    import ray

    class Sleeper:
        def train(self, files: bytes, seconds: float) -> bytes:
            time.sleep(seconds)
            return files

    with tempfile.TemporaryDirectory(prefix="digits_", dir="/tmp", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=workers,
            include_dashboard=False,
            object_store_memory=500 * 2**20,
            log_to_driver=False,
            logging_level="CRITICAL",
            _temp_dir=folder,
        )
        try:
            sleepers = [ray.remote(Sleeper).options(num_cpus=1).remote() for _ in range(workers)]
            ray.get([each.train.remote(b"", 0) for each in sleepers])
            return _overhead(sleepers, members, seconds)
        finally:
            ray.shutdown()


def _overhead(sleepers: list, members: int, seconds: float) -> float:
    import ray

    files, began = bytes(int(FINISHED)), time.perf_counter()
    pending = {each.train.remote(files, seconds): each for each in sleepers}
    sent = len(pending)
    while pending:
        ready, _ = ray.wait(list(pending), num_returns=1)
        sleeper = pending.pop(ready[0])
        ray.get(ready[0])
        if sent < members:
            pending[sleeper.train.remote(files, seconds)] = sleeper
            sent += 1
    return (time.perf_counter() - began - members / len(sleepers) * seconds) / members


if __name__ == "__main__":
    found = measure_overhead()
    print(f"Ray's own time for a member: {found:.3f} s\n\n{table(found)}")
