"""A run directory: its paths, its lock, its recipe.json, and what --overwrite and --resume-from do with its files."""

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from digit_recognizer import recipes
from digit_recognizer.data import paths
from digit_recognizer.files import UserError, atomic, file_lock, read_json, write_json
from digit_recognizer.runs.member import FINISHED_FILES, epochs_in

# Everything that a run directory may hold, as patterns, in the order in which --overwrite removes it. The file that
# makes a member finished goes first. recipe.json, which tells what the rest belongs to, goes last.
_OF_MEMBERS = [f"fold_*/{name}" for name in (FINISHED_FILES[-1], "state.*", *FINISHED_FILES[:-1])]
_OF_ALL = [
    "ensemble.json",
    "submission.csv",
    "submissions.json",
    "oof_probabilities.npy",
    "cv_report.json",
    "cv_report.csv",
]
_FOLDERS = ["explore/*.png", "report/*.png", "report/index.html", "tensorboard/*/*/events.*"]
CONTENTS = (*_OF_MEMBERS, *_OF_ALL, *_FOLDERS, "folds.csv", "recipe.json")


class Run:
    """The paths of a run directory, which need not exist yet."""

    def __init__(self, folder: Path):
        """`folder` is the run directory."""
        self.folder = Path(folder)
        self.recipe_json, self.folds_csv = self.folder / "recipe.json", self.folder / "folds.csv"
        self.oof_probabilities = self.folder / "oof_probabilities.npy"
        self.cv_report_json, self.cv_report_csv = self.folder / "cv_report.json", self.folder / "cv_report.csv"
        self.ensemble_json, self.submission = self.folder / "ensemble.json", self.folder / "submission.csv"
        self.submissions_json = self.folder / "submissions.json"
        self.explore, self.report = self.folder / "explore", self.folder / "report"
        self.tensorboard, self.predictions = self.folder / "tensorboard", self.report / "predictions.png"

    def settings(self) -> dict[str, Any] | None:
        """Returns the contents of recipe.json, or None if there is no such file; raises UserError if it is damaged."""
        if not self.recipe_json.exists():
            return None
        advice = "restore it, or take another --output"
        settings = read_json(self.recipe_json, advice)
        try:
            if not is_blend(settings):
                recipes.from_json(settings)
            for name, kind in (("threads", int), ("runs", list), ("name", str), ("fallback", dict)):
                if not isinstance(settings.get(name, kind()), kind):
                    raise UserError(f"{name} is {str(settings[name])[:40]!r}")
        except UserError as error:
            raise UserError(f"{self.recipe_json} is damaged: {error}: {advice}") from None
        return settings

    def require_settings(self) -> dict[str, Any]:
        """Returns the contents of recipe.json; raises UserError if it is missing or damaged."""
        settings = self.settings()
        if settings is None:
            raise UserError(f"{self.folder} holds no run (no recipe.json): run scripts/train.py, or give --output")
        return settings

    def fallback(self) -> Any:
        """Returns the entry `fallback` of recipe.json: how to train on an accelerator where the quickest way failed."""
        return (self.settings() or {}).get("fallback")

    def record_fallback(self, fallback: dict[str, Any]) -> None:
        """Writes the entry `fallback` of recipe.json, which is no part of the run's identity."""
        write_json(self.recipe_json, (self.settings() or {}) | {"fallback": fallback})

    def holds_one_recipe(self) -> bool:
        """Returns whether this is the run directory of one recipe: neither a blend nor the folder of several."""
        settings = self.settings()
        return settings is not None and not is_blend(settings)

    def child_runs(self) -> list["Run"]:
        """Returns the runs directly below this folder that have a finished member; none in the run of one recipe."""
        if self.holds_one_recipe():
            return []
        folders = {path.parents[1] for path in self.folder.glob("*/fold_*/metrics.json")}
        return [Run(folder) for folder in sorted(folders)]

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Creates the directory and keeps other processes out until the block ends or this process dies.

        Raises UserError if another process holds the lock, or if the directory cannot be written. If the block fails,
        no empty directory is left.
        """
        created = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        try:
            with ExitStack() as stack:
                try:
                    self.folder.mkdir(parents=True, exist_ok=True)
                    stack.enter_context(file_lock(self.folder / ".lock"))
                except BlockingIOError:
                    problem = "another process is writing this run; wait for it, or take another --output"
                    raise UserError(f"{self.folder}: {problem}") from None
                except OSError as error:
                    problem = f"cannot be written ({error.strerror}): take another --output"
                    raise UserError(f"{self.folder} {problem}") from None
                yield
        except BaseException:
            with suppress(OSError):  # something was written
                for folder in created:
                    folder.rmdir()
            raise

    def take_over(self, earlier: "Run") -> None:
        """Copies from `earlier`, which may be read-only, the members that have more epochs there than here.

        A finished member is copied whole, metrics.json last, and replaces an unfinished one. recipe.json, folds.csv and
        submissions.json are copied if they are missing here.
        """
        for name in ("recipe.json", "folds.csv", "submissions.json"):
            _copy(earlier.folder / name, self.folder / name)
        for source in sorted(earlier.folder.glob("fold_*/")):
            target = self.folder / source.name
            if (target / "metrics.json").exists():
                continue
            if (source / "metrics.json").exists():
                for name in FINISHED_FILES:
                    _copy(source / name, target / name, replace=True)
                (target / "state.npz").unlink(missing_ok=True)
            elif epochs_in(source / "state.npz") > epochs_in(target / "state.npz"):
                for name in ("history.csv", "state.npz"):
                    _copy(source / name, target / name, replace=True)

    def clear(self) -> None:
        """Removes the files of a run, and the folders that are empty then."""
        files = [path for pattern in CONTENTS for path in sorted(self.folder.glob(pattern))]
        for path in files:
            path.unlink()
        folders = {folder for path in files for folder in path.relative_to(self.folder).parents}
        for folder in sorted(folders - {Path()}, reverse=True):  # a folder after what is in it
            with suppress(OSError):  # the user keeps something of their own there
                (self.folder / folder).rmdir()


def _copy(source: Path, target: Path, replace: bool = False) -> None:
    if source.exists() and (replace or not target.exists()):
        target.parent.mkdir(exist_ok=True)
        with atomic(target) as file:
            shutil.copyfile(source, file)


def is_blend(settings: dict[str, Any]) -> bool:
    """Returns whether a run with these contents of recipe.json was blended from other runs."""
    return "runs" in settings


def find_run(folder: Path) -> Run:
    """Returns the one run in `folder` or below it; raises UserError if there is none, or if there are several."""
    if (folder / "recipe.json").exists():
        return Run(folder)
    folders = sorted(path.parent for path in folder.glob("**/recipe.json"))
    if len(folders) != 1:
        names = ", ".join(map(str, folders)) or "none"
        raise UserError(f"{folder} has to hold one run (a recipe.json); found: {names}")
    return Run(folders[0])


def find_trained_run(output: Path | None) -> Run:
    """Returns the run in `output`, by default that of output/run, else the sample's; raises UserError for no run."""
    run = Run(output or paths.output_folder(None))
    if output is None and run.settings() is None:
        sample = Run(paths.output_folder(None, "sample"))
        run = sample if sample.settings() else run
    if run.settings() is None and run.child_runs():
        names = ", ".join(child.folder.name for child in run.child_runs())
        advice = f"give one of them as --output, or run scripts/ensemble.py --output {run.folder} first"
        raise UserError(f"{run.folder} holds several runs ({names}): {advice}")
    run.require_settings()
    return run


def announced(run: Run) -> AbstractContextManager:
    """Returns a context that begins and ends with the notice of the sample if `run` was trained on it."""
    is_sample = run.require_settings().get("data") == "sample"
    return paths.Locations(None if is_sample else run.folder, run.folder).announced()
