"""A run directory: its paths, its lock, its recipe.json, and the check that its members belong to the run."""

import fcntl
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from digit_recognizer.errors import UserError
from digit_recognizer.files import atomic, read_json
from digit_recognizer.identity import difference, upgrade
from digit_recognizer.recipes import format_value

# Everything that a run directory may hold, as patterns, in the order in which --overwrite removes it: what makes
# a member a finished one goes first, and recipe.json, which tells whose the rest is, goes last.
CONTENTS = (
    "fold_*/metrics.json",
    "fold_*/state.*",
    "fold_*/model.keras",
    "fold_*/history.csv",
    "fold_*/validation_probabilities.npy",
    "fold_*/test_probabilities.npy",
    "ensemble.json",
    "submission.csv",
    "submissions.json",
    "oof_probabilities.npy",
    "cv_report.json",
    "cv_report.csv",
    "leaderboard.csv",
    "explore/*.png",
    "report/*.png",
    "report/index.html",
    "tensorboard/*/*/events.*",
    "cache/digits.npz",  # of earlier versions
    "folds.csv",
    "recipe.json",
)

# The files of a finished member; the first one makes it that.
_MEMBER_FILES = [
    pattern.removeprefix("fold_*/")
    for pattern in CONTENTS
    if pattern.startswith("fold_*/") and "state" not in pattern
]

ANOTHER_OUTPUT = "take another --output"  # what to do where a directory belongs to another run

# Entries of recipe.json that are read before, or without, the recipe that it describes.
_KINDS: dict[str, tuple[type, ...]] = dict.fromkeys(
    ("name", "network", "data", "fingerprint", "labels", "split"), (str,)
)
_KINDS |= dict.fromkeys(("folds", "repeats", "seed", "threads"), (int,)) | {
    "holdout": (int, float),
    "runs": (list,),
}


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
        self.leaderboard = self.folder / "leaderboard.csv"
        self.explore = self.folder / "explore"
        self.report = self.folder / "report"
        self.tensorboard = self.folder / "tensorboard"
        self.predictions = self.report / "predictions.png"

    def settings(self) -> dict[str, Any] | None:
        """Returns the contents of recipe.json, with this version's names, or None where there is none.

        Raises UserError where the file is damaged.
        """
        if not self.recipe_json.exists():
            return None
        settings = upgrade(read_json(self.recipe_json))
        for name, kinds in _KINDS.items():
            if name in settings and type(settings[name]) not in kinds:
                raise UserError(
                    f"{self.recipe_json} is damaged ({name} is {str(settings[name])[:40]!r}): put back what was there, or "
                    "take another --output"
                )
        return settings

    def require_settings(self) -> dict[str, Any]:
        """Returns the contents of recipe.json; raises UserError where there is none, or a damaged one."""
        settings = self.settings()
        if settings is None:
            raise UserError(
                f"{self.folder} holds no run (no recipe.json): run scripts/train.py, or give --output"
            )
        return settings

    def is_of_one_recipe(self) -> bool:
        """Returns whether `train.py` has begun a run here, and neither a blend nor several recipes' runs."""
        return "network" in (self.settings() or {})

    def child_runs(self) -> list["Run"]:
        """Returns the runs directly below this folder that have a finished member, sorted by name.

        `train.py` makes them of several recipes. A run of one recipe has none: what lies below it is not its own.
        """
        if self.is_of_one_recipe():
            return []
        folders = {path.parents[1] for path in self.folder.glob("*/fold_*/metrics.json")}
        return [Run(folder) for folder in sorted(folders)]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Makes the directory, and keeps it for this process until the block ends or the process does.

        Raises UserError where another process has it or where it can't be written. A block that fails
        leaves no empty directory behind.
        """
        made = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK | os.X_OK):
                raise PermissionError(13, "no permission to write")
            handle = os.open(self.folder, os.O_RDONLY)
        except OSError as error:
            raise UserError(
                f"{self.folder} can't be written ({error.strerror}): take another --output"
            ) from None
        try:
            self._take_lock(handle)
            yield
        except BaseException:
            with suppress(OSError):  # something was written
                for folder in made:
                    folder.rmdir()
            raise
        finally:
            os.close(handle)

    def _take_lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(
                f"{self.folder}: another process is writing this run; wait for it, or take another --output"
            ) from None

    def check_settings(
        self, known: dict[str, Any] | None, settings: dict[str, Any], advice: str = ANOTHER_OUTPUT
    ) -> None:
        """Raises UserError, naming the difference, where this directory belongs to another run.

        Args:
            known: contents of its recipe.json, or None where it has none.
            settings: the same, or some of it, of the run that is asked for.
            advice: the end of the message: what to do about it.
        """
        name = difference(known, settings) if known else None
        if name:
            there, asked = (_shown(each.get(name)) for each in (known, settings))
            raise UserError(f"{self.folder} holds a run with {name} {there}, not {asked}: {advice}")

    def check_members(self, own: str, may_lack_identity: bool, advice: str = ANOTHER_OUTPUT) -> None:
        """Raises UserError for a member, finished or not, with another identity than the run's `own`.

        A member of an earlier version recorded none, where it `may_lack_identity`. `advice` is the end of the
        message: what to do about it.
        """
        found = {path: read_json(path).get("identity") for path in self.folder.glob("fold_*/metrics.json")}
        found |= {path: _state_identity(path) for path in self.folder.glob("fold_*/state.npz")}
        for path in sorted(found):
            if found[path] != own and not (found[path] is None and may_lack_identity):
                raise UserError(f"{path.parent} was trained with another recipe, split or data: {advice}")

    def take_over(self, earlier: "Run") -> None:
        """Copies from `earlier`, which may be read-only, the members that have more epochs there than here.

        A finished member is copied whole, and takes the place of one that is in progress here. Its
        metrics.json, which makes it a finished one, is copied last.
        """
        for name in ("recipe.json", "folds.csv"):
            _copy(earlier.folder / name, self.folder / name)
        for folder in sorted(earlier.folder.glob("fold_*/")):
            own = self.folder / folder.name
            if (own / "metrics.json").exists():
                continue
            if (folder / "metrics.json").exists():
                for name in reversed(_MEMBER_FILES):
                    _copy(folder / name, own / name, replace=True)
                (own / "state.npz").unlink(missing_ok=True)
            elif _epochs(folder / "state.npz") > _epochs(own / "state.npz"):
                for name in ("history.csv", "state.npz"):
                    _copy(folder / name, own / name, replace=True)

    def clear(self) -> None:
        """Removes the files of a run, and folders that are empty then."""
        found = [path for pattern in CONTENTS for path in sorted(self.folder.glob(pattern))]
        for path in found:
            path.unlink()
        folders = {folder for path in found for folder in path.relative_to(self.folder).parents}
        for folder in sorted(folders - {Path()}, reverse=True):  # a folder after what is in it
            with suppress(OSError):  # something of the user's own is in it
                (self.folder / folder).rmdir()


def _shown(value: Any) -> str:
    """A setting in words; of a SHA-256 the first digits."""
    text = format_value(value)
    return text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text


def _state_identity(path: Path) -> str | None:
    """The identity of the run that a state.npz records; None in one of an earlier version, or a damaged one."""
    return _state_facts(path).get("identity")


def _epochs(path: Path) -> int:
    """How many epochs of a member a state.npz holds; 0 where there is none, or a damaged one."""
    history = _state_facts(path).get("history")
    return len(history) if isinstance(history, list) else 0


def _state_facts(path: Path) -> dict[str, Any]:
    """What a state.npz holds beside arrays; nothing where there is none, or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(json.loads(str(arrays["facts"])))
    except Exception:  # a damaged file can raise nearly anything; the member starts over
        return {}


def _copy(path: Path, copy: Path, replace: bool = False) -> None:
    if path.exists() and (replace or not copy.exists()):
        copy.parent.mkdir(exist_ok=True)
        with atomic(copy) as file:
            shutil.copyfile(path, file)


def find_run(folder: Path) -> Run:
    """Returns the one run in `folder` or below it; raises UserError where there is none, or several."""
    if (folder / "recipe.json").exists():
        return Run(folder)
    found = sorted(path.parent for path in folder.glob("**/recipe.json"))
    if len(found) != 1:
        raise UserError(
            f"{folder} has to hold one run (a recipe.json); found: {', '.join(map(str, found)) or 'none'}"
        )
    return Run(found[0])
