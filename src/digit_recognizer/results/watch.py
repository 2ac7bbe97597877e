"""The pages of runs that are in training, written again after each epoch."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from digit_recognizer.data.digits import Dataset
from digit_recognizer.results.compare import format_comparison
from digit_recognizer.results.comparison_page import write_comparison
from digit_recognizer.results.evaluation import evaluate
from digit_recognizer.results.page import write_page
from digit_recognizer.runs.directory import Run, is_blend

SECONDS = 10  # between two looks at the run, and between two readings of the page by a browser

_FINISHED = "fold_*/metrics.json"
_WATCHED = ("recipe.json", "folds.csv", "ensemble.json", "submissions.json", "fold_*/history.csv", _FINISHED)


def watch_run(run: Run, dataset: Dataset, seconds: float = SECONDS) -> None:
    """Writes the page of a run whenever an epoch has ended, until all members are finished.

    The page shows the mean of the finished members, and the epochs of the others; of a blend what `ensemble.py`
    made. Nothing else in the run directory is written, so that the training can continue. The run need not have
    started.

    Raises UserError if the run is of other data, or if the folder only holds other runs.
    """
    evaluation = None
    for changed in _changes([run], lambda: _has(run, "folds.csv"), seconds):
        if evaluation is None or any(not name.endswith("history.csv") for name in changed):
            evaluation = evaluate(run, dataset, unfinished=not is_blend(run.require_settings()))
        finished, unfinished = len(evaluation.members), len(evaluation.others)
        write_page(evaluation, refresh=max(1, round(seconds)) if unfinished else None)
        epochs = sum(len(history) for history in evaluation.histories().values())
        count = f"{finished} of {finished + unfinished} members finished, {epochs} epochs in all"
        print(f"{count}: {run.report / 'index.html'}", flush=True)
        if not unfinished:
            return


def watch_comparison(home: Run, runs: Sequence[Run], dataset: Dataset, seconds: float = SECONDS) -> None:
    """Writes the comparison of runs whenever a member has finished, until all members are finished.

    Waits for the first finished member of each run. Raises UserError as `write_comparison` does.
    """
    # a list, so that _has raises for any of the runs
    for changed in _changes(runs, lambda: all([_has(run, _FINISHED) for run in runs]), seconds):
        if all(name.endswith("history.csv") for name in changed):
            continue  # only finished members count
        comparison = write_comparison(home, runs, dataset, max(1, round(seconds)))
        print(f"{format_comparison(comparison)}\n{home.report / 'index.html'}", flush=True)
        if comparison.is_finished:
            return


def _has(run: Run, pattern: str) -> bool:
    """Returns whether a run has a file of that pattern, or a blend its ensemble.json.

    Raises UserError for a folder that only holds other runs.
    """
    settings = run.require_settings() if run.child_runs() else run.settings()
    return settings is not None and any(run.folder.glob("ensemble.json" if is_blend(settings) else pattern))


def _changes(runs: Sequence[Run], is_started: Callable[[], bool], seconds: float) -> Iterator[set[str]]:
    """Yields the paths of the watched files once the runs have started, then those that changed, whenever any did."""
    known: dict[str, int] = {}
    is_announced = False
    while True:
        state = _state(runs)
        if not is_started():
            if not is_announced:
                print(f"waiting for {', '.join(str(run.folder) for run in runs)}", flush=True)
            is_announced = True
        elif state != known:
            changed = {name for name, _ in state.items() ^ known.items()}
            known = state
            yield changed
        time.sleep(seconds)


def _state(runs: Sequence[Run]) -> dict[str, int]:
    """Returns when each watched file was last written, in nanoseconds."""
    state = {}
    for path in [path for run in runs for pattern in _WATCHED for path in run.folder.glob(pattern)]:
        with suppress(FileNotFoundError):  # removed since, as --overwrite does
            state[str(path)] = path.stat().st_mtime_ns
    return state
