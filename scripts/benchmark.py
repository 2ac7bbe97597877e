"""Measures the program's speed beside that of the usual ways: a table, benchmark.json and benchmark.png.

The parts:
  g  how cost and memory grow with rows, members and epochs
  a  training the tutorial's network of 742,858 parameters
  c  augmentation alone
  d  batch normalisation alone, and with pooling and ReLU
  e  reading the CSVs
  f  predicting test.csv with an ensemble of 15
  b  from the start to a validation accuracy of 0.9940 (hours: only with --full or --only b)
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np
import pandas as pd

from digit_recognizer import cli, files, recipes
from digit_recognizer.benchmark import baseline, timing
from digit_recognizer.benchmark.baseline import BATCH
from digit_recognizer.benchmark.timing import Row, compare, growth, moment, timed
from digit_recognizer.data import digits, folds, places
from digit_recognizer.data.digits import Dataset, Digits
from digit_recognizer.errors import UserError
from digit_recognizer.files import atomic, write_json
from digit_recognizer.recipes import Recipe
from digit_recognizer.training import backend

HOLDOUT, ACCURACY = 0.15, 0.9940  # of part b
BLOCKS = ((BATCH, 28, 28, 64), (BATCH, 14, 14, 128))  # what the tutorial's network normalises


@dataclass(frozen=True)
class Setting:
    """What the parts measure with, and how much of it."""

    dataset: Dataset
    input: Path | None  # its folder; None: the built-in sample
    seeds: list[int]  # of part b
    rounds: int = 5
    steps: int = 60  # of training, a round
    batches: int = 32  # augmented or normalised, a round
    members: int = 15
    rows: int = 2048  # of the smallest training whose growth is measured
    group: int = 3  # epochs or members told together
    predicted: int | None = None  # rows of test.csv; None: all
    epochs: int = 50  # of part b, at most
    reached: tuple[Row, ...] = ()  # of part b, measured before: they are not measured again


QUICK = {"rounds": 2, "steps": 2, "batches": 2, "members": 3, "rows": 128, "group": 1}
QUICK |= {"predicted": 128, "epochs": 1}


class EnoughError(Exception):
    """There is nothing more to know of a training."""


def on_tensorflow(what: str) -> bool:
    """True on TensorFlow; elsewhere says that `what`, which only TensorFlow has, is left out."""
    if os.environ["KERAS_BACKEND"] == "tensorflow":
        return True
    print(f"left out on JAX: {what}", flush=True)
    return False


def first_rows(whole: Digits, rows: int) -> Digits:
    """So many rows from the first on, and over again where there are fewer."""
    which = np.arange(rows) % len(whole.images)
    return Digits(whole.images[which], whole.labels[which], whole.ids[which])


def epoch(model: Any, batches: Any, **options: Any) -> Callable[[], float]:
    """A function that trains a `model` for an epoch and returns its seconds.

    What follows on the last step does not count: where Keras makes the pipeline (`epochs.stream` tells of it)
    the end of `fit` may wait for seconds, which are few in a long training and many in this one.
    """
    import keras

    def fit():
        ticks = []

        def tick(*_):
            ticks.append(time.perf_counter())

        watch = keras.callbacks.LambdaCallback(on_epoch_begin=tick, on_epoch_end=tick)
        model.fit(batches, callbacks=[watch], verbose=0, **options)
        return ticks[1] - ticks[0]

    return fit


def epoch_here(recipe: Recipe, train: Digits, compiled: str | None, precision: str) -> Callable[[], float]:
    """The same of a network of the recipe, as training.py trains it."""
    from digit_recognizer.training.batches import ShuffledEpochs, batches_at_once, stream
    from digit_recognizer.training.fold import learner

    model, _ = learner.__wrapped__(recipe, len(train.images), compiled, precision)  # not one for all ways
    every = folds.Fold(0, 0, 0, np.arange(len(train.images)), np.arange(0))
    steps = len(train.images) // recipe.batch_size
    epochs = ShuffledEpochs(train, recipe, every, 0, batches_at_once(compiled, steps))
    return epoch(model, stream(epochs), shuffle=False, steps_per_epoch=epochs.parts)


def training(setting: Setting) -> Iterator[Row]:
    """Part a: without validation, once the code is there."""
    from digit_recognizer.training.fold import means

    recipe, images = recipes.named("bn_cnn"), setting.steps * BATCH
    train, ours = first_rows(setting.dataset.train, images), means(recipe, len(setting.dataset.train.images))
    ways = {}
    if on_tensorflow("training as published, and uncompiled"):
        model, flow = baseline.compiled(), baseline.augmented(baseline.floats(train.images), train.labels)
        ways["as published"] = epoch(model, flow)
    for way in dict.fromkeys([(None, "float32"), ("step", "float32"), ours]):
        compiled, precision = way
        if compiled or ways:
            name = f"ours, {compiled + ' compiled' if compiled else 'uncompiled'}, {precision}"
            ways[name + " (chosen here)" * (way == ours)] = epoch_here(recipe, train, compiled, precision)
    yield from compare("training", ways, setting.rounds, "images/s", lambda seconds: images / seconds)


def reaching(setting: Setting) -> Iterator[Row]:
    """Part b, from building the network on; a training that never gets there counts with its whole length.

    A seed takes an hour or more: those that an earlier process has measured stay. The medians are those of
    the seeds that every way has.
    """
    import keras

    from digit_recognizer.training import optimization
    from digit_recognizer.training.fold import MONITOR, train_fold

    def enough(*_):
        raise EnoughError

    def watch(epochs):
        def ended(epoch, logs):
            epochs.append((time.perf_counter(), float(logs["val_accuracy"])))
            if epochs[-1][1] >= ACCURACY:
                enough()

        return keras.callbacks.LambdaCallback(on_epoch_end=ended, on_train_end=enough)

    def as_published(recipe, fold, watch):
        images, labels = baseline.floats(train.images), train.labels
        flow = baseline.augmented(images[fold.train_rows], labels[fold.train_rows])
        validated = images[fold.validation_rows], labels[fold.validation_rows]
        rules = [*optimization.callbacks(recipe, MONITOR), watch]
        model = baseline.compiled()
        model.fit(flow, epochs=recipe.epochs, validation_data=validated, callbacks=rules, verbose=0)

    def as_here(recipe, fold, watch):
        with tempfile.TemporaryDirectory() as folder:
            train_fold(recipe, setting.dataset, fold, Path(folder) / fold.name, [watch])

    ways = {"bn_cnn": as_published} if on_tensorflow("bn_cnn as published, to an accuracy") else {}
    ways["fast"] = as_here
    train, found = setting.dataset.train, {name: {} for name in ways}
    for row in setting.reached:
        found[row["way"]][row["what"]] = row["median"]
        yield row
    for seed in setting.seeds:
        for name, way in ways.items():
            what = f"to {ACCURACY:.4f}, seed {seed}"
            if what in found[name]:
                continue
            recipe = recipes.named(name)
            options = {"holdout": HOLDOUT, "seed": seed, "epochs": min(recipe.epochs, setting.epochs)}
            recipe = recipes.change(recipe, options)
            fold = folds.members(folds.split(train.labels, recipe))[0]
            keras.utils.clear_session()
            keras.utils.set_random_seed(seed)
            began, epochs = time.perf_counter(), []
            with suppress(EnoughError):
                way(recipe, fold, watch(epochs))
            found[name][what] = epochs[-1][0] - began
            row = {"what": what, "way": name, "median": found[name][what], "unit": "s"}
            # of its own: a seed may have been measured long before the others
            row |= {"commit": files.commit()}
            yield row | {"accuracies": [accuracy for _, accuracy in epochs]}
    shared = sorted(set.intersection(*map(set, found.values())))
    rounds = {name: [seconds[what] for what in shared] for name, seconds in found.items()}
    medians = {name: statistics.median(seconds) for name, seconds in rounds.items()}
    for name, median in medians.items():
        row = {"what": f"to {ACCURACY:.4f}", "way": name, "median": median, "unit": "s"}
        yield row | {"ratio": next(iter(medians.values())) / median, "rounds": rounds[name]}


def augmenting(setting: Setting) -> Iterator[Row]:
    """Part c."""
    if not on_tensorflow("augmentation alone"):
        return
    import tensorflow as tf
    from keras import layers

    from digit_recognizer.training.layers import RandomAffine

    images = baseline.floats(first_rows(setting.dataset.train, setting.batches * BATCH).images)
    batches = [tf.constant(batch) for batch in np.split(images, setting.batches)]
    flow = baseline.augmented(images)

    def through(*chain, by_xla=False):
        @tf.function(jit_compile=by_xla)
        def augment(pictures):
            for layer in chain:
                pictures = layer(pictures, training=True)
            return pictures

        return lambda: [augment(batch) for batch in batches][-1].numpy()

    usual = layers.RandomRotation(10 / 360), layers.RandomZoom(0.1, 0.1), layers.RandomTranslation(0.1, 0.1)
    ways = {
        "ImageDataGenerator": lambda: [flow[number] for number in range(len(flow))],
        "Keras' three layers": through(*usual),
        "RandomAffine, uncompiled": through(RandomAffine(**baseline.AUGMENTATION)),
        "RandomAffine, compiled": through(RandomAffine(**baseline.AUGMENTATION), by_xla=True),
    }
    yield from compare("augmenting", ways, setting.rounds, "images/s", lambda seconds: len(images) / seconds)


def normalising(setting: Setting) -> Iterator[Row]:
    """Part d: forward and backward, float32."""
    if not on_tensorflow("batch normalisation alone"):
        return
    import keras
    import tensorflow as tf

    from digit_recognizer.training.networks import COMPILED, PUBLISHED, UNCOMPILED

    def step(layout, shape, whole, by_xla=False):
        rest = [keras.layers.Activation("relu"), layout.pooling()] if whole else []
        rest = reversed(rest) if layout.pools_first else rest
        block = keras.Sequential([keras.Input(shape[1:], shape[0]), layout.normalisation(), *rest])
        pictures, slope = (tf.random.stateless_normal(each, (0, 0)) for each in (shape, block.output_shape))

        @tf.function(jit_compile=by_xla)
        def differentiate():
            with tf.GradientTape() as tape:
                tape.watch(pictures)
                outputs = block(pictures, training=True)
            return tape.gradient(outputs, [pictures, *block.trainable_variables], slope)

        return lambda: [differentiate() for _ in range(setting.batches)][-1][0].numpy()

    for shape in BLOCKS:
        for whole, what in ((False, "normalising"), (True, "normalising, pooling, ReLU")):
            ways = {
                "as published": step(PUBLISHED, shape, whole),
                "ours, uncompiled": step(UNCOMPILED, shape, whole),
                "ours, compiled": step(COMPILED, shape, whole, by_xla=True),
            }
            what = f"{what} {'x'.join(map(str, shape))}"
            yield from compare(what, ways, setting.rounds, "ms", lambda taken: 1000 * taken / setting.batches)


def reading(setting: Setting) -> Iterator[Row]:
    """Part e."""
    paths = places.data_files(setting.input)[1] if setting.input else []
    if {path.suffix for path in paths} != {".csv"}:
        print("left out: reading the CSVs, which are not there", flush=True)
        return
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "digits.npz"
        digits.keep(setting.dataset, setting.input, cache)
        ways = {
            "pandas.read_csv": lambda: [pd.read_csv(path) for path in paths],
            "ours": lambda: digits.read(setting.input, Path(folder) / "none"),
            "ours, from its cache": lambda: digits.read(setting.input, cache),
        }
        yield from compare("reading the CSVs", ways, setting.rounds)


def predicting(setting: Setting) -> Iterator[Row]:
    """Part f: the members share a network, as in training; the values of its weights take no time."""
    from digit_recognizer.training import networks
    from digit_recognizer.training.fold import predict, predictor

    images = setting.dataset.test.images[: setting.predicted]
    for name in ("fast", "bn_cnn"):
        network = predictor(recipes.named(name), len(setting.dataset.train.images))
        seconds = [timed(lambda: predict(network, images)) for _ in range(setting.members)]  # noqa: B023
        what = f"predicting {len(images)} rows, {setting.members} members"
        yield {"what": what, "way": name, "median": sum(seconds), "unit": "s", "rounds": seconds}
    usual, images = networks.build(recipes.named("bn_cnn")), images[: setting.rows]
    ways = {
        "model.predict": lambda: usual.predict(images, verbose=0),
        "ours": lambda: predict(network, images),
    }
    yield from compare("predicting", ways, setting.rounds, "images/s", lambda taken: len(images) / taken)


def growing(setting: Setting) -> Iterator[Row]:
    """Part g, with the recipe fast: what an epoch, a member or a row costs after many of them."""
    import keras

    from digit_recognizer.training.fold import means, train_fold

    recipe, train = recipes.named("fast"), first_rows(setting.dataset.train, setting.rows)
    small = Dataset(train, Digits(train.images[:256], None, train.ids[:256]), ("ImageId", "Label"), "")

    def split(members, epochs):
        cut = recipes.change(recipe, {"folds": members, "epochs": epochs, "test_shift": 0})
        return cut, folds.members(folds.split(train.labels, cut))

    square = np.ones((1024, 1024), np.float32)

    def now():
        return moment(lambda: [square @ square for _ in range(20)])

    moments = []
    with tempfile.TemporaryDirectory() as folder:
        cut, members = split(10, 3 * setting.group + 1)
        each = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: moments.append(now()))
        train_fold(cut, small, members[0], Path(folder) / "long", [each])
        yield from growth("epochs", moments, setting.group)

        cut, members = split(setting.members + 1, 1)
        moments = []
        for member in members:
            train_fold(cut, small, member, Path(folder) / member.name)
            moments.append(now())
        yield from growth("members", moments, setting.group)

    ways = {}
    for rows in (times * setting.rows for times in (1, 2, 4, 8)):
        here = means(recipe, len(setting.dataset.train.images))
        ways[str(rows)] = epoch_here(recipe, first_rows(setting.dataset.train, rows), *here)
    few = None
    for row in compare("rows of an epoch", ways, setting.rounds):
        cost = row["median"] / int(row["way"])
        few = few or cost
        del row["ratio"]  # they are not the same work
        yield row | {"cost": cost / few}


# In this order: the peak that g tells is that of the whole process.
PARTS = dict(g=growing, a=training, c=augmenting, d=normalising, e=reading, f=predicting, b=reaching)


def parse() -> argparse.Namespace:
    parser = cli.Parser(__doc__, places=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    add = parser.add_argument
    add("--input", metavar="DIR", type=Path, help="where the competition's files are (default: input)")
    add("--output", metavar="DIR", type=Path, help="where the results go (default: output/benchmark)")
    add("--only", metavar="PARTS", default="g,a,c,d,e,f", help="such as a,c; what is there of others stays")
    add("--full", action="store_true", help="all parts")
    add("--quick", action="store_true", help="tell whether it works: the numbers mean nothing")
    add("--threads", metavar="T", type=int, help="of the backend (default: the cores there are)")
    add("--seeds", metavar="S", type=int, nargs="+", default=[42, 43, 44], help="of b; measured ones stay")
    options = parser.parse_args()
    only = list(PARTS) if options.full else options.only.split(",")
    for part in only:
        if part not in PARTS:
            raise UserError(f"--only {options.only}: no part {part!r}; there are: {', '.join(PARTS)}")
    options.parts = [part for part in PARTS if part in only]
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads {options.threads}: it must be at least 1")
    return options


def benchmark() -> None:
    options = parse()
    backend.chosen()
    name = "benchmark_quick" if options.quick else "benchmark"
    place = places.find(options.input, places.output_folder(options.output, name))
    if place.is_sample and not options.quick:
        raise UserError("it takes the competition's files: put them into input/, or give --input DIR")
    place.tell()
    path = place.output / "benchmark.json"
    dataset = digits.sample() if place.is_sample else digits.read(place.input, place.output / "none")
    threads = options.threads or backend.cores()
    backend.start(threads)
    forced = {"cores": os.cpu_count(), "ONEDNN_MAX_CPU_ISA": os.environ.get("ONEDNN_MAX_CPU_ISA")}
    machine = backend.facts(threads, "auto") | forced | {"quick": options.quick}
    results = timing.earlier(path, machine)
    place.output.mkdir(parents=True, exist_ok=True)
    before = results["parts"].get("b", {"rows": []})["rows"]
    reached = tuple(row for row in before if "accuracies" in row)
    quick = QUICK if options.quick else {}
    setting = Setting(dataset, place.input, options.seeds, reached=reached, **quick)
    for part in options.parts:
        began, rows = time.perf_counter(), []
        about = {"date": datetime.now().isoformat(timespec="seconds"), "commit": files.commit()}
        for row in PARTS[part](setting):
            rows.append(row)
            print("  ".join([part, *timing.line(row).values()]), flush=True)
            seconds = time.perf_counter() - began
            results["parts"][part] = about | {"seconds": round(seconds, 1), "rows": rows}
            write_json(path, results)
    rows = [row for part in sorted(results["parts"]) for row in results["parts"][part]["rows"]]
    if rows:
        with atomic(path.with_suffix(".png")) as file:
            timing.draw(rows).savefig(file, dpi=110)
        print(f"\n{timing.table(rows)}\n")
    print(f"{machine['device']}, {threads} threads, {machine['precision']} where it pays: {path}")
    place.tell()


if __name__ == "__main__":
    cli.main(benchmark, "what was measured is in benchmark.json: --only takes the parts that are left")
