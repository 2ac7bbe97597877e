"""Trains members one after the other in this process; if an accelerator fails, in a simpler way."""

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, get_args

from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import UserError
from digit_recognizer.recipes import Recipe
from digit_recognizer.runs.member import Member
from digit_recognizer.runs.plan import Plan
from digit_recognizer.training import backend
from digit_recognizer.training.batches import steps_of_epoch
from digit_recognizer.training.callbacks import BatchBar, OutOfTimeError, TimeBudget, tensorboard_log
from digit_recognizer.training.fold import FoldTrainer
from digit_recognizer.training.progress import Progress, print_line

_SMALLEST_BATCH = 256  # rows of a batch in prediction
_COMPILED = {"epoch": "an epoch in one XLA call", "step": "a step in one XLA call", "none": "no XLA"}


@dataclass(frozen=True)
class Execution:
    """How a device trains and predicts: the entry `fallback` of recipe.json."""

    device: str
    xla_scope: backend.XlaScope
    prediction_batch: int  # rows

    def simpler(self, error: Exception) -> "Execution | None":
        """Returns the next simpler way after `error`, or None. Needs `backend.start`.

        If memory is short, that is half the prediction batch. Otherwise XLA compiles a step instead of an epoch, then
        nothing; JAX always compiles. A processor has no simpler way.
        """
        if backend.find_accelerator() is None:
            return None
        is_memory = re.search("resource_?exhausted|out of memory|MemoryError", f"{type(error).__name__}: {error}", re.I)
        if is_memory and self.prediction_batch > _SMALLEST_BATCH:
            return replace(self, prediction_batch=self.prediction_batch // 2)
        if self.xla_scope == "epoch":
            return replace(self, xla_scope="step")
        return replace(self, xla_scope="none") if (self.xla_scope, backend.name()) == ("step", "tensorflow") else None

    def __str__(self) -> str:
        return f"{_COMPILED[self.xla_scope]} and predictions of {self.prediction_batch} rows"


class FallbackTrainer:
    """Trains members one after the other, with one FoldTrainer as long as it fits.

    If an accelerator fails, because of its compiler, its memory or an operation that it does not have, the member
    continues from its last saved epoch with the next simpler `Execution`, which the members after it use too.
    """

    def __init__(self, recipe: Recipe, recorded: dict[str, Any] | None, record: Callable[[dict[str, Any]], None]):
        """Takes the entry `fallback` of recipe.json, which counts on the same device; `record` writes a new one."""
        device, batches = backend.device_name(), [_SMALLEST_BATCH << power for power in range(4)]
        known = (Execution(device, scope, batch) for batch in batches for scope in get_args(backend.XlaScope))
        self._execution = next((execution for execution in known if asdict(execution) == recorded), None)
        self.recipe, self._record = recipe, record
        self._trainer: FoldTrainer | None = None

    def train(self, member: Member, dataset: Dataset, *arguments: Any) -> dict[str, Any]:
        """Trains a member as `FoldTrainer.train`, with the same arguments."""
        while True:
            try:
                return self._train(member, dataset, *arguments)
            except (UserError, OutOfTimeError, OSError):
                raise
            except Exception as error:  # TensorFlow's and JAX's have no common class
                quickest = Execution(backend.device_name(), "epoch", backend.prediction_batch_size())
                execution = self._execution or quickest
                simpler = execution.simpler(error)
                if simpler is None:
                    raise
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                print_line(f"{member.name}: {backend.card_name()} fails with {execution} ({reason}): now {simpler}")
            self._execution = simpler
            self._record(asdict(simpler))

    def _train(self, member: Member, dataset: Dataset, *arguments: Any) -> dict[str, Any]:
        trainer, self._trainer = self._trainer, None  # after an exception a trainer cannot be used again
        rows = len(member.train_rows) + dataset.added_rows
        if trainer is None or not trainer.fits(rows):
            way = (self._execution.xla_scope, self._execution.prediction_batch) if self._execution else ()
            trainer = FoldTrainer(self.recipe, rows, *way)
        metrics = trainer.train(member, dataset, *arguments)
        self._trainer = trainer
        return metrics


class LocalExecutor:
    """Trains members one after the other in this process. `RayExecutor` has the same methods."""

    def __init__(self, dataset: Dataset, threads: int, deadline: float, tensorboard: bool):
        """Takes the threads of the started backend; no epoch begins that would not end by the deadline."""
        self.threads, self.dataset, self.tensorboard = threads, dataset, tensorboard
        self.budget = TimeBudget(deadline)

    def facts(self, precision: str) -> dict[str, Any]:
        """Returns what recipe.json records of the session."""
        return backend.session_facts(self.threads, precision)

    def train(self, plan: Plan, members: Sequence[Member]) -> bool:
        """Trains unfinished members; returns False if there was no time for all of them."""
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
