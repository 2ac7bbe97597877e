"""Gives the members of a run to the workers of a pool, and writes what comes back into the run directory."""

import time
from dataclasses import replace
from typing import Any

from digit_recognizer.data.folds import Member
from digit_recognizer.data.plan import Plan
from digit_recognizer.errors import UserError
from digit_recognizer.files import atomic
from digit_recognizer.training.display import MembersDisplay, describe, say
from digit_recognizer.training.pool import MOST_LOSSES, Pool, RemoteWorker, reason
from digit_recognizer.training.worker import Job

_BY_CHANCE = 2  # workers that a member may lose in a row on a good machine


def train_members(
    pool: Pool, plan: Plan, members: list[Member], deadline: float, tensorboard: bool = False
) -> bool:
    """Trains the `members` that are not finished, several at once; needs `Pool.session_facts`.

    Returns False if there was no time for all of them. Raises UserError for a member whose worker is lost again
    and again, once the others are finished.
    """
    for member in filter(plan.is_finished, members):
        (plan.folder(member) / "state.npz").unlink(missing_ok=True)  # if killed while finishing
        print(f"{describe(member, plan.metrics(member))}, finished before")
    unfinished = [member for member in members if not plan.is_finished(member)]
    display = MembersDisplay(plan.recipe, unfinished, pool.size)
    try:
        return _Dispatch(pool, plan, unfinished, deadline, tensorboard, display).run()
    finally:
        display.close()


class _Dispatch:
    """The members of one run on the workers of a pool."""

    def __init__(self, pool, plan, members, deadline, tensorboard, display):
        self.pool, self.plan, self.deadline, self.tensorboard = pool, plan, deadline, tensorboard
        self.display, self.waiting = display, list(members)
        self.losses = dict.fromkeys((member.index for member in members), 0)  # since its last epoch
        self.in_time, self.gave_up = True, ""  # why a member was given up
        recipe = plan.recipe  # auto is the same format on all machines, whatever each has instructions for
        dtype = pool.facts["compute_dtype"] if recipe.precision == "auto" else recipe.precision
        self.recipe = replace(recipe, precision=dtype)

    def run(self) -> bool:
        while self.waiting or any(worker.member for worker in self.pool.workers):
            if self.waiting and time.monotonic() > self.deadline:
                self.in_time = False
            if not self.in_time:
                self.waiting.clear()
            busy = sum(worker.member is not None for worker in self.pool.workers)
            self.pool.fill(busy + len(self.waiting))
            for worker in self.pool.workers:
                if worker.pending is None and worker.member is None:
                    self._assign(worker)
            for worker, answer in self.pool.answers():
                self._take(worker, answer)
        if self.gave_up:
            raise UserError(self.gave_up)
        return self.in_time

    def _assign(self, worker: RemoteWorker) -> None:
        """Gives a worker the first member that is for it.

        One that has lost several workers waits for a worker that has trained an epoch, where there is any: a
        machine on which all fail would be free for it again and again.
        """
        careful = not worker.proven and any(each.proven for each in self.pool.workers)
        fitting = [each for each in self.waiting if not careful or self.losses[each.index] < _BY_CHANCE]
        if not fitting:
            return
        member, plan = fitting[0], self.plan
        self.waiting.remove(member)
        worker.member = member
        paths = [plan.folder(member) / name for name in ("state.npz", "history.csv")]
        files = {f"{member.name}/{path.name}": path.read_bytes() for path in paths if path.exists()}
        seconds = self.deadline - time.monotonic()
        job = Job(self.recipe, member, plan.identity, files, seconds, self.tensorboard)
        worker.pending = worker.host.train.remote(job, self.pool.dataset)

    def _take(self, worker: RemoteWorker, answer: Any) -> None:
        """Does what a worker's answer asks for."""
        member = worker.member
        if member is None:  # it has started, or not
            self.pool.end_start(worker, answer)
            return
        if isinstance(answer, Exception) or answer.kind == "failed":
            self._lose(worker, answer)
            return
        if answer.kind == "wrong":
            raise UserError(f"{self.plan.run.folder}/{answer.text}")
        if answer.text:
            say(answer.text)
        self._write(answer.files)
        if answer.kind == "epoch":
            self.losses[member.index], worker.proven = 0, True
            self.display.end_epoch(member, answer.row)
            worker.pending = worker.host.next.remote()
            return
        worker.member = None
        if answer.kind == "end":
            (self.plan.folder(member) / "state.npz").unlink(missing_ok=True)
            self.display.end_member(member, self.plan.metrics(member))
        else:
            self.in_time = False

    def _lose(self, worker: RemoteWorker, answer: Any) -> None:
        """Puts the member of a lost worker first in the queue, or gives it up; the others go on.

        Raises UserError where no worker trains anything.
        """
        member, why = worker.member, reason(answer)
        self.pool.drop(worker)
        self.losses[member.index] += 1
        if self.losses[member.index] < MOST_LOSSES:
            say(f"{member.name}: its worker was lost ({why}); it goes on from its last epoch")
            self.waiting.insert(0, member)
            return
        self.gave_up = (
            f"{self.plan.folder(member)}: {MOST_LOSSES} workers in a row were lost before they finished an epoch "
            f"of it; the last one: {why}; every finished epoch is kept"
        )
        if not any(each.proven for each in self.pool.workers):
            raise UserError(self.gave_up)
        say(f"{member.name}: given up, its workers are lost again and again")

    def _write(self, files: dict[str, bytes]) -> None:
        """Writes files into the run directory, metrics.json last."""
        for name in sorted(files, key=lambda name: name.endswith("metrics.json")):
            path = self.plan.run.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as file:
                file.write_bytes(files[name])
