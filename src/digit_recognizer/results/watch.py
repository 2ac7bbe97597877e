"""The page of a run that is in training, written again after each epoch."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from digit_recognizer.data.digits import Dataset
from digit_recognizer.results.ensemble import average_members, open_ensemble
from digit_recognizer.results.evaluation import evaluate
from digit_recognizer.results.page import write_page
from digit_recognizer.runs.directory import Run, is_blend

SECONDS = 10  # between two looks at the run, and between two readings of the page by a browser

_FILES = ("recipe.json", "folds.csv", "ensemble.json", "submissions.json", "fold_*/history.csv", "fold_*/metrics.json")


def watch(run: Run, dataset: Dataset, seconds: float = SECONDS) -> None:
    """Writes the page of a run whenever an epoch has ended, until all members are finished.

    The page shows the mean of the finished members, and the epochs of the others; of a blend what `ensemble.py` made.
    Nothing else in the run directory is written, so that the training can continue. The run need not have started.

    Raises UserError if the run is of other data, or if the folder only holds other runs.
    """
    for settings in _changes(run, seconds):
        blended = is_blend(settings)
        ensemble = open_ensemble(run, dataset) if blended else average_members(run, dataset, may_be_empty=True)
        finished, unfinished = len(ensemble.members), len(ensemble.others)
        write_page(ensemble, evaluate(ensemble), refresh=max(1, round(seconds)) if unfinished else None)
        epochs = sum(len(history) for history in ensemble.histories().values())
        count = f"{finished} of {finished + unfinished} members finished, {epochs} epochs in all"
        print(f"{count}: {run.report / 'index.html'}", flush=True)
        if not unfinished:
            return


def _changes(run: Run, seconds: float) -> Iterator[dict]:
    """Yields the contents of recipe.json once the run has folds, or is a blend, and then whenever a file has changed."""
    known: dict[Path, int] | None = None
    while True:
        state = {}
        for path in [path for pattern in _FILES for path in run.folder.glob(pattern)]:
            with suppress(FileNotFoundError):  # removed since, as --overwrite does
                state[path] = path.stat().st_mtime_ns
        settings = run.require_settings() if run.child_runs() else run.settings()
        if settings is None or not (run.ensemble_json if is_blend(settings) else run.folds_csv).exists():
            if known is None:
                print(f"waiting for {run.folder}", flush=True)
            known = {}
        elif state != known:
            known = state
            yield settings
        time.sleep(seconds)
