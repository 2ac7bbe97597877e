"""Parts a, e and f: training, reading and predicting."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from digit_recognizer import named_recipes
from digit_recognizer.benchmark import baseline, torch_baseline
from digit_recognizer.benchmark.baseline import BATCH
from digit_recognizer.benchmark.timing import Row, compare, timed
from digit_recognizer.benchmark.workload import (
    Workload,
    execution_plan,
    first_rows,
    on_tensorflow,
)
from digit_recognizer.data import digits, paths
from digit_recognizer.recipes import Recipe
from digit_recognizer.runs.member import Member
from digit_recognizer.training import backend


def epoch_of(model: Any, batches: Any, **options: Any) -> Callable[[], float]:
    """Returns a function that trains `model` for an epoch and returns its seconds.

    What follows on the last step does not count: where Keras makes the pipeline the end of `fit` may wait
    for seconds (`batches.stream` tells why), which are few in a long training and many in this one.
    """
    import keras

    def fit() -> float:
        ticks = []

        def tick(*_):
            ticks.append(time.perf_counter())

        watch = keras.callbacks.LambdaCallback(on_epoch_begin=tick, on_epoch_end=tick)
        model.fit(batches, callbacks=[watch], verbose=0, **options)
        return ticks[1] - ticks[0]

    return fit


def epoch_as_here(
    recipe: Recipe, images: np.ndarray, labels: np.ndarray, scope: backend.XlaScope, dtype: str
) -> Callable[[], float]:
    """Returns a function that trains a network of the recipe for an epoch, as train.py does."""
    from digit_recognizer.training.batches import ShuffledEpochs, stream
    from digit_recognizer.training.fold import make_learner
    from digit_recognizer.training.loop import batches_per_call

    model = make_learner(recipe, len(images), scope, dtype)
    every = Member(0, 0, 0, np.arange(len(images)), np.arange(0))
    steps = len(images) // min(recipe.batch_size, len(images))
    epochs = ShuffledEpochs(images, labels, recipe, every, 0, batches_per_call(scope, steps))
    return epoch_of(model, stream(epochs), shuffle=False, steps_per_epoch=epochs.chunks)


def measure_training(workload: Workload) -> Iterator[Row]:
    """Part a: without validation, once the code is there."""
    recipe, rows = named_recipes.named("bn_cnn"), workload.steps * BATCH
    images, labels = first_rows(workload.dataset, rows)
    chosen, ways = execution_plan(recipe, len(workload.dataset.train_images)), {}
    keras_ways = [chosen]
    if on_tensorflow("training as published, and uncompiled"):
        batches = baseline.augmented_batches(baseline.scale(images), labels)
        ways["as published"] = epoch_of(baseline.compiled_network(), batches)
        keras_ways = dict.fromkeys([("none", "float32"), chosen])
    for scope, dtype in keras_ways:
        compiled = "uncompiled" if scope == "none" else f"{scope} compiled"
        name = f"ours, {compiled}, {dtype}" + " (chosen here)" * ((scope, dtype) == chosen)
        ways[name] = epoch_as_here(recipe, images, labels, scope, dtype)
    for way in workload.torch_ways():
        training = torch_baseline.TorchTraining(way, recipe.seed)
        ways[way.name] = partial(training.epoch, images, labels)
    yield from compare("training", ways, workload.rounds, "images/s", lambda seconds: rows / seconds)


def measure_reading(workload: Workload) -> Iterator[Row]:
    """Part e: pandas alone, and the program, which checks what it reads."""
    files = paths.data_files(workload.input)[1] if workload.input else []
    if {path.suffix for path in files} != {".csv"}:
        print("left out: reading the CSVs, which are not there", flush=True)
        return
    ways = {
        "pandas.read_csv": lambda: [pd.read_csv(path) for path in files],
        "ours, checked": lambda: digits.load(workload.input),
    }
    yield from compare("reading the CSVs", ways, workload.rounds)


def measure_predicting(workload: Workload) -> Iterator[Row]:
    """Part f: the members share a network, as in training; giving it other weights takes no time.

    Without views: a network that has not learned is sure of no picture, one that has looks again at some 5 %.
    """
    from digit_recognizer.training import networks
    from digit_recognizer.training.fold import FoldTrainer
    from digit_recognizer.training.predict import predict_with_tta

    images = workload.dataset.test_images[: workload.predicted]
    for name in ("fast", "bn_cnn"):
        recipe = named_recipes.named(name)
        network = FoldTrainer(recipe, len(workload.dataset.train_images)).network
        work = partial(predict_with_tta, network, images)
        seconds = [timed(work) for _ in range(workload.folds)]
        what = f"predicting {len(images)} rows, {workload.folds} members"
        yield {"what": what, "way": name, "median": sum(seconds), "unit": "s", "rounds": seconds}
    usual, images = networks.build(recipe), images[: workload.rows]
    ways = {
        "model.predict": lambda: usual.predict(images, verbose=0),
        "ours": lambda: predict_with_tta(network, images),
    }
    for way in workload.torch_ways():
        ways[way.name] = partial(torch_baseline.predictor(way), images)
    yield from compare("predicting", ways, workload.rounds, "images/s", lambda taken: len(images) / taken)
