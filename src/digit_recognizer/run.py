"""A run directory: its paths, its identity, its lock, and files that are written whole or not at all."""

import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from digit_recognizer.errors import UserError

# Everything that a run directory may hold, as patterns; --overwrite removes this and nothing else.
_TRAINED = (
    "recipe.json",
    "folds.csv",
    "fold_*/model.keras",
    "fold_*/history.csv",
    "fold_*/validation_probabilities.npy",
    "fold_*/test_probabilities.npy",
    "fold_*/metrics.json",
    "fold_*/state.*",
)
CONTENTS = (
    *_TRAINED,
    "oof_probabilities.npy",
    "cv_report.json",
    "cv_report.csv",
    "ensemble.json",
    "submission.csv",
    "submissions.json",
    "leaderboard.csv",
    "explore/*.png",
    "report/*.png",
    "report/index.html",
    "cache/*",
)

# What of recipe.json makes a run this run and no other; `name` comes first: its difference explains the rest.
_NOT_IDENTITY = ("source", "published", "threads", "precision", "versions", "backend", "device")


class Run:
    """The paths of a run directory, which need not exist yet."""

    def __init__(self, folder: Path):
        """`folder` is the run directory."""
        self.folder = Path(folder)
        self.recipe_json = self.folder / "recipe.json"
        self.folds_csv = self.folder / "folds.csv"
        self.oof_probabilities = self.folder / "oof_probabilities.npy"
        self.cv_report_json = self.folder / "cv_report.json"
        self.cv_report_csv = self.folder / "cv_report.csv"
        self.ensemble_json = self.folder / "ensemble.json"
        self.submission = self.folder / "submission.csv"
        self.submissions_json = self.folder / "submissions.json"
        self.explore = self.folder / "explore"
        self.leaderboard = self.folder / "leaderboard.csv"
        self.report = self.folder / "report"
        self.predictions = self.report / "predictions.png"
        self.cache = self.folder / "cache" / "digits.npz"

    def is_finished(self, member: str) -> bool:
        """True once the metrics.json of that fold's folder, the last of its files, is there."""
        return (self.folder / member / "metrics.json").exists()

    def below(self) -> list["Run"]:
        """The runs directly below this directory that have a finished fold, as train.py makes of several recipes."""
        return [
            Run(folder)
            for folder in sorted({p.parents[1] for p in self.folder.glob("*/fold_*/metrics.json")})
        ]

    def settings(self) -> dict[str, Any] | None:
        """What recipe.json holds, or None where there is none; raises UserError where it is damaged."""
        return read_json(self.recipe_json) if self.recipe_json.exists() else None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Makes the directory, and keeps it for this process until the block ends or the process does.

        Raises UserError where another process has it or where it can't be written.
        """
        with _refusing_what_cannot_be_written(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(13, "no permission to write")
            handle = os.open(self.folder, os.O_RDONLY)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UserError(
                    f"{self.folder}: another process is writing this run; wait for it, or take another --output"
                ) from None
            yield
        finally:
            os.close(handle)

    def claim(self, settings: dict[str, Any]) -> list[str]:
        """Writes recipe.json, or raises UserError if it is there with another recipe, seed or data.

        Backend, versions and the like may change from session to session, and with them the last bits of
        the results: recipe.json keeps those of the first session. Returns the names of those that differ.
        """
        known = self.settings()
        if known is None:
            write_json(self.recipe_json, settings)
            return []
        self.check_identity(settings)
        return [name for name in _NOT_IDENTITY if name in settings and known.get(name) != settings[name]]

    def check_identity(self, settings: dict[str, Any]) -> None:
        """Raises UserError, naming the difference, if recipe.json belongs to another run than `settings`."""
        known = self.settings() or {}
        for key, value in settings.items():
            if known and key not in _NOT_IDENTITY and known.get(key) != value:
                known_value, value = (str(each)[:12] for each in (known.get(key), value))
                raise UserError(
                    f"{self.folder} holds a run with {key} {known_value}, not {value}: "
                    "take another --output, or --overwrite to remove that run"
                )

    def take_over(self, earlier: "Run") -> None:
        """Copies from `earlier`, which may be read-only, what training made and this run does not have yet.

        metrics.json, which makes a fold a finished one, is copied last.
        """
        for pattern in sorted(_TRAINED, key=lambda pattern: "metrics" in pattern):
            for path in sorted(earlier.folder.glob(pattern)):
                copy = self.folder / path.relative_to(earlier.folder)
                if not copy.exists() and not self.is_finished(copy.parent.name):
                    copy.parent.mkdir(exist_ok=True)
                    with atomic(copy) as file:
                        shutil.copyfile(path, file)

    def clear(self) -> None:
        """Removes the files of a run, and folders that are empty then."""
        found = [path for pattern in CONTENTS for path in self.folder.glob(pattern)]
        for path in found:
            path.unlink()
        for folder in {path.parent for path in found} - {self.folder}:
            with suppress(OSError):  # something of the user's own is in it
                folder.rmdir()


def find_run(folder: Path) -> Run:
    """The one run in `folder` or below it; raises UserError where there is none, or several."""
    found = (
        [folder / "recipe.json"]
        if (folder / "recipe.json").exists()
        else sorted(folder.glob("**/recipe.json"))
    )
    if len(found) != 1:
        what = ", ".join(str(path.parent) for path in found) or "none"
        raise UserError(f"{folder} has to hold one run (a recipe.json); found: {what}")
    return Run(found[0].parent)


@contextmanager
def _refusing_what_cannot_be_written(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder} can't be written ({error.strerror}): take another --output") from None


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """A path to write to in place of `path`; a block that ends well moves it there in one step.

    A block that fails, or a process that dies, leaves `path` as it was.
    """
    temporary = path.with_name(f".{path.name}")  # the same ending: Keras and NumPy look at it
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:  # a full disk does not say which file it was
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_arrays(path: Path, **arrays) -> None:
    """Writes an .npz, whole or not at all.

    By way of memory: where a write fails, NumPy 2.0 leaves an open archive that complains with a traceback.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with atomic(path) as file:
        file.write_bytes(buffer.getbuffer())


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, whole or not at all."""
    with atomic(path) as file:
        file.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: Path) -> Any:
    """The JSON of a file; raises UserError where it is damaged."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run its stage again") from None
