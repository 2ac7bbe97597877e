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

# What a page shows, as patterns. A run has started if it has a file of the last one.
_OF_COMPARISON = ("recipe.json", "ensemble.json", "fold_*/metrics.json")
_OF_RUN = (*_OF_COMPARISON, "submissions.json", "fold_*/history.csv", "folds.csv")


def watch(home: Run, runs: Sequence[Run], dataset: Dataset, seconds: float = SECONDS) -> None:
    """Writes the page of a run, `home`, after each epoch, or that of a comparison after each finished member.

    Ends if all members are finished. The page of a run shows the mean of the finished members and the epochs of the
    others, and the run need not have started; a comparison waits for the first finished member of each run. Nothing
    else in a run directory is written, so that the training can continue.

    Raises UserError if a run is of other data, or if its folder only holds other runs, and as `write_comparison` does.
    """
    refresh = max(1, round(seconds))
    for settings in _changes(runs or [home], _OF_COMPARISON if runs else _OF_RUN, seconds):
        if runs:
            comparison = write_comparison(home, runs, dataset, refresh)
            text = f"{format_comparison(comparison)}\n"
            unfinished = sum(len(ensemble.others) for ensemble in comparison.ensembles.values())
        else:
            blended = is_blend(settings)
            ensemble = open_ensemble(home, dataset) if blended else average_members(home, dataset, may_be_empty=True)
            finished, unfinished = len(ensemble.members), len(ensemble.others)
            write_page(ensemble, evaluate(ensemble), refresh if unfinished else None)
            epochs = sum(len(history) for history in ensemble.histories().values())
            text = f"{finished} of {finished + unfinished} members finished, {epochs} epochs in all: "
        print(f"{text}{home.report / 'index.html'}", flush=True)
        if not unfinished:
            return


def _changes(runs: Sequence[Run], patterns: Sequence[str], seconds: float) -> Iterator[dict]:
    """Yields the last run's recipe.json once all runs have started, and then whenever a file has changed."""
    known: dict[Path, int] | None = None
    while True:
        state, settings, has_started = {}, {}, True
        for run in runs:
            settings = (run.require_settings() if run.child_runs() else run.settings()) or {}
            has_started &= any(run.folder.glob("ensemble.json" if is_blend(settings) else patterns[-1])) and bool(
                settings
            )
            for path in [path for pattern in patterns for path in run.folder.glob(pattern)]:
                with suppress(FileNotFoundError):  # removed since, as --overwrite does
                    state[path] = path.stat().st_mtime_ns
        if has_started and state != known:
            known = state
            yield settings
        elif not has_started and known is None:
            print(f"waiting for {', '.join(str(run.folder) for run in runs)}", flush=True)
            known = {}
        time.sleep(seconds)
