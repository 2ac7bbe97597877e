"""Where folds run: here, one after the other."""

from digit_recognizer.digits import Dataset
from digit_recognizer.folds import Fold
from digit_recognizer.progress import Progress
from digit_recognizer.recipes import Recipe
from digit_recognizer.run import Run
from digit_recognizer.training import train_fold


def train_folds(recipe: Recipe, dataset: Dataset, folds: list[Fold], run: Run) -> None:
    """Trains those of `folds` that are not finished, each in its folder of the run directory."""
    unfinished = [fold for fold in folds if not run.is_finished(fold.name)]
    if len(unfinished) < len(folds):
        print(f"{len(folds) - len(unfinished)} of {len(folds)} folds are finished already", flush=True)
    progress = Progress(recipe, unfinished)
    try:
        for fold in unfinished:
            progress.fold_ended(train_fold(recipe, dataset, fold, run.folder / fold.name, [progress]))
    finally:
        progress.close()
