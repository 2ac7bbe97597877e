"""Where folds run: here, one after the other."""

import time

import keras

from digit_recognizer.digits import Dataset
from digit_recognizer.folds import Fold
from digit_recognizer.progress import Progress, result
from digit_recognizer.recipes import Recipe
from digit_recognizer.run import Run
from digit_recognizer.training import train_fold


def train_folds(
    recipe: Recipe, dataset: Dataset, folds: list[Fold], run: Run, deadline: float = float("inf")
) -> list[Fold]:
    """Trains those of `folds` that are not finished, each in its folder of the run directory.

    No epoch is begun that would not end before `deadline` (seconds, as time.monotonic counts them), judged
    by the longest so far. Returns the folds that are unfinished for that reason.
    """
    finished = [fold for fold in folds if run.is_finished(fold.name)]
    unfinished = [fold for fold in folds if fold not in finished]
    for fold in finished:  # trains nothing
        print(result(fold, train_fold(recipe, dataset, fold, run.folder / fold.name)) + ", finished before")
    progress, clock = Progress(recipe, unfinished), Clock(deadline)
    try:
        while unfinished:
            fold = unfinished[0]
            clock.check()
            progress.fold_ended(train_fold(recipe, dataset, fold, run.folder / fold.name, [progress, clock]))
            unfinished = unfinished[1:]
    except OutOfTimeError:
        return unfinished
    finally:
        progress.close()
    return []


class OutOfTimeError(Exception):
    """There is no time for another epoch."""


class Clock(keras.callbacks.Callback):
    """Ends training, with its state saved, while there is still time to."""

    # of the longest epoch so far: a busy machine, and predicting and writing at the end of a fold
    _MARGIN = 1.5

    def __init__(self, deadline: float):
        """`deadline` is in seconds of time.monotonic."""
        super().__init__()
        self.deadline, self.longest = deadline, 0.0

    def check(self) -> None:
        """Raises OutOfTimeError unless there is time for another epoch."""
        if time.monotonic() + self._MARGIN * self.longest > self.deadline:
            raise OutOfTimeError

    def on_epoch_begin(self, epoch, logs=None):
        """Called by Keras."""
        self.began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        """Called by Keras, after the checkpoint."""
        self.longest = max(self.longest, time.monotonic() - self.began)
        self.check()
