"""The pages of runs that are still going, written anew whenever an epoch or a fold has ended."""

import time
from collections.abc import Callable, Iterator, Sequence

from digit_recognizer.data.digits import Dataset
from digit_recognizer.results.compare import format_comparison
from digit_recognizer.results.comparison_page import write_comparison
from digit_recognizer.results.evaluation import evaluate
from digit_recognizer.results.page import write_page
from digit_recognizer.run import Run

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

    It shows the finished members as if they were all, and the epochs so far of the others. Nothing else in
    the run directory is written, so that the run can go on meanwhile. The run need not have begun.

    Raises UserError where the run is of other data.
    """
    for _ in _changes([run], lambda: run.recipe_json.exists() and run.folds_csv.exists(), seconds):
        evaluation = evaluate(run, dataset, unfinished=True)
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
    for _ in _changes(runs, lambda: all(any(run.folder.glob(_FINISHED)) for run in runs), seconds):
        comparison = write_comparison(home, runs, dataset, max(1, round(seconds)))
        print(f"{format_comparison(comparison)}\n{home.report / 'index.html'}", flush=True)
        if comparison.is_finished:
            return


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
