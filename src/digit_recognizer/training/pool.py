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
from digit_recognizer.data.plan import Plan
from digit_recognizer.errors import UserError
from digit_recognizer.files import atomic
from digit_recognizer.training import backend, host
from digit_recognizer.training.display import MembersDisplay, describe
from digit_recognizer.training.worker import Job, News

MOST_LOSSES = 5  # of workers in a row, for a member without an epoch between them
_WAIT = 60.0  # seconds without a worker, until that is said

# What a worker's numbers depend on beside the recipe.
_ENVIRONMENT = ("KERAS_BACKEND", "ONEDNN_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS")


@dataclass(frozen=True)
class Where:
    """Where the members of a run are trained at once."""

    workers: int | None = None  # members at once; None: as many as the cluster has room for
    address: str | None = None  # of a Ray cluster, None for one on this machine
    gpus_per_fold: float | None = None  # None: the GPUs are shared out


@dataclass(eq=False)
class _Worker:
    """A worker as the driver sees it."""

    host: Any  # Ray's handle
    pending: Any  # Ray's reference to its next answer, None while it has nothing to do
    member: Member | None = None


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
        self.workers: list[_Worker] = []
        self.dataset = ray.put(dataset)
        self._starts_lost, self._last_answer, self._said = 0, time.monotonic(), False
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
        """Returns what `backend.session_facts` returns in the first worker that has started."""
        import ray

        while True:
            self.fill(self.size, precision)
            for worker in [each for each in self.workers if each.pending is None]:
                with suppress(ray.exceptions.RayError):
                    return ray.get(worker.host.facts.remote(precision))
                self.drop(worker)
            for worker, answer in self.answers():
                if isinstance(answer, Exception):
                    self.lose_start(worker, answer)

    def train_members(
        self, plan: Plan, members: list[Member], deadline: float, tensorboard: bool = False
    ) -> bool:
        """Trains the `members` that are not finished, several at once.

        Returns False if there was no time for all of them. Raises UserError for a member whose worker is
        lost again and again.
        """
        for member in filter(plan.is_finished, members):
            (plan.folder(member) / "state.npz").unlink(missing_ok=True)  # if killed while finishing
            print(f"{describe(member, plan.metrics(member))}, finished before")
        unfinished = [member for member in members if not plan.is_finished(member)]
        display = MembersDisplay(plan.recipe, unfinished, self.size)
        try:
            return _Training(self, plan, unfinished, deadline, tensorboard, display).run()
        finally:
            display.close()

    def close(self) -> None:
        """Ends the workers' processes."""
        for worker in list(self.workers):
            self.drop(worker)

    def fill(self, wanted: int, precision: str) -> None:
        """Starts workers until there are as many as wanted; Ray waits for a node that has room for them."""
        import ray

        while len(self.workers) < min(wanted, self.size):
            options = {"num_cpus": self.threads, "num_gpus": self.gpus, "max_restarts": 0}
            handle = ray.remote(host.Host).options(**options).remote(*self._arguments)
            self.workers.append(_Worker(handle, handle.start.remote(self.threads, precision)))

    def answers(self) -> Iterator[tuple[_Worker, Any]]:
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
        if silent and not self._said:
            self._said = True
            gpus = f" and {self.gpus:g} GPUs" if self.gpus else ""
            print(f"no worker yet: waiting for a node with {self.threads} free cores{gpus}", flush=True)

    def drop(self, worker: _Worker) -> None:
        """Ends a worker's process."""
        import ray

        self.workers.remove(worker)
        with suppress(Exception):  # it is dead, or the cluster is
            ray.kill(worker.host)

    def lose_start(self, worker: _Worker, error: Exception) -> None:
        """Gives up a worker that could not start; raises UserError where one after the other can't."""
        self.drop(worker)
        self._starts_lost += 1
        if self._starts_lost >= MOST_LOSSES:
            raise UserError(f"no worker starts; the last one: {_reason(error)}")


class _Training:
    """The members of one run on the workers of a pool."""

    def __init__(self, pool, plan, members, deadline, tensorboard, display):
        self.pool, self.plan, self.deadline, self.tensorboard = pool, plan, deadline, tensorboard
        self.display, self.waiting = display, list(members)
        self.losses: dict[int, int] = {}  # by the member's index, since its last epoch
        self.in_time = True

    def run(self) -> bool:
        while self.waiting or any(worker.member for worker in self.pool.workers):
            if self.waiting and time.monotonic() > self.deadline:
                self.in_time = False
            if not self.in_time:
                self.waiting.clear()
            busy = sum(worker.member is not None for worker in self.pool.workers)
            self.pool.fill(busy + len(self.waiting), self.plan.recipe.precision)
            for worker in self.pool.workers:
                if worker.pending is None and worker.member is None and self.waiting:
                    self._assign(worker, self.waiting.pop(0))
            for worker, answer in self.pool.answers():
                self._take(worker, answer)
        return self.in_time

    def _assign(self, worker: _Worker, member: Member) -> None:
        plan, worker.member = self.plan, member
        paths = [plan.folder(member) / name for name in ("state.npz", "history.csv")]
        files = {f"{member.name}/{path.name}": path.read_bytes() for path in paths if path.exists()}
        seconds = self.deadline - time.monotonic()
        job = Job(plan.recipe, member, plan.identity, files, seconds, self.tensorboard)
        worker.pending = worker.host.train.remote(job, self.pool.dataset)

    def _take(self, worker: _Worker, answer: Any) -> None:
        """Does what a worker's answer asks for."""
        member = worker.member
        if member is None:  # it has started, or not
            if isinstance(answer, Exception):
                self.pool.lose_start(worker, answer)
            return
        if isinstance(answer, Exception) or answer.kind == "failed":
            self._lose(worker, answer)
            return
        if answer.kind == "wrong":
            raise UserError(f"{self.plan.run.folder}/{answer.text}")
        if answer.text:
            self.display.say(answer.text)
        self._write(answer.files)
        if answer.kind == "epoch":
            self.losses[member.index] = 0
            self.display.end_epoch(member, answer.row)
            worker.pending = worker.host.next.remote()
            return
        worker.member = None
        if answer.kind == "end":
            (self.plan.folder(member) / "state.npz").unlink(missing_ok=True)
            self.display.end_member(member, self.plan.metrics(member))
        else:
            self.in_time = False

    def _lose(self, worker: _Worker, answer: Any) -> None:
        """Puts the member of a lost worker first in the queue."""
        member, reason = worker.member, _reason(answer)
        self.pool.drop(worker)
        self.losses[member.index] = self.losses.get(member.index, 0) + 1
        if self.losses[member.index] >= MOST_LOSSES:
            raise UserError(
                f"{self.plan.folder(member)}: {MOST_LOSSES} workers in a row were lost before they finished an epoch "
                f"of it; the last one: {reason}; every finished epoch is kept"
            )
        self.display.say(f"{member.name}: its worker was lost ({reason}); it goes on from its last epoch")
        self.waiting.insert(0, member)

    def _write(self, files: dict[str, bytes]) -> None:
        """Writes files into the run directory, metrics.json last."""
        for name in sorted(files, key=lambda name: name.endswith("metrics.json")):
            path = self.plan.run.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as file:
                file.write_bytes(files[name])


def _reason(answer: Any) -> str:
    """Returns in a few words why a worker was lost."""
    if isinstance(answer, News):
        return answer.text
    text = " ".join(str(answer).split())
    if "OutOfMemory" in type(answer).__name__ or "out of memory" in text.lower() or "OOM" in text:
        return "out of memory"
    if "worker process has died" not in text and "node" in text and ("died" in text or "dead" in text):
        return "its node is gone"
    return "its process was killed" if "Actor" in type(answer).__name__ else text[-200:]
