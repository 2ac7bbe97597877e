"""The pages of runs that are still going, written anew whenever an epoch or a fold has ended."""

import time
from collections.abc import Callable, Iterator, Sequence

from digit_recognizer.data.digits import Dataset
from digit_recognizer.results.compare import format_comparison
from digit_recognizer.results.comparison_page import write_comparison
from digit_recognizer.results.evaluation import evaluate
from digit_recognizer.results.page import write_page
from digit_recognizer.runs.directory import Run, is_blend

SECONDS = 10  # between two looks at the run, and after which the page reads itself again

_FINISHED = "fold_*/metrics.json"
_WATCHED = (
    "recipe.json",
    "folds.csv",
    "ensemble.json",
    "submissions.json",
    "fold_*/history.csv",
    _FINISHED,
)


def watch_run(run: Run, dataset: Dataset, seconds: float = SECONDS) -> None:
    """Writes the page of a run again and again until all of its members are finished.

    It shows the finished members as if they were all, and the epochs so far of the others; of a blend what
    `ensemble.py` made of it. Nothing else in the run directory is written, so that the run can go on meanwhile.
    The run need not have begun.

    Raises UserError where the run is of other data, and for a folder that only holds other runs.
    """
    for _ in _changes([run], lambda: _has(run, "folds.csv"), seconds):
        evaluation = evaluate(run, dataset, unfinished=not is_blend(run.require_settings()))
        write_page(evaluation, dataset, refresh=max(1, round(seconds)))
        epochs = sum(len(history) for history in evaluation.histories.values())
        finished, unfinished = len(evaluation.members), len(evaluation.unfinished)
        print(
            f"{finished} of {finished + unfinished} members finished, {epochs} epochs in all: "
            f"{run.report / 'index.html'}",
            flush=True,
        )
        if evaluation.is_finished:
            return


def watch_comparison(home: Run, runs: Sequence[Run], dataset: Dataset, seconds: float = SECONDS) -> None:
    """Writes the comparison of runs again and again until all of their members are finished.

    Raises UserError as `write_comparison` does, but waits for the first finished member of each run.
    """
    # a list, so that each run is looked at, whichever are still waited for
    for _ in _changes(runs, lambda: all([_has(run, _FINISHED) for run in runs]), seconds):
        comparison = write_comparison(home, runs, dataset, max(1, round(seconds)))
        print(f"{format_comparison(comparison)}\n{home.report / 'index.html'}", flush=True)
        if comparison.is_finished:
            return


def _has(run: Run, pattern: str) -> bool:
    """Whether a run has a file of that pattern, or a blend its ensemble.json: it has neither folds nor members.

    Raises UserError for a folder that only holds other runs: it never will.
    """
    settings = run.settings()
    if settings is None:
        if run.child_runs():
            run.require_settings()
        return False
    return any(run.folder.glob("ensemble.json" if "runs" in settings else pattern))


def _changes(runs: Sequence[Run], is_begun: Callable[[], bool], seconds: float) -> Iterator[None]:
    """Yields once the runs have begun, and whenever one of their files has changed since."""
    known, waited = None, False
    while True:
        state = _state(runs)
        if not is_begun():
            if not waited:
                print(f"waiting for {', '.join(str(run.folder) for run in runs)}", flush=True)
            waited = True
        elif state != known:
            known = state
            yield
        time.sleep(seconds)


def _state(runs: Sequence[Run]) -> dict[str, int]:
    """When each watched file was last written, in nanoseconds."""
    found = {}
    for run in runs:
        for pattern in _WATCHED:
            for path in run.folder.glob(pattern):
                try:
                    found[str(path)] = path.stat().st_mtime_ns
                except FileNotFoundError:  # taken away meanwhile, as --overwrite does
                    continue
    return found
