"""Trains members one after the other in this process."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from digit_recognizer.data.digits import Dataset
from digit_recognizer.runs.member import Member
from digit_recognizer.runs.plan import Plan
from digit_recognizer.training import backend
from digit_recognizer.training.progress import Progress


class LocalExecutor:
    """Trains members one after the other in this process. `RayExecutor` has the same methods."""

    def __init__(self, dataset: Dataset, threads: int, deadline: float, tensorboard: bool):
        """Starts the backend with this number of threads.

        `deadline` is in seconds of time.monotonic: no epoch begins that would not end by then.
        """
        backend.start(threads)
        from digit_recognizer.training.callbacks import TimeBudget  # with Keras

        self.threads, self.dataset, self.tensorboard = threads, dataset, tensorboard
        self.budget = TimeBudget(deadline)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        """Leaves the backend as it is: a process can start it only once."""

    def facts(self, precision: str) -> dict[str, Any]:
        """Returns what recipe.json records of the session."""
        return backend.session_facts(self.threads, precision)

    def train(self, plan: Plan, members: Sequence[Member]) -> bool:
        """Trains unfinished members; returns False if there was no time for all of them."""
        from digit_recognizer.training.batches import steps_of_epoch
        from digit_recognizer.training.callbacks import BatchBar, OutOfTimeError, tensorboard_log
        from digit_recognizer.training.fallback import FallbackTrainer

        progress = Progress(plan.recipe, members, finished=plan.finished)
        trainer = FallbackTrainer(plan.recipe, plan.run.fallback(), plan.run.record_fallback)
        try:
            for member in members:
                self.budget.check()
                callbacks = [self.budget]
                if progress.on_terminal:
                    rows = len(member.train_rows) + self.dataset.added_rows
                    callbacks.append(BatchBar(member.name, steps_of_epoch(plan.recipe, rows)))
                if self.tensorboard:
                    callbacks.append(tensorboard_log(plan.run.tensorboard / member.name))
                metrics = trainer.train(member, self.dataset, plan.identity, callbacks, partial(progress.show, member))
                progress.end_member(member, metrics)
        except OutOfTimeError:
            return False
        finally:
            progress.close()
        return True
