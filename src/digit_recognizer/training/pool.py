"""The workers of a session on Ray, as the driver sees them, and the members that they train."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from digit_recognizer.data.digits import Dataset
from digit_recognizer.data.folds import Member
from digit_recognizer.errors import UserError
from digit_recognizer.training import backend, host
from digit_recognizer.training.display import say
from digit_recognizer.training.worker import News

MOST_LOSSES = 5  # of workers in a row, before it is no accident
_PAUSE, _WAIT = 2.0, 60.0  # seconds: after a worker that did not start; without a worker, until that is said

# What a worker's numbers depend on beside the recipe.
_ENVIRONMENT = ("KERAS_BACKEND", "ONEDNN_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS")


@dataclass(frozen=True)
class Where:
    """Where the members of a run are trained at once."""

    workers: int | None = None  # members at once; None: as many as the cluster has room for
    address: str | None = None  # of a Ray cluster, None for one on this machine
    gpus_per_fold: float | None = None  # None: the GPUs are shared out


@dataclass(eq=False)
class RemoteWorker:
    """A worker as the driver sees it."""

    host: Any  # Ray's handle
    pending: Any  # Ray's reference to its next answer, None while it has nothing to do
    member: Member | None = None
    started: bool = False
    proven: bool = False  # it has trained an epoch


class Pool:
    """Workers, which train members of one run after another."""

    def __init__(self, where: Where, dataset: Dataset, threads: int | None, wanted: int, folder: str | None):
        """Puts the data set into Ray's store; workers are started when there is something to do.

        For the arguments see `cluster.open_pool`. `folder` is for temporary files of this machine's workers.
        """
        import ray

        ray.cloudpickle.register_pickle_by_value(host)
        cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        cores = [number for number in cores if number] or [1]
        self.threads = threads or max(1, min(min(cores), sum(cores) // (where.workers or len(cores))))
        self.size = max(1, min(where.workers or wanted, wanted))
        gpus = int(ray.cluster_resources().get("GPU", 0))
        shared = 1 / math.ceil((where.workers or gpus) / gpus) if gpus else 0
        self.gpus = where.gpus_per_fold or shared
        self.workers: list[RemoteWorker] = []
        self.dataset = ray.put(dataset)
        self.facts: dict[str, Any] | None = None  # of the worker that started first
        self._starts_lost, self._start_again = 0, -math.inf  # in a row; the time before which none is started
        self._last_answer = time.monotonic()
        self._told_waiting = self._told_unlike = False
        self._arguments = (ray.put(host.package()), self._environment(), folder)

    def _environment(self) -> dict[str, str]:
        found = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        found["KERAS_BACKEND"] = backend.choose()
        if self.gpus == 0:
            found["CUDA_VISIBLE_DEVICES"] = "-1"
        elif self.gpus < 1:  # others are on the same one
            found["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
            found["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * self.gpus:.3f}"
        return found

    def session_facts(self, threads: int, precision: str) -> dict[str, Any]:
        """Returns what `backend.session_facts` returns in the first worker that has started.

        Raises UserError for a precision in which that worker can't compute.
        """
        import ray

        while True:
            self.fill(self.size)
            for worker in [each for each in self.workers if each.pending is None]:
                try:
                    return ray.get(worker.host.facts.remote(precision))
                except ray.exceptions.RayError as error:
                    self.lose_start(worker, error)
            for worker, answer in self.answers():
                self.end_start(worker, answer)

    def close(self) -> None:
        """Ends the workers' processes."""
        for worker in list(self.workers):
            self.drop(worker)

    def fill(self, wanted: int) -> None:
        """Starts workers until there are as many as wanted; Ray waits for a node that has room for them."""
        import ray

        while len(self.workers) < min(wanted, self.size) and time.monotonic() > self._start_again:
            options = {"num_cpus": self.threads, "num_gpus": self.gpus, "max_restarts": 0}
            handle = ray.remote(host.Host).options(**options).remote(*self._arguments)
            self.workers.append(RemoteWorker(handle, handle.start.remote(self.threads)))

    def answers(self) -> Iterator[tuple[RemoteWorker, Any]]:
        """Yields workers that have answered within a second, each with its answer or an exception."""
        import ray

        pending = {worker.pending: worker for worker in self.workers if worker.pending is not None}
        if not pending:
            time.sleep(0.1)
            return
        ready, _ = ray.wait(list(pending), num_returns=1, timeout=1)
        for reference in ready:
            worker = pending[reference]
            worker.pending = None
            try:
                answer = ray.get(reference)
            except ray.exceptions.RayError as error:
                answer = error
            self._last_answer = time.monotonic()
            yield worker, answer
        silent = time.monotonic() - self._last_answer > _WAIT and not any(
            each.member for each in self.workers
        )
        if silent and not self._told_waiting:
            self._told_waiting = True
            gpus = f" and {self.gpus:g} GPUs" if self.gpus else ""
            say(
                f"no worker yet: waiting for a node with {self.threads} free cores{gpus}; --threads asks for fewer"
            )

    def drop(self, worker: RemoteWorker) -> None:
        """Ends a worker's process."""
        import ray

        self.workers.remove(worker)
        with suppress(Exception):  # it is dead, or the cluster is
            ray.kill(worker.host)

    def end_start(self, worker: RemoteWorker, answer: Any) -> None:
        """Takes the facts of a worker that has started, or the exception of one that has not.

        Raises UserError where one worker after the other does not start.
        """
        if isinstance(answer, Exception):
            self.lose_start(worker, answer)
            return
        worker.started, self._starts_lost, self.facts = True, 0, self.facts or answer
        names = ("device", "compute_dtype", "versions")
        others = [name for name in names if answer[name] != self.facts[name]]
        if others and not self._told_unlike:
            self._told_unlike = True
            say(
                f"a worker ({answer['device']}) has other {', '.join(others)} than the first one "
                f"({self.facts['device']}): the results of its members may differ a little"
            )

    def lose_start(self, worker: RemoteWorker, error: Exception) -> None:
        """Gives up a worker that could not start; the next one is started later and later.

        Raises UserError where one after the other can't start, and none has.
        """
        self.drop(worker)
        if isinstance(error, UserError):  # raised in the worker
            raise error.cause from None
        self._starts_lost += 1
        self._start_again = time.monotonic() + min(_PAUSE * self._starts_lost, _WAIT)
        if self._starts_lost < MOST_LOSSES:
            return
        if not any(each.started for each in self.workers):
            raise UserError(f"no worker starts; the last one: {reason(error)}")
        if self._starts_lost == MOST_LOSSES:
            say(f"{MOST_LOSSES} workers in a row did not start ({reason(error)}): going on with the others")


def reason(answer: Any) -> str:
    """Returns in a few words why a worker was lost."""
    if isinstance(answer, News):
        return answer.text
    text = " ".join(str(answer).split())
    if (
        "OutOfMemory" in type(answer).__name__ or "running low on memory" in text
    ):  # Ray guesses at OOM for any death
        return "out of memory"
    if "worker process has died" not in text and "node" in text and ("died" in text or "dead" in text):
        return "its node is gone"
    return "its process was killed" if "Actor" in type(answer).__name__ else text[-200:]
