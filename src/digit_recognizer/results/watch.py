"""The pages of runs that are still going, written anew whenever an epoch or a fold has ended."""

import time
from collections.abc import Callable, Sequence

from digit_recognizer.data.digits import Dataset
from digit_recognizer.results.compare import format_comparison
from digit_recognizer.results.comparison_page import write_comparison
from digit_recognizer.results.evaluation import evaluate
from digit_recognizer.results.page import write_page
from digit_recognizer.run import Run

SECONDS = 10  # between two looks at the run, and after which the page reads itself again

_WATCHED = (
    "recipe.json",
    "folds.csv",
    "ensemble.json",
    "submissions.json",
    "fold_*/history.csv",
    "fold_*/metrics.json",
)


def watch_run(run: Run, dataset: Dataset, seconds: float = SECONDS) -> None:
    """Writes the page of a run again and again until all of its members are finished.

    It shows the finished members as if they were all, and the epochs so far of the others. Nothing else in
    the run directory is written, so that the run can go on meanwhile. The run need not have begun.

    Raises UserError where the run is of other data.
    """

    def update() -> bool:
        evaluation = evaluate(run, dataset, unfinished=True)
        write_page(evaluation, dataset, refresh=max(1, round(seconds)))
        epochs = sum(len(history) for history in evaluation.histories.values())
        count = len(evaluation.members)
        print(
            f"{count} of {count + len(evaluation.unfinished)} members finished, {epochs} epochs in all: "
            f"{run.report / 'index.html'}",
            flush=True,
        )
        return evaluation.is_finished

    _watch([run], lambda: run.recipe_json.exists() and run.folds_csv.exists(), update, seconds)


def watch_comparison(home: Run, runs: Sequence[Run], dataset: Dataset, seconds: float = SECONDS) -> None:
    """Writes the comparison of runs again and again until all of their members are finished.

    Raises UserError as `write_comparison` does, but waits for the first finished member of each run.
    """

    def update() -> bool:
        comparison = write_comparison(home, runs, dataset, max(1, round(seconds)))
        print(f"{format_comparison(comparison)}\n{home.report / 'index.html'}", flush=True)
        return comparison.is_finished

    begun = [lambda run=run: any(run.folder.glob("fold_*/metrics.json")) for run in runs]
    _watch(runs, lambda: all(each() for each in begun), update, seconds)


def _watch(
    runs: Sequence[Run], is_begun: Callable[[], bool], update: Callable[[], bool], seconds: float
) -> None:
    """Calls `update` whenever a file of the runs has changed, until it returns True."""
    known, waited = None, False
    while True:
        state = _state(runs)
        if not is_begun():
            if not waited:
                print(f"waiting for {', '.join(str(run.folder) for run in runs)}", flush=True)
            waited = True
        elif state != known:
            known = state
            if update():
                return
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
