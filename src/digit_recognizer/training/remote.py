"""What runs on Ray: the actor that reads and writes the run directory, and the task that trains a member.

The task may be on another machine. It works in a temporary folder and exchanges files with the actor as bytes.
"""

import io
import os
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import UserError, atomic
from digit_recognizer.recipes import Recipe
from digit_recognizer.runs.member import FINISHED_FILES, Member
from digit_recognizer.training import backend


@dataclass(frozen=True)
class Job:
    """What a task needs to train a member, beside the member and the data set."""

    recipe: Recipe
    identity: str  # of the run
    threads: int
    seconds: float  # in which epochs may begin; infinite without a time budget
    tensorboard: bool


@dataclass(frozen=True)
class EpochResult:
    """What the keeper tells about an epoch of a member."""

    name: str  # of the member
    row: dict[str, Any] | None  # of history.csv; None after the last epoch
    printed: str  # what the training printed since the last result


class Keeper:
    """The actor that reads and writes the run directory for the tasks."""

    def __init__(self, folder: str, owner: int):
        """`folder` is the run directory; `owner` is the process that holds its lock."""
        self.folder, self.owner = Path(folder), owner
        self.results: list[EpochResult] = []
        self.started: set[str] = set()  # names of members

    def state(self, name: str) -> dict[str, bytes]:
        """Returns the state files of an unfinished member, by their names."""
        self.started.add(name)
        files = [self.folder / name / file for file in ("state.npz", "history.csv")]
        return {path.name: path.read_bytes() for path in files if path.exists()}

    def save(self, result: EpochResult, files: dict[str, bytes]) -> None:
        """Writes files, by their paths in the run directory; metrics.json is written last and ends the state."""
        os.kill(self.owner, 0)  # raises ProcessLookupError if another process may have the lock
        for name in sorted(files, key=lambda name: name.endswith(FINISHED_FILES[-1])):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as file:
                file.write_bytes(files[name])
            if path.name == FINISHED_FILES[-1]:
                path.with_name("state.npz").unlink(missing_ok=True)
        self.results.append(result)

    def news(self) -> tuple[list[EpochResult], set[str]]:
        """Returns the results since the last call, and the names of the members that have started."""
        results, self.results = self.results, []
        return results, self.started


_trainer: Any = None  # of this worker process: the next member is not traced and compiled again


def train_member(keeper: Any, job: Job, member: Member, dataset: Dataset) -> dict[str, Any] | UserError | None:
    """The task: trains a member in a temporary folder from where it stopped, and sends its files to the keeper.

    Returns the metrics; None if there was no time for an epoch; the UserError if the training raised one.
    """
    global _trainer
    import ray

    backend.start(job.threads)
    from digit_recognizer.training.callbacks import OutOfTimeError, TimeBudget, tensorboard_log
    from digit_recognizer.training.fold import FoldTrainer

    deadline = time.monotonic() + job.seconds
    with tempfile.TemporaryDirectory() as name, redirect_stdout(io.StringIO()) as printed:
        run = Path(name)
        member = replace(member, folder=run / member.name)
        member.folder.mkdir()
        for file, contents in ray.get(keeper.state.remote(member.name)).items():
            (member.folder / file).write_bytes(contents)
        sent = _modification_times(run)

        def send(row: dict[str, Any] | None) -> None:
            nonlocal sent
            now = _modification_times(run)
            files = {
                str(path.relative_to(run)): path.read_bytes() for path in now if now[path] != sent.get(path)
            }
            text = printed.getvalue().replace(f"{run}/", "").strip()
            printed.seek(0)
            printed.truncate()
            sent = now
            ray.get(keeper.save.remote(EpochResult(member.name, row, text), files))

        trainer, _trainer = _trainer, None  # after an exception a trainer cannot be used again
        rows = len(member.train_rows)
        if trainer is None or trainer.recipe != job.recipe or not trainer.fits(rows):
            trainer = FoldTrainer(job.recipe, rows)
        budget = TimeBudget(deadline)
        callbacks = [budget]
        if job.tensorboard:
            callbacks.append(tensorboard_log(run / "tensorboard" / member.name))
        try:
            budget.check()
            metrics = trainer.train(member, dataset, job.identity, callbacks, send)
        except OutOfTimeError:
            return None
        except UserError as error:
            return UserError(str(error).replace(f"{run}/", ""))
        send(None)
        _trainer = trainer
    return metrics


def _modification_times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def start_worker(threads: int, precision: str) -> dict[str, Any] | UserError:
    """A task: starts the backend in a worker; returns what recipe.json records of it, or the UserError it raised."""
    backend.start(threads)
    try:
        return backend.session_facts(threads, precision)
    except UserError as error:
        return error
