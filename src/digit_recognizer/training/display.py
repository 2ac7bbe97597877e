"""What is told of a training: lines for epochs and members, and the display of members that train at once."""

import sys
from datetime import datetime, timedelta
from typing import Any

from tqdm import tqdm

from digit_recognizer.data import places
from digit_recognizer.data.folds import Member
from digit_recognizer.recipes import Recipe

_LONG = 30 * 60  # seconds


def say(text: str) -> None:
    """Prints a line, above the bars where there are any."""
    tqdm.write(text)
    sys.stdout.flush()


def describe(member: Member, metrics: dict[str, Any]) -> str:
    """Returns a line that tells what a member scored; `metrics` are the contents of metrics.json."""
    return (
        f"{member.name}: accuracy {metrics['accuracy']:.5f}, {metrics['errors']} of {metrics['rows']} rows wrong, "
        f"epoch {metrics['best_epoch']} of {metrics['epochs']}"
    )


def epoch_line(member: Member, epochs: int, row: dict[str, Any], left: float) -> str:
    """Returns a line that tells of an epoch.

    Args:
        member: in training.
        epochs: of the recipe.
        row: the epoch's quantities, named as in history.csv.
        left: seconds that the rest takes at most.
    """
    return (
        f"{member.name} epoch {row['epoch']}/{epochs}: loss {row['loss']:.4f}, "
        f"accuracy {row['accuracy']:.4f}, val_loss {row['val_loss']:.4f}, "
        f"val_accuracy {row['val_accuracy']:.4f}, learning rate {row['learning_rate']:.2g}, "
        f"{row['seconds']:.1f} s, at most {tqdm.format_interval(left)} left"
    )


def expected_end(recipe: Recipe, members: int, seconds: float) -> str:
    """Returns a line that tells when a training ends that takes this many seconds more."""
    end = datetime.now() + timedelta(seconds=seconds)
    form = "%H:%M" if seconds < 86_400 else "%A %d %B, %H:%M"
    line = f"{recipe.name}, {members} folds of {recipe.epochs} epochs: the training ends at about {end:{form}} at the latest"
    if seconds > _LONG:
        line += f"; for less, take --time-budget 30m, or --epochs {max(1, recipe.epochs // 4)} in another --output"
    return line


class MembersDisplay:
    """Shows members that train at once: on a terminal a bar for all epochs, elsewhere a line for each epoch."""

    def __init__(self, recipe: Recipe, members: list[Member], workers: int):
        """`members` are the ones to train, `workers` of them at once."""
        self.recipe, self.members, self.workers = recipe, members, max(1, min(workers, len(members)))
        self._epochs_left = {member.name: recipe.epochs for member in members}
        self._rates: dict[str, str] = {}  # of the members in training
        self._epochs, self._seconds = 0, 0.0
        self._on_terminal = places.on_terminal()
        total = len(members) * recipe.epochs
        self._bar = tqdm(total=total, desc="all", unit="epoch", disable=not self._on_terminal)

    def end_epoch(self, member: Member, row: dict[str, Any]) -> None:
        """Tells of an epoch; `row` has its quantities, named as in history.csv."""
        self._epochs += 1
        self._seconds += row["seconds"]
        self._epochs_left[member.name] = self.recipe.epochs - row["epoch"]
        left = sum(self._epochs_left.values()) * self._seconds / self._epochs / self.workers
        if self._on_terminal:
            self._rates[member.name] = f"{row['val_accuracy']:.4f}"
            self._show_bar()
        else:
            say(epoch_line(member, self.recipe.epochs, row, left))
        if self._epochs == 1:
            say(expected_end(self.recipe, len(self.members), left))

    def end_member(self, member: Member, metrics: dict[str, Any]) -> None:
        """Tells what a member that has just ended scored; `metrics` are the contents of metrics.json."""
        self._epochs_left[member.name] = 0
        self._rates.pop(member.name, None)
        self._show_bar()
        say(describe(member, metrics))

    def _show_bar(self) -> None:
        self._bar.n = self._bar.total - sum(self._epochs_left.values())
        self._bar.set_postfix(self._rates)

    def close(self) -> None:
        """Leaves the terminal to what comes next."""
        self._bar.close()
