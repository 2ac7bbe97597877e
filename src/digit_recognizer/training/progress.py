"""How far a training is: bars on a terminal, plain lines elsewhere."""

import time
from typing import Any

import keras
from tqdm import tqdm
from tqdm.keras import TqdmCallback

from digit_recognizer.data import places
from digit_recognizer.data.folds import Member
from digit_recognizer.recipes import Recipe
from digit_recognizer.training.display import describe, epoch_line, expected_end, say


class Progress:
    """Shows the training of members, one after the other.

    On a terminal one bar is for the members, one for the epochs and one for the batches. In a log file or a
    notebook's cell each epoch is a line.
    """

    def __init__(self, recipe: Recipe, members: list[Member]):
        """`members` are the ones to train, in this order."""
        self.recipe, self.members = recipe, members
        self.lines, self.expected_end = EpochLines(recipe, members), ExpectedEnd(recipe, members)
        self.bars: TqdmCallback | None = None
        self.on_terminal = places.on_terminal()
        self.member_bar = tqdm(total=len(members), desc="all", unit="fold", disable=not self.on_terminal)

    def callbacks(self, member: Member) -> list[keras.callbacks.Callback]:
        """Returns the callbacks that show the training of `member`, the next one."""
        if not self.on_terminal:
            self.lines.member = member
            return [self.lines, self.expected_end]
        self.bars = TqdmCallback(epochs=self.recipe.epochs, tqdm_class=tqdm, desc=member.name, leave=False)
        return [self.bars, self.expected_end]

    def end_member(self, member: Member, metrics: dict[str, Any]) -> None:
        """Tells what a member that has just ended scored; `metrics` are the contents of metrics.json."""
        say(describe(member, metrics))
        self.lines.members_ended += 1
        self.member_bar.update()

    def close(self) -> None:
        """Leaves the terminal to what comes next."""
        if self.bars:
            self.bars.on_train_end()
        self.member_bar.close()


class EpochLines(keras.callbacks.Callback):
    """Prints a line for each epoch, with its scores and how long the rest takes at most."""

    def __init__(self, recipe: Recipe, members: list[Member]):
        """`members` are the ones to train; `member` is the one in training, `members_ended` how many have ended."""
        super().__init__()
        self.recipe, self.members = recipe, members
        self.member, self.members_ended = members[0] if members else None, 0
        self._epochs, self._seconds = 0, 0.0

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the time and the learning rate."""
        self._began = time.perf_counter()
        self._learning_rate = float(self.model.optimizer.learning_rate)

    def on_epoch_end(self, epoch, logs=None):
        """Prints the line."""
        seconds = time.perf_counter() - self._began
        self._epochs += 1
        self._seconds += seconds
        left = (len(self.members) - self.members_ended) * self.recipe.epochs - epoch - 1
        row = {**logs, "epoch": epoch + 1, "learning_rate": self._learning_rate, "seconds": seconds}
        line = epoch_line(self.member, self.recipe.epochs, row, left * self._seconds / self._epochs)
        print(line, flush=True)


class ExpectedEnd(keras.callbacks.Callback):
    """Tells once, after the first epoch of a session, when the training ends, and how to have less of it."""

    def __init__(self, recipe: Recipe, members: list[Member]):
        """`members` are the ones to train."""
        super().__init__()
        self.recipe, self.members, self._told = recipe, members, False

    def on_epoch_begin(self, epoch, logs=None):
        """Notes the time."""
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        """Prints when the last epoch ends if all take as long as this one."""
        if self._told:
            return
        self._told = True
        epochs = len(self.members) * self.recipe.epochs - epoch - 1
        seconds = epochs * (time.monotonic() - self._began)
        say(expected_end(self.recipe, len(self.members), seconds))
