"""The pages of runs that are in training, written again after each epoch."""

import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from digit_recognizer.data.digits import Dataset
from digit_recognizer.results.compare import format_comparison
from digit_recognizer.results.ensemble import average_members, open_ensemble
from digit_recognizer.results.evaluation import evaluate
from digit_recognizer.results.page import write_comparison, write_page
from digit_recognizer.runs.directory import Run, is_blend

SECONDS = 10  # between two looks at the run, and between two readings of the page by a browser

_FINISHED = "fold_*/metrics.json"
_RUN_FILES = ("folds.csv", "recipe.json", "ensemble.json", "submissions.json", "fold_*/history.csv", _FINISHED)
_COMPARED_FILES = (_FINISHED, "recipe.json", "ensemble.json")


def watch_run(run: Run, dataset: Dataset, seconds: float = SECONDS) -> None:
    """Writes the page of a run whenever an epoch has ended, until all members are finished.

    The page shows the mean of the finished members, and the epochs of the others; of a blend what `ensemble.py` made.
    Nothing else in the run directory is written, so that the training can continue. The run need not have started.

    Raises UserError if the run is of other data, or if the folder only holds other runs.
    """
    for _ in _changes([run], _RUN_FILES, seconds):
        blended = is_blend(run.require_settings())
        ensemble = open_ensemble(run, dataset) if blended else average_members(run, dataset, may_be_empty=True)
        finished, unfinished = len(ensemble.members), len(ensemble.others)
        write_page(ensemble, evaluate(ensemble), refresh=max(1, round(seconds)) if unfinished else None)
        epochs = sum(len(history) for history in ensemble.histories().values())
        count = f"{finished} of {finished + unfinished} members finished, {epochs} epochs in all"
        print(f"{count}: {run.report / 'index.html'}", flush=True)
        if not unfinished:
            return


def watch_comparison(home: Run, runs: Sequence[Run], dataset: Dataset, seconds: float = SECONDS) -> None:
    """Writes the comparison of runs whenever a member has finished, until all members are finished.

    Waits for the first finished member of each run. Raises UserError as `write_comparison` does.
    """
    for _ in _changes(runs, _COMPARED_FILES, seconds):
        comparison = write_comparison(home, runs, dataset, max(1, round(seconds)))
        print(f"{format_comparison(comparison)}\n{home.report / 'index.html'}", flush=True)
        if comparison.is_finished:
            return


def _changes(runs: Sequence[Run], patterns: Sequence[str], seconds: float) -> Iterator[None]:
    """Yields once each run has a file of the first pattern, or is a blend, and then whenever a file has changed."""
    known: dict[Path, int] | None = None
    while True:
        state = {}
        for path in [path for run in runs for pattern in patterns for path in run.folder.glob(pattern)]:
            with suppress(FileNotFoundError):  # removed since, as --overwrite does
                state[path] = path.stat().st_mtime_ns
        # a list, so that _has_started raises for any of the runs
        if not all([_has_started(run, patterns[0]) for run in runs]):
            if known is None:
                print(f"waiting for {', '.join(str(run.folder) for run in runs)}", flush=True)
            known = {}
        elif state != known:
            known = state
            yield
        time.sleep(seconds)


def _has_started(run: Run, pattern: str) -> bool:
    """Returns whether a run has a file of that pattern, or a blend its ensemble.json.

    Raises UserError for a folder that only holds other runs.
    """
    settings = run.require_settings() if run.child_runs() else run.settings()
    return settings is not None and any(run.folder.glob("ensemble.json" if is_blend(settings) else pattern))
