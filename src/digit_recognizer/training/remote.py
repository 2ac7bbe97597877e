"""What runs on Ray: the actor that reads and writes the run directory, and the task that trains a member.

The task may be on another machine. It works in a temporary folder and exchanges files with the actor as bytes.
"""

import io
import json
import os
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import UserError, atomic
from digit_recognizer.recipes import Recipe
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.member import FINISHED_FILES, Member
from digit_recognizer.training import backend

_METRICS = FINISHED_FILES[-1]  # the file that makes a member finished


# What the keeper tells about an epoch: the member's name; the row of history.csv, None if the member predicts, empty
# if it is finished; what the training has printed.
EpochResult = tuple[str, dict[str, Any] | None, str]


class Keeper:
    """The actor that reads and writes the run directory for the tasks."""

    def __init__(self, folder: str, owner: int, deadline: float):
        """Takes the run directory, the process that holds its lock, and the end in this machine's time.monotonic."""
        self.folder, self.owner, self.deadline = Path(folder), owner, deadline
        self.results: list[EpochResult] = []
        self.started: set[str] = set()  # names of members

    def start(self, name: str) -> tuple[dict[str, bytes], float, Any]:
        """Returns the member's saved files by name, also metrics.json, the seconds left, and the run's fallback."""
        self.started.add(name)
        files = [self.folder / name / file for file in ("state.npz", "history.csv", _METRICS)]
        contents = {path.name: path.read_bytes() for path in files if path.exists()}
        return contents, self.deadline - time.monotonic(), Run(self.folder).fallback()

    def record_fallback(self, fallback: dict[str, Any]) -> None:
        """Writes the entry `fallback` of recipe.json."""
        os.kill(self.owner, 0)  # as in `save`
        Run(self.folder).record_fallback(fallback)

    def save(self, result: EpochResult, files: dict[str, bytes]) -> None:
        """Writes files, by their paths in the run directory; metrics.json is written last and ends the state."""
        os.kill(self.owner, 0)  # raises ProcessLookupError if another process may have the lock
        for name in sorted(files, key=lambda name: name.endswith(_METRICS)):
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic(path) as file:
                file.write_bytes(files[name])
            if path.name == _METRICS:
                path.with_name("state.npz").unlink(missing_ok=True)
        self.results.append(result)

    def news(self) -> tuple[list[EpochResult], set[str]]:
        """Returns the results since the last call, and the names of the members that have started."""
        results, self.results = self.results, []
        return results, self.started


class _Sender:
    """Sends the keeper what has changed in the task's temporary run directory."""

    def __init__(self, keeper: Any, name: str, run: Path, printed: io.StringIO):
        self.keeper, self.name, self.run, self.printed = keeper, name, run, printed
        self.sent = self._times()

    def _times(self) -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in self.run.rglob("*") if path.is_file()}

    def __call__(self, row: dict[str, Any] | None) -> None:
        import ray

        before, self.sent = self.sent, self._times()
        changed = [path for path, time in self.sent.items() if time != before.get(path)]
        files = {str(path.relative_to(self.run)): path.read_bytes() for path in changed}
        text = self.printed.getvalue().replace(f"{self.run}/", "").strip()
        self.printed.seek(0)
        self.printed.truncate()
        ray.get(self.keeper.save.remote((self.name, row, text), files))


_trainer: Any = None  # of this worker process: on a processor the next member uses its compiled network


def train_member(
    keeper: Any, recipe: Recipe, identity: str, threads: int, tensorboard: bool, member: Member, dataset: Dataset
) -> dict[str, Any] | UserError | None:
    """The task: trains a member in a temporary folder from where it stopped, and sends its files to the keeper.

    Returns the metrics; None if there was no time for an epoch; the UserError if the training raised one.
    """
    global _trainer
    import ray

    backend.start(threads)
    from digit_recognizer.training.callbacks import OutOfTimeError, TimeBudget, tensorboard_log
    from digit_recognizer.training.local import FallbackTrainer

    files, seconds, fallback = ray.get(keeper.start.remote(member.name))
    if _METRICS in files:
        return json.loads(files[_METRICS])
    budget = TimeBudget(time.monotonic() + seconds)
    with tempfile.TemporaryDirectory() as name, redirect_stdout(io.StringIO()) as printed:
        run = Path(name)
        member = replace(member, folder=run / member.name)
        member.folder.mkdir()
        for file, contents in files.items():
            (member.folder / file).write_bytes(contents)
        send = _Sender(keeper, member.name, run, printed)
        if _trainer is None or _trainer.recipe != recipe:
            _trainer = FallbackTrainer(recipe, fallback, lambda new: ray.get(keeper.record_fallback.remote(new)))
        callbacks = [budget]
        if tensorboard:
            callbacks.append(tensorboard_log(run / "tensorboard" / member.name))
        try:
            budget.check()
            metrics = _trainer.train(member, dataset, identity, callbacks, send)
        except OutOfTimeError:
            return None
        except UserError as error:
            return UserError(str(error).replace(f"{run}/", ""))
        send({})
    return metrics


def start_worker(threads: int, precision: str) -> dict[str, Any]:
    """A task: starts the backend in a worker and returns what recipe.json records of it."""
    backend.start(threads)
    return backend.session_facts(threads, precision)


def start_keeper(folder: Path, deadline: float) -> Any:
    """Starts the actor that reads and writes the run directory `folder`, on this machine, and returns its handle."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    options = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1, "scheduling_strategy": here}
    return ray.remote(Keeper).options(**options).remote(str(folder.resolve()), os.getpid(), deadline)
