"""Part g: what an epoch, a member or a row costs after many of them."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from digit_recognizer import named_recipes, recipes
from digit_recognizer.benchmark.throughput import epoch_as_here
from digit_recognizer.benchmark.timing import Moment, Row, compare, growth, moment
from digit_recognizer.benchmark.workload import Workload, execution_plan, first_rows
from digit_recognizer.data import folds
from digit_recognizer.data.digits import Dataset
from digit_recognizer.recipes import Recipe
from digit_recognizer.runs.member import Member
from digit_recognizer.runs.plan import make_members

_PREDICTED_ROWS = 256  # by each member
_SQUARE = np.ones((1024, 1024), np.float32)


def measure_growth(workload: Workload) -> Iterator[Row]:
    """Part g, with the recipe fast."""
    images, labels = first_rows(workload.dataset, workload.rows)
    predicted = images[:_PREDICTED_ROWS]
    ids = np.arange(1, len(predicted) + 1).astype(str)
    small = Dataset(images, labels, predicted, None, ids)
    yield from growth("epochs", _train_epochs(small, 3 * workload.group + 1), workload.group)
    yield from growth("members", _train_members(small, workload.members + 1), workload.group)
    yield from _cost_of_rows(workload)


def _now() -> Moment:
    return moment(lambda: [_SQUARE @ _SQUARE for _ in range(20)])


def _recipe(labels: np.ndarray, options: dict[str, int]) -> tuple[Recipe, list[Member]]:
    recipe = recipes.change(named_recipes.named("fast"), {"tta_views": 0} | options)
    return recipe, make_members(folds.split(labels, recipe), Path("."))


def _train_epochs(small: Dataset, epochs: int) -> list[Moment]:
    """Trains one member, and returns the ends of its epochs."""
    import keras

    from digit_recognizer.training.fold import FoldTrainer

    recipe, (member, *_) = _recipe(small.train_labels, {"folds": 10, "epochs": epochs})
    moments = []
    watch = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: moments.append(_now()))
    with tempfile.TemporaryDirectory() as folder:
        FoldTrainer(recipe, len(member.train_rows)).train(
            member, small, Path(folder) / member.name, callbacks=[watch]
        )
    return moments


def _train_members(small: Dataset, count: int) -> list[Moment]:
    """Trains members for an epoch each, as a run does, and returns their ends."""
    from digit_recognizer.training.fold import FoldTrainer

    recipe, members = _recipe(small.train_labels, {"folds": count, "epochs": 1})
    moments, trainer = [], None
    with tempfile.TemporaryDirectory() as folder:
        for member in members:
            if trainer is None or not trainer.fits(len(member.train_rows)):
                trainer = FoldTrainer(recipe, len(member.train_rows))
            trainer.train(member, small, Path(folder) / member.name)
            moments.append(_now())
    return moments


def _cost_of_rows(workload: Workload) -> Iterator[Row]:
    """Times epochs with more and more rows; `cost` is that of a row relative to the smallest epoch's."""
    recipe, ways = named_recipes.named("fast"), {}
    plan = execution_plan(recipe, len(workload.dataset.train_images))
    for times in workload.times:
        images, labels = first_rows(workload.dataset, times * workload.rows)
        ways[str(len(images))] = epoch_as_here(recipe, images, labels, *plan)
    first = None
    for row in compare("rows of an epoch", ways, workload.rounds):
        cost = row["median"] / int(row["way"])
        first = first or cost
        del row["ratio"]  # they are not the same work
        yield row | {"cost": cost / first}
