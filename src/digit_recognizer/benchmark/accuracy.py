"""Part b: the seconds from the start of a training to a validation accuracy."""

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from digit_recognizer import files, named_recipes, recipes
from digit_recognizer.benchmark import baseline, torch_baseline
from digit_recognizer.benchmark.timing import Row
from digit_recognizer.benchmark.torch_baseline import TorchWay
from digit_recognizer.benchmark.workload import Workload, on_tensorflow
from digit_recognizer.data import folds
from digit_recognizer.data.digits import Dataset
from digit_recognizer.recipes import Recipe
from digit_recognizer.runs.member import Member

HOLDOUT, ACCURACY = 0.15, 0.9940

Watch = Callable[[float], None]  # takes the validation accuracy after each epoch
Way = Callable[[Recipe, Dataset, Member, Watch], None]

AS_PUBLISHED = "bn_cnn, as published"


class ReachedError(Exception):
    """The training has reached the accuracy."""


def measure_time_to_accuracy(workload: Workload) -> Iterator[Row]:
    """Part b, from building the network on.

    A training that never gets there counts with its whole length, and its row's `reached` is False. A seed
    takes long: what an earlier session has measured is not measured again, and stays also where this call
    leaves out its way. The medians are over the seeds that every way of this call has.
    """
    ways = _ways(workload)
    found = {name: {} for name in ways}
    for row in workload.measured.get("b", []):
        if "accuracies" in row:  # else it is a median
            if row["way"] in found:
                found[row["way"]][row["what"]] = row
            yield row
    for seed in workload.seeds:
        for name, (recipe_name, way) in ways.items():
            what = f"to {ACCURACY:.4f}, seed {seed}"
            if what not in found[name]:
                row = _measure(workload, named_recipes.named(recipe_name), way, seed)
                found[name][what] = row
                # the commit is its own: a seed may have been measured long before the others
                yield {"what": what, "way": name, "unit": "s", "commit": files.commit()} | row
    yield from _medians(found)


def _ways(workload: Workload) -> dict[str, tuple[str, Way]]:
    """The ways by name, each with the name of its recipe; the first is the usual one."""
    ways = {}
    if on_tensorflow("bn_cnn as published, to an accuracy"):
        ways[AS_PUBLISHED] = ("bn_cnn", _train_as_published)
    ways["fast"] = ("fast", _train_as_here)
    chosen = fastest_way(workload.torch_ways(), workload.measured.get("a", []))
    if chosen:
        ways[f"bn_cnn, {chosen.name}"] = ("bn_cnn", _train_with(chosen))
    return ways


def fastest_way(ways: list[TorchWay], trained: list[Row]) -> TorchWay | None:
    """Returns the way that part a measured to be the fastest; without part a the last uncompiled one.

    Args:
        ways: of PyTorch on this machine.
        trained: rows of part a.
    """
    speeds = {row["way"]: row["median"] for row in trained if "median" in row}
    measured = [way for way in ways if way.name in speeds]
    if measured:
        return max(measured, key=lambda way: speeds[way.name])
    return next((way for way in reversed(ways) if not way.compiled), None)


def _measure(workload: Workload, recipe: Recipe, way: Way, seed: int) -> Row:
    """The seconds of one training and the accuracies of its epochs."""
    import keras

    options = {"holdout": HOLDOUT, "seed": seed, "epochs": min(recipe.epochs, workload.epochs)}
    recipe = recipes.change(recipe, options)
    member = folds.members(folds.split(workload.dataset.train_labels, recipe))[0]
    accuracies, ends = [], []

    def watch(accuracy: float) -> None:
        accuracies.append(float(accuracy))
        ends.append(time.perf_counter())
        if _reached(accuracies):
            raise ReachedError

    keras.utils.clear_session()
    keras.utils.set_random_seed(seed)
    began = time.perf_counter()
    with suppress(ReachedError):
        way(recipe, workload.dataset, member, watch)
    return {"median": ends[-1] - began, "accuracies": accuracies, "reached": _reached(accuracies)}


def _reached(accuracies: list[float]) -> bool:
    return accuracies[-1] >= ACCURACY


def _medians(found: dict[str, dict[str, Row]]) -> Iterator[Row]:
    """A row for each way, over the seeds that all of them have; `found` has the seeds' rows by way and seed."""
    shared = sorted(set.intersection(*map(set, found.values())))
    usual = None
    for name, seeds in found.items():
        seconds = [seeds[what]["median"] for what in shared]
        median = statistics.median(seconds)
        usual = usual or median
        row = {"what": f"to {ACCURACY:.4f}", "way": name, "median": median, "unit": "s"}
        reached = all(_reached(seeds[what]["accuracies"]) for what in shared)
        yield row | {"ratio": usual / median, "rounds": seconds, "reached": reached}


def _watching(watch: Watch):
    """A Keras callback that calls `watch`, and ends a training before what follows its last epoch."""
    import keras

    def end(*_):
        raise ReachedError

    return keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: watch(logs["val_accuracy"]), on_train_end=end
    )


def _train_as_published(recipe: Recipe, dataset: Dataset, member: Member, watch: Watch) -> None:
    from digit_recognizer.training.callbacks import MONITOR
    from digit_recognizer.training.optimization import schedule_callbacks

    images, labels = baseline.scale(dataset.train_images), dataset.train_labels
    batches = baseline.augmented_batches(images[member.train_rows], labels[member.train_rows])
    validation = images[member.validation_rows], labels[member.validation_rows]
    callbacks = [*schedule_callbacks(recipe, MONITOR), _watching(watch)]
    model = baseline.compiled_network()
    model.fit(batches, epochs=recipe.epochs, validation_data=validation, callbacks=callbacks, verbose=0)


def _train_as_here(recipe: Recipe, dataset: Dataset, member: Member, watch: Watch) -> None:
    from digit_recognizer.training.fold import FoldTrainer

    trainer = FoldTrainer(recipe, len(member.train_rows))
    with tempfile.TemporaryDirectory() as folder:
        trainer.train(member, dataset, Path(folder) / member.name, callbacks=[_watching(watch)])


def _train_with(chosen: TorchWay) -> Way:
    def train(recipe: Recipe, dataset: Dataset, member: Member, watch: Watch) -> None:
        images, labels = dataset.train_images, dataset.train_labels
        train, validation = (
            (images[rows], labels[rows]) for rows in (member.train_rows, member.validation_rows)
        )
        torch_baseline.train_as_published(chosen, recipe.seed, recipe.epochs, train, validation, watch)

    return train
