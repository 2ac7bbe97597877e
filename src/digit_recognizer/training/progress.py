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
    score = f"accuracy {metrics['accuracy']:.5f}, {metrics['errors']} of {metrics['rows']} rows wrong"
    return f"{member.name}: {score}, epoch {metrics['best_epoch']} of {metrics['epochs']}"


class Progress:
    """Shows the training of a run's members, one after the other or several at once."""

    def __init__(self, recipe: Recipe, members: Sequence[Member], at_once: int = 1, finished: int = 0):
        """Shows where `members` continue, `at_once` of them at a time; `finished` others were finished before."""
        self.recipe, self.members = recipe, members
        self.at_once = max(1, min(at_once, len(members)))
        self.on_terminal = paths.on_terminal()
        self._epochs_left = {member.name: recipe.epochs - len(member.history()) for member in members}
        self._val_accuracies: dict[str, str] = {}  # of the members in training
        self._epochs, self._seconds = 0, 0.0  # of this session
        self._predictions: list[float] = []  # seconds of the members that ended in this session
        self._warned: set[str] = set()  # names of members
        self._all_epochs = (finished + len(members)) * recipe.epochs
        done = self._all_epochs - sum(self._epochs_left.values())
        options = {"total": self._all_epochs, "initial": done, "unit": "epoch", "disable": not self.on_terminal}
        self._bar = tqdm(desc="all folds", **options)
        for member in members:
            if (left := self._epochs_left[member.name]) < recipe.epochs:
                print_line(f"{member.name} continues after epoch {recipe.epochs - left} of {recipe.epochs}")

    def show(self, member: Member, row: dict[str, Any] | None) -> None:
        """Shows that an epoch has ended, with this `row` of history.csv, or if it is None, that the member predicts."""
        self._epochs_left[member.name] = self.recipe.epochs - row["epoch"] if row else 0
        self._val_accuracies[member.name] = f"{row['val_accuracy']:.4f}" if row else "predicts"
        self._update_bar()
        if row:
            self._end_epoch(member, row)
        elif not self.on_terminal:
            print_line(f"{member.name} predicts the validation rows and the test rows")

    def _end_epoch(self, member: Member, row: dict[str, Any]) -> None:
        self._epochs += 1
        self._seconds += row["seconds"]
        left = self._seconds_left()
        if not self.on_terminal:
            numbers = [f"{name} {row[name]:.4f}" for name in ("loss", "accuracy", "val_loss", "val_accuracy")]
            numbers += [f"learning rate {row['learning_rate']:.2g}", f"{row['seconds']:.1f} s"]
            numbers += [f"about {tqdm.format_interval(left)} left"]
            print_line(f"{member.name} epoch {row['epoch']}/{self.recipe.epochs}: {', '.join(numbers)}")
        gap = describe_gap(row["accuracy"], row["val_accuracy"])
        if gap and member.name not in self._warned:
            self._warned.add(member.name)
            print_line(f"{member.name}: {gap}")
        if self._epochs == 1:
            end = datetime.now() + timedelta(seconds=left)
            form, epochs = "%H:%M" if left < 86_400 else "%A %d %B, %H:%M", self.recipe.epochs
            what = f"{self.recipe.name}, {len(self.members)} folds of {epochs} epochs"
            advice = f"; for less, take --time-budget 30m, or --epochs {max(1, epochs // 4)} in another --output"
            print_line(f"{what}: the training ends at about {end:{form}}" + advice * (left > _LONG))

    def _seconds_left(self) -> float:
        """Returns the expected seconds to come; predictions count as an epoch until they have been measured."""
        epoch = self._seconds / self._epochs
        prediction = sum(self._predictions) / len(self._predictions) if self._predictions else epoch
        members = len(self.members) - len(self._predictions)
        return (sum(self._epochs_left.values()) * epoch + members * prediction) / self.at_once

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
        """Closes the bar."""
        self._bar.close()
