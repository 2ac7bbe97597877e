"""The progress of a training: bars on a terminal, a line for each epoch elsewhere.

Keras is not imported here: the process that trains on Ray does not have it.
"""

import sys
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from tqdm import tqdm

from digit_recognizer.data import paths
from digit_recognizer.recipes import Recipe
from digit_recognizer.runs.member import Member, describe_gap

_LONG = 30 * 60  # seconds of a training, from which on a line says how to make it shorter


def print_line(text: str) -> None:
    """Prints a line, above the bars if there are any."""
    tqdm.write(text)
    sys.stdout.flush()


def describe(member: Member, metrics: dict[str, Any]) -> str:
    """Returns a line with a member's score; `metrics` are the contents of metrics.json."""
    return (
        f"{member.name}: accuracy {metrics['accuracy']:.5f}, {metrics['errors']} of {metrics['rows']} rows wrong, "
        f"epoch {metrics['best_epoch']} of {metrics['epochs']}"
    )


class Progress:
    """Shows the training of a run's members, one after the other or several at once."""

    def __init__(self, recipe: Recipe, members: Sequence[Member], at_once: int = 1, finished: int = 0):
        """Shows where the training continues.

        Args:
            recipe: of the run.
            members: the ones to train.
            at_once: how many of them train at the same time.
            finished: members that were finished before.
        """
        self.recipe, self.members = recipe, members
        self.at_once = max(1, min(at_once, len(members)))
        self.on_terminal = paths.on_terminal()
        self._epochs_left = {member.name: recipe.epochs - len(member.history()) for member in members}
        self._val_accuracies: dict[str, str] = {}  # of the members in training
        self._epochs, self._seconds = 0, 0.0  # of this session
        self._predictions: list[float] = []  # seconds of the members that ended in this session
        self._warned: set[str] = set()  # names of members
        self._all_epochs = (finished + len(members)) * recipe.epochs
        self._bar = tqdm(
            total=self._all_epochs,
            initial=self._all_epochs - sum(self._epochs_left.values()),
            desc="all folds",
            unit="epoch",
            disable=not self.on_terminal,
        )
        for member in members:
            if (left := self._epochs_left[member.name]) < recipe.epochs:
                print_line(f"{member.name} continues after epoch {recipe.epochs - left} of {recipe.epochs}")

    def show(self, member: Member, row: dict[str, Any] | None) -> None:
        """Shows that an epoch has ended, or if `row` is None, that the member predicts."""
        if row is None:
            self.begin_prediction(member)
        else:
            self.end_epoch(member, row)

    def end_epoch(self, member: Member, row: dict[str, Any]) -> None:
        """Shows that an epoch has ended; `row` is its row of history.csv."""
        self._epochs += 1
        self._seconds += row["seconds"]
        self._epochs_left[member.name] = self.recipe.epochs - row["epoch"]
        left = self._seconds_left()
        if self.on_terminal:
            self._val_accuracies[member.name] = f"{row['val_accuracy']:.4f}"
            self._update_bar()
        else:
            print_line(
                f"{member.name} epoch {row['epoch']}/{self.recipe.epochs}: loss {row['loss']:.4f}, "
                f"accuracy {row['accuracy']:.4f}, val_loss {row['val_loss']:.4f}, "
                f"val_accuracy {row['val_accuracy']:.4f}, learning rate {row['learning_rate']:.2g}, "
                f"{row['seconds']:.1f} s, about {tqdm.format_interval(left)} left"
            )
        gap = describe_gap(row["accuracy"], row["val_accuracy"])
        if gap and member.name not in self._warned:
            self._warned.add(member.name)
            print_line(f"{member.name}: {gap}")
        if self._epochs == 1:
            print_line(self._expected_end(left))

    def _seconds_left(self) -> float:
        """Returns the expected seconds of the epochs and predictions to come.

        A member's predictions take about as long as an epoch, until they have been measured.
        """
        epoch = self._seconds / self._epochs
        prediction = sum(self._predictions) / len(self._predictions) if self._predictions else epoch
        members = len(self.members) - len(self._predictions)
        return (sum(self._epochs_left.values()) * epoch + members * prediction) / self.at_once

    def begin_prediction(self, member: Member) -> None:
        """Shows that a member is trained and predicts."""
        self._epochs_left[member.name] = 0
        self._val_accuracies[member.name] = "predicts"
        self._update_bar()
        if not self.on_terminal:
            print_line(f"{member.name} predicts the validation rows and the test rows")

    def _expected_end(self, seconds: float) -> str:
        """Returns a line with the time at which a training ends that takes this many seconds more."""
        end = datetime.now() + timedelta(seconds=seconds)
        form = "%H:%M" if seconds < 86_400 else "%A %d %B, %H:%M"
        epochs = self.recipe.epochs
        line = (
            f"{self.recipe.name}, {len(self.members)} folds of {epochs} epochs: the training ends at about {end:{form}}"
        )
        if seconds > _LONG:
            line += f"; for less, take --time-budget 30m, or --epochs {max(1, epochs // 4)} in another --output"
        return line

    def end_member(self, member: Member, metrics: dict[str, Any]) -> None:
        """Shows the score of a member that has just ended; `metrics` are the contents of metrics.json."""
        self._predictions.append(max(0.0, metrics["seconds"] - float(member.history()["seconds"].sum())))
        self._val_accuracies.pop(member.name, None)
        self._update_bar()
        print_line(describe(member, metrics))

    def _update_bar(self) -> None:
        self._bar.n = self._all_epochs - sum(self._epochs_left.values())
        self._bar.set_postfix(self._val_accuracies)

    def close(self) -> None:
        """Removes the bars."""
        self._bar.close()
