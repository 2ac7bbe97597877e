"""Trains one fold, so that a session that dies loses at most the epoch it was in.

What an epoch computes depends on the weights, the optimizer, the callbacks and (seed, repeat, fold, epoch)
alone. The first three are saved after every epoch in one file, written whole or not at all; the row
order, augmentation and dropout are drawn anew from the last. So a fold killed at any moment and started
again ends with the same bytes as one left alone.
"""

import csv
import itertools
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from digit_recognizer import backend, models, schedules
from digit_recognizer.digits import SIDE, Dataset, Digits
from digit_recognizer.errors import UserError
from digit_recognizer.folds import Fold
from digit_recognizer.recipes import Recipe
from digit_recognizer.run import atomic, read_json, write_arrays, write_json
from digit_recognizer.scores import scores

HISTORY = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "seconds")
MONITOR = "val_accuracy"  # the epoch in which it is highest predicts

# Rows at a time without training: enough to keep two cores or a GPU busy within 0.2 GiB.
_PREDICTION_BATCH = 256

# The highest probability of a picture from which on its neighbours' do not change the answer.
_SURE = 0.999

_ROWS, _LAYERS = 0, 1  # what random numbers are for


def train_fold(
    recipe: Recipe,
    dataset: Dataset,
    fold: Fold,
    folder: Path,
    callbacks: Iterable[keras.callbacks.Callback] = (),
) -> dict[str, Any]:
    """Trains one member of the ensemble in `folder`, from where it stopped, and returns its metrics.

    A new model and new callbacks each time: sharing them between folds would leak one into the next.
    `callbacks` are further ones, to watch. When it is done `folder` holds model.keras (the weights of
    the epoch with the highest val_accuracy, the earliest on a tie), history.csv, the probabilities of
    the validation rows and of the test rows (float32 (n, 10)) and, last of all, metrics.json.

    Raises UserError if the loss stops being a number.
    """
    state = folder / "state.npz"
    if (folder / "metrics.json").exists():
        state.unlink(missing_ok=True)  # the process was killed between the two
        return read_json(folder / "metrics.json")
    folder.mkdir(parents=True, exist_ok=True)
    keras.utils.clear_session()
    keras.utils.set_random_seed(int(_draws(recipe, fold, 0, _LAYERS).integers(2**31)))  # initial weights

    steps = _steps(recipe, len(fold.train_rows))
    precision = backend.precision(recipe.precision)
    by_xla = backend.compiles(precision, recipe.epochs * steps * recipe.batch_size)
    model = models.build(recipe, models.COMPILED if by_xla else models.UNCOMPILED, precision)
    schedules.compile(model, recipe, steps, by_xla)
    train, validation = _rows(dataset.train, fold.train_rows), _rows(dataset.train, fold.validation_rows)
    rules = schedules.callbacks(recipe, MONITOR)
    checkpoint = Checkpoint(state, rules)
    checkpoint.restore(model)
    done = len(checkpoint.history)
    if not checkpoint.stopped and done < recipe.epochs:
        epochs = ShuffledEpochs(train, recipe, fold, done)
        model.fit(
            epochs,
            shuffle=False,  # else the batches, across epochs
            steps_per_epoch=epochs.steps,
            epochs=recipe.epochs,
            initial_epoch=done,
            validation_data=(validation.images, validation.labels),
            validation_batch_size=_PREDICTION_BATCH,
            callbacks=[Reseed(recipe, fold), *rules, checkpoint, *callbacks],
            verbose=0,
        )
    return _finish(recipe, dataset.test, validation, fold, folder, checkpoint)


def _finish(
    recipe: Recipe, test: Digits, validation: Digits, fold: Fold, folder: Path, checkpoint: "Checkpoint"
) -> dict[str, Any]:
    """Predicts with the best epoch's weights and writes what a finished fold holds; metrics.json makes it one."""
    began = time.perf_counter()
    model = models.build(recipe)  # without an optimizer, which would triple the file
    model.set_weights(checkpoint.best_weights)
    with atomic(folder / "model.keras") as file:
        model.save(file)
    probabilities = predict(model, validation.images, recipe.test_shift)
    test_probabilities = predict(model, test.images, recipe.test_shift)
    for name, values in (("validation", probabilities), ("test", test_probabilities)):
        with atomic(folder / f"{name}_probabilities.npy") as file:
            np.save(file, values)
    checkpoint.write_history()
    metrics = {
        "repeat": fold.repeat,
        "fold": fold.fold,
        **scores(validation.labels, probabilities),
        "parameters": model.count_params(),
        "best_epoch": checkpoint.best_epoch,
        "epochs": len(checkpoint.history),
        "seconds": sum(row["seconds"] for row in checkpoint.history) + time.perf_counter() - began,
    }
    write_json(folder / "metrics.json", metrics)
    checkpoint.path.unlink(missing_ok=True)
    return metrics


def predict(model: keras.Model, images: np.ndarray, shift: int = 0) -> np.ndarray:
    """Class probabilities, float32 (n, 10), of uint8 images (n, 28, 28).

    With a `shift`, those of the pictures that the model is not sure of are the mean over the picture as it
    is and moved by so many pixels in each of the 8 directions; what comes in from outside is 0. The others
    it would only predict nine times over.
    """
    probabilities = _predict(model, images)
    unsure = np.flatnonzero(probabilities.max(axis=1) < _SURE) if shift else []
    if len(unsure):
        padded = np.pad(images[unsure], ((0, 0), (shift, shift), (shift, shift)))
        moves = itertools.product((0, shift, 2 * shift), repeat=2)
        views = [_predict(model, padded[:, y : y + SIDE, x : x + SIDE]) for y, x in moves]
        probabilities[unsure] = np.mean(views, axis=0)
    return probabilities


def _predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    return model.predict(images, batch_size=_PREDICTION_BATCH, verbose=0)


def _rows(digits: Digits, rows: np.ndarray) -> Digits:
    return Digits(digits.images[rows], digits.labels[rows], digits.ids[rows])


def _draws(recipe: Recipe, fold: Fold, epoch: int, purpose: int) -> np.random.Generator:
    """All randomness comes from here: epochs count from 1, and 0 is before the first, for initial weights."""
    return np.random.default_rng([recipe.seed, fold.repeat, fold.fold, epoch, purpose])


def _steps(recipe: Recipe, rows: int) -> int:
    """The steps of an epoch over so many training rows."""
    return max(1, rows // recipe.batch_size)


class ShuffledEpochs(keras.utils.PyDataset):
    """A fold's training rows in batches, each epoch in its own order, all epochs in one sequence.

    `fit` reads ahead, into the next epoch too, so a batch must follow from its number alone. The rows
    that do not fill a batch are left out, other ones each epoch, as the tutorial does: then every step
    has one shape and is compiled once.
    """

    def __init__(self, train: Digits, recipe: Recipe, fold: Fold, done: int):
        """`train` are the training rows of the fold alone; `done` is the number of epochs already trained."""
        super().__init__()
        self.train, self.recipe, self.fold, self.done = train, recipe, fold, done
        self.batch_size = min(recipe.batch_size, len(train.images))
        self.steps = _steps(recipe, len(train.images))  # an epoch
        self._epoch, self._order = 0, np.empty(0, int)

    def __len__(self) -> int:
        """Batches in all epochs still to train."""
        return (self.recipe.epochs - self.done) * self.steps

    def __getitem__(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Images uint8 (batch, 28, 28) and labels uint8 (batch,)."""
        epoch, batch = divmod(number, self.steps)
        epoch += self.done + 1
        if epoch != self._epoch:
            self._epoch = epoch
            self._order = _draws(self.recipe, self.fold, epoch, _ROWS).permutation(len(self.train.images))
        rows = self._order[batch * self.batch_size : (batch + 1) * self.batch_size]
        return self.train.images[rows], self.train.labels[rows]


class Reseed(keras.callbacks.Callback):
    """Begins each epoch with random states of the layers that depend on (seed, repeat, fold, epoch) alone.

    Keras' seed generators go on from wherever they were, which a new process does not know.
    """

    def __init__(self, recipe: Recipe, fold: Fold):
        """Which fold of which recipe is trained."""
        super().__init__()
        self.recipe, self.fold = recipe, fold

    def on_epoch_begin(self, epoch, logs=None):
        """Called by Keras."""
        draws = _draws(self.recipe, self.fold, epoch + 1, _LAYERS)
        for layer in self.model.layers:
            if hasattr(layer, "seed_generator"):
                layer.seed_generator.state.assign(draws.integers(2**31, size=2))


class Checkpoint(keras.callbacks.Callback):
    """Saves after each epoch, in one step, all that the next one depends on, and restores it.

    Keras' own callbacks forget: ReduceLROnPlateau its state in `on_train_begin`, ModelCheckpoint its best;
    BackupAndRestore writes two files. This comes after the `rules` in the list of callbacks, so that it
    resets what they reset and saves what they decided.
    """

    _STATE = ("best", "wait", "cooldown_counter", "best_epoch", "stopped_epoch")  # of a rule

    def __init__(self, path: Path, rules: list[keras.callbacks.Callback]):
        """`path` is the file to save in; `rules`, of `schedules`, are the callbacks whose state is kept."""
        super().__init__()
        self.path = path
        self.history: list[dict[str, Any]] = []
        self.best_weights: list[np.ndarray] = []
        self.stopped = False
        self._rules = rules
        self._restored: list[dict[str, Any]] = []

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, with the highest monitored value; the earliest on a tie."""
        return max(self.history, key=lambda row: row[MONITOR])["epoch"]

    def restore(self, model: keras.Model) -> None:
        """Puts the saved state into `model`; a damaged one is reported and the fold starts over."""
        model.optimizer.build(model.trainable_variables)
        if not self.path.exists():
            return
        try:
            with np.load(self.path) as arrays:
                facts = json.loads(str(arrays["facts"]))
                weights, optimizer, best = (
                    [arrays[f"{kind}_{number}"] for number in range(count)]
                    for kind, count in facts["counts"].items()
                )
            variables = [*model.weights, *model.optimizer.variables]
            if [tuple(v.shape) for v in variables] != [v.shape for v in [*weights, *optimizer]]:
                raise ValueError("it is of another network")
        except Exception as error:  # whatever reading a damaged file raises
            print(f"{self.path} is damaged ({error}): this fold starts over", flush=True)
            self.path.unlink()
            return
        for variable, value in zip(variables, [*weights, *optimizer], strict=True):
            variable.assign(value)
        self.history, self.stopped, self._restored = facts["history"], facts["stopped"], facts["rules"]
        self.best_weights = best

    def on_train_begin(self, logs=None):
        """Called by Keras, after the rules have reset themselves."""
        for rule, state in zip(self._rules, self._restored, strict=False):
            for name, value in state.items():
                setattr(rule, name, value)

    def on_epoch_begin(self, epoch, logs=None):
        """Called by Keras."""
        self._began = time.perf_counter()
        self._learning_rate = float(self.model.optimizer.learning_rate)

    def on_epoch_end(self, epoch, logs=None):
        """Called by Keras, after validation and after the rules."""
        if not np.isfinite(logs["loss"]):
            raise UserError(
                f"{self.path.parent}: the loss is {logs['loss']} in epoch {epoch + 1}: "
                "start again in another --output with a smaller --set learning_rate"
            )
        row = {"epoch": epoch + 1} | {name: float(logs[name]) for name in HISTORY[1:5]}
        self.history.append(row | {"learning_rate": self._learning_rate})
        if self.best_epoch == epoch + 1:
            self.best_weights = self.model.get_weights()
        self.stopped = bool(self.model.stop_training)
        self.history[-1]["seconds"] = round(time.perf_counter() - self._began, 3)
        self._save()
        self.write_history()

    def _save(self) -> None:
        variables = {
            "weight": self.model.get_weights(),
            "optimizer": [keras.ops.convert_to_numpy(each) for each in self.model.optimizer.variables],
            "best": self.best_weights,
        }
        facts = {
            "counts": {kind: len(values) for kind, values in variables.items()},
            "history": self.history,
            "stopped": self.stopped,
            "rules": [
                {name: getattr(rule, name) for name in self._STATE if hasattr(rule, name)}
                for rule in self._rules
            ],
        }
        arrays = {
            f"{kind}_{i}": value for kind, values in variables.items() for i, value in enumerate(values)
        }
        write_arrays(self.path, facts=json.dumps(facts), **arrays)

    def write_history(self) -> None:
        """Writes history.csv."""
        with atomic(self.path.with_name("history.csv")) as path, path.open("w", newline="") as file:
            writer = csv.DictWriter(file, HISTORY)
            writer.writeheader()
            writer.writerows(self.history)
