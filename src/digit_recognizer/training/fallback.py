"""Trains members one after the other; on an accelerator that fails, in a simpler way."""

from collections.abc import Callable
from typing import Any

from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import UserError
from digit_recognizer.recipes import Recipe
from digit_recognizer.runs.member import Member
from digit_recognizer.training import backend
from digit_recognizer.training.callbacks import OutOfTimeError
from digit_recognizer.training.execution import Execution, recorded_execution
from digit_recognizer.training.fold import FoldTrainer
from digit_recognizer.training.progress import print_line


class FallbackTrainer:
    """Trains members one after the other, with one FoldTrainer as long as it fits.

    If an accelerator fails, because of its compiler, its memory or an operation that it does not have, the member
    starts again with the next simpler `Execution`, and the members after it begin with that.
    """

    def __init__(self, recipe: Recipe, recorded: Any, record: Callable[[dict[str, Any]], None]):
        """Builds nothing yet.

        Args:
            recipe: of the members.
            recorded: the entry `fallback` of the run's recipe.json, or None.
            record: called with a new entry.
        """
        self.recipe, self._record = recipe, record
        self._execution = recorded_execution(recorded)
        self._trainer: FoldTrainer | None = None

    def train(self, member: Member, dataset: Dataset, *arguments: Any) -> dict[str, Any]:
        """Trains a member as `FoldTrainer.train`, with the same arguments."""
        while True:
            try:
                return self._train(member, dataset, *arguments)
            except (UserError, OutOfTimeError, OSError):
                raise
            except Exception as error:  # TensorFlow's and JAX's have no common class
                execution = self._execution or Execution("epoch", backend.prediction_batch_size())
                simpler = execution.simpler(error)
                if simpler is None:
                    raise
                reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
                print_line(f"{member.name}: {backend.card_name()} fails with {execution} ({reason}): now {simpler}")
            self._execution = simpler
            self._record(simpler.to_json())

    def _train(self, member: Member, dataset: Dataset, *arguments: Any) -> dict[str, Any]:
        trainer, self._trainer = self._trainer, None  # after an exception a trainer cannot be used again
        rows = len(member.train_rows) + dataset.added_rows
        if trainer is None or not trainer.fits(rows):
            trainer = FoldTrainer(self.recipe, rows, self._execution)
        metrics = trainer.train(member, dataset, *arguments)
        self._trainer = trainer
        return metrics
