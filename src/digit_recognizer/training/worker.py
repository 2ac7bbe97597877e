"""Trains members in a process of its own, and hands the files over after each epoch.

The process may be on another machine: it works in a temporary folder, and what it returns are bytes.
"""

import io
import queue
import tempfile
import threading
import time
import traceback
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from digit_recognizer.data.digits import Dataset
from digit_recognizer.data.folds import Member
from digit_recognizer.errors import UserError
from digit_recognizer.recipes import Recipe
from digit_recognizer.training import backend


@dataclass(frozen=True)
class Job:
    """A member to train, with all that its training depends on but the data set."""

    recipe: Recipe
    member: Member
    identity: str
    files: dict[str, bytes]  # of an unfinished member, by their path in the run directory
    seconds: float  # in which to begin epochs; infinite without a time budget
    tensorboard: bool


@dataclass(frozen=True)
class News:
    """What happened in a worker since it was last asked."""

    kind: str  # "epoch", "end", "out of time", "wrong" (the user's to mend) or "failed"
    files: dict[str, bytes] = field(
        default_factory=dict
    )  # the changed ones, by their path in the run directory
    row: dict[str, Any] = field(default_factory=dict)  # of an epoch, its quantities named as in history.csv
    text: str = ""  # printed by the training, or why it ended


class Worker:
    """Trains one member at a time, on a thread, so that its news can be waited for."""

    def __init__(self, folder: Path, threads: int):
        """Starts the backend with this number of threads; `folder` is for temporary files."""
        self.folder, self.threads = folder, threads
        self._news: queue.Queue[News] = queue.Queue()
        self._trainer = self._budget = None
        backend.start(threads)

    def facts(self, precision: str) -> dict[str, Any]:
        """Returns what recipe.json records of this worker; `precision` is the recipe's."""
        return backend.session_facts(self.threads, precision)

    def train(self, job: Job, dataset: Dataset) -> None:
        """Begins to train a member; `next` returns what becomes of it."""
        threading.Thread(target=self._train, args=(job, dataset), daemon=True).start()

    def next(self) -> News:
        """Returns the next news, once there are any."""
        return self._news.get()

    def _train(self, job: Job, dataset: Dataset) -> None:
        from digit_recognizer.training.callbacks import OutOfTimeError

        printed = io.StringIO()
        with tempfile.TemporaryDirectory(dir=self.folder) as name, redirect_stdout(printed):
            run = Path(name)
            try:
                self._train_in(run, job, dataset, printed)
            except OutOfTimeError:
                news = News("out of time")
            except UserError as error:
                news = News("wrong", text=str(error).replace(f"{run}/", ""))
            except BaseException:  # such as no memory on the device: another worker may have it
                news = News("failed", text=traceback.format_exc().strip().splitlines()[-1])
            else:
                return
        self._trainer = None  # its variables may be gone
        self._news.put(news)

    def _train_in(self, run: Path, job: Job, dataset: Dataset, printed: io.StringIO) -> None:
        from digit_recognizer.training.callbacks import TimeBudget, tensorboard_log
        from digit_recognizer.training.fold import FoldTrainer

        for path, contents in job.files.items():
            (run / path).parent.mkdir(parents=True, exist_ok=True)
            (run / path).write_bytes(contents)
        sender = make_sender(run, self._news, printed)
        self._budget = self._budget or TimeBudget(0)
        self._budget.deadline = time.monotonic() + job.seconds
        self._budget.check()
        rows = len(job.member.train_rows)
        if self._trainer is None or self._trainer.recipe != job.recipe or not self._trainer.fits(rows):
            self._trainer = FoldTrainer(job.recipe, rows)
        callbacks = [self._budget, sender]
        if job.tensorboard:
            callbacks.insert(0, tensorboard_log(run / "tensorboard" / job.member.name))
        self._trainer.train(job.member, dataset, run / job.member.name, job.identity, callbacks)
        self._news.put(News("end", sender.changed_files(), text=sender.printed_text()))


def make_sender(run: Path, news: queue.Queue, printed: io.StringIO):
    """Returns the callback that puts the changed files of `run` into `news` after each epoch.

    A function, because Keras can be imported only once the backend has started.
    """
    import keras

    class Sender(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.known = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}

        def changed_files(self) -> dict[str, bytes]:
            now = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
            changed = [path for path in sorted(now) if self.known.get(path) != now[path]]
            self.known = now
            return {str(path.relative_to(run)): path.read_bytes() for path in changed}

        def printed_text(self) -> str:
            text = printed.getvalue().replace(f"{run}/", "")
            printed.seek(0)
            printed.truncate()
            return text.strip()

        def on_epoch_begin(self, epoch, logs=None):
            self.began = time.perf_counter()
            self.learning_rate = float(self.model.optimizer.learning_rate)

        def on_epoch_end(self, epoch, logs=None):
            row = {name: float(value) for name, value in logs.items()}
            row |= {"epoch": epoch + 1, "learning_rate": self.learning_rate}
            row["seconds"] = time.perf_counter() - self.began
            news.put(News("epoch", self.changed_files(), row, self.printed_text()))

    return Sender()
