"""Where folds run: here, one after the other."""

from digit_recognizer.digits import Dataset
from digit_recognizer.folds import Fold
from digit_recognizer.progress import Progress, result
from digit_recognizer.recipes import Recipe
from digit_recognizer.run import Run
from digit_recognizer.training import train_fold


def train_folds(recipe: Recipe, dataset: Dataset, folds: list[Fold], run: Run) -> None:
    """Trains those of `folds` that are not finished, each in its folder of the run directory."""
    finished = [fold for fold in folds if run.is_finished(fold.name)]
    unfinished = [fold for fold in folds if fold not in finished]
    for fold in finished:  # trains nothing
        print(result(fold, train_fold(recipe, dataset, fold, run.folder / fold.name)) + ", finished before")
    progress = Progress(recipe, unfinished)
    try:
        for fold in unfinished:
            progress.fold_ended(train_fold(recipe, dataset, fold, run.folder / fold.name, [progress]))
    finally:
        progress.close()
