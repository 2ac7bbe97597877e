"""How far a training is: bars on a terminal, plain lines elsewhere."""

import sys
import time
from typing import Any

import keras
from tqdm import tqdm

from digit_recognizer import source
from digit_recognizer.folds import Fold
from digit_recognizer.recipes import Recipe


def result(fold: Fold, metrics: dict[str, Any]) -> str:
    """A line that tells what a fold came to; `metrics` are those of metrics.json."""
    return (
        f"{fold.name}: accuracy {metrics['accuracy']:.5f}, {metrics['errors']} of {metrics['rows']} rows wrong, "
        f"best epoch {metrics['best_epoch']} of {metrics['epochs']}"
    )


class Progress(keras.callbacks.Callback):
    """Watches the training of folds, one after the other.

    On a terminal a bar over the folds and one over the epochs move within an epoch, too; where there is none
    (a log file, a notebook cell) each epoch is a line.
    """

    def __init__(self, recipe: Recipe, folds: list[Fold]):
        """`folds` are those to train, in this order."""
        super().__init__()
        self.recipe, self.folds = recipe, folds
        self.lines = not source.on_terminal()
        self.ended = 0  # folds
        self.epochs_seen, self.seconds_seen = 0, 0.0
        form = "{desc} |{bar}| {n:.1f}/{total} {unit} [{elapsed}<{remaining}]{postfix}"
        self.options = {"smoothing": 0, "disable": self.lines, "bar_format": form}
        self.fold_bar = tqdm(total=len(folds), desc="all", unit="folds", position=0, **self.options)
        self.epoch_bar = None

    def on_epoch_begin(self, epoch, logs=None):
        """Called by Keras."""
        if self.epoch_bar is None:
            self._begin_fold(epoch)
        self.began = time.perf_counter()
        self.learning_rate = float(self.model.optimizer.learning_rate)
        self._move(epoch)

    def on_train_batch_end(self, batch, logs=None):
        """Called by Keras."""
        part = 1 / self.params["steps"]  # of an epoch
        self.epoch_bar.update(min(part, self.epoch_bar.total - self.epoch_bar.n))
        self.fold_bar.update(min(part / self.recipe.epochs, self.fold_bar.total - self.fold_bar.n))

    def on_epoch_end(self, epoch, logs=None):
        """Called by Keras."""
        seconds = time.perf_counter() - self.began
        self.epochs_seen += 1
        self.seconds_seen += seconds
        self._move(epoch + 1)
        told = (
            f"loss {logs['loss']:.4f}, accuracy {logs['accuracy']:.4f}, val_loss {logs['val_loss']:.4f}, "
            f"val_accuracy {logs['val_accuracy']:.4f}, learning rate {self.learning_rate:.2g}"
        )
        self.epoch_bar.set_postfix_str(told)
        if self.lines:
            left = (len(self.folds) - self.ended) * self.recipe.epochs - epoch - 1
            most = tqdm.format_interval(left * self.seconds_seen / self.epochs_seen)
            epochs = f"epoch {epoch + 1}/{self.recipe.epochs}"
            print(
                f"{self.folds[self.ended].name} {epochs}: {told}, {seconds:.1f} s, at most {most} left",
                flush=True,
            )

    def fold_ended(self, metrics: dict[str, Any]) -> None:
        """Tells the result of the fold that has just ended; `metrics` are those of metrics.json."""
        if self.epoch_bar is not None:
            self.epoch_bar.close()
            self.epoch_bar = None
        tqdm.write(result(self.folds[self.ended], metrics))
        sys.stdout.flush()
        self.ended += 1
        self._move(0)

    def close(self) -> None:
        """Leaves the terminal to what comes next."""
        for bar in (self.epoch_bar, self.fold_bar):
            if bar is not None:
                bar.close()

    def _begin_fold(self, done: int) -> None:
        """Shows the bar of the current fold, of which so many epochs are done; what is done takes no time."""
        self.epoch_bar = tqdm(
            total=self.recipe.epochs,
            initial=done,
            desc=self.folds[self.ended].name,
            unit="epochs",
            position=1,
            leave=False,
            **self.options,
        )
        if not self.epochs_seen:
            self.fold_bar.initial = self.ended + done / self.recipe.epochs

    def _move(self, epochs: int) -> None:
        """Sets the bars to so many epochs of the current fold: batches and early stops do not add up exactly."""
        if self.epoch_bar is not None:
            self.epoch_bar.n = epochs
            self.epoch_bar.refresh()
        self.fold_bar.n = self.ended + epochs / self.recipe.epochs
        self.fold_bar.refresh()
