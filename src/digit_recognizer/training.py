"""Trains one fold, so that a session that dies loses at most the epoch it was in.

What an epoch computes depends on the weights, the optimizer, the callbacks and (seed, repeat, fold, epoch)
alone. The first three are saved after every epoch in one file, written whole or not at all; the row
order, augmentation and dropout are drawn anew from the last. So a fold killed at any moment and started
again ends with the same bytes as one left alone.
"""

import csv
import functools
import itertools
import json
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import keras
import numpy as np

from digit_recognizer import backend, models, schedules
from digit_recognizer.digits import CLASSES, SIDE, Dataset, Digits
from digit_recognizer.epochs import (
    Batches,
    LoopModel,
    Reseed,
    ShuffledEpochs,
    batches_at_once,
    rows_of_epoch,
    seed_of_weights,
    stream,
)
from digit_recognizer.errors import UserError
from digit_recognizer.folds import Fold
from digit_recognizer.recipes import Recipe
from digit_recognizer.run import atomic, read_json, write_arrays, write_json
from digit_recognizer.scores import scores

HISTORY = ("epoch", "accuracy", "loss", "val_accuracy", "val_loss", "learning_rate", "seconds")
MONITOR = "val_accuracy"  # the epoch in which it is highest predicts

# The highest probability of a picture from which on its neighbours' do not change the answer.
_SURE = 0.999


def train_fold(
    recipe: Recipe,
    dataset: Dataset,
    fold: Fold,
    folder: Path,
    callbacks: Iterable[keras.callbacks.Callback] = (),
) -> dict[str, Any]:
    """Trains one member of the ensemble in `folder`, from where it stopped, and returns its metrics.

    New weights, a new state of the optimizer and new callbacks each time: sharing them between folds would
    leak one into the next. `callbacks` are further ones, to watch. When it is done `folder` holds
    model.keras (the weights of the epoch with the highest val_accuracy, the earliest on a tie),
    history.csv, the probabilities of the validation rows and of the test rows (float32 (n, 10)) and, last
    of all, metrics.json.

    Raises UserError if the loss stops being a number.
    """
    state = folder / "state.npz"
    if (folder / "metrics.json").exists():
        state.unlink(missing_ok=True)  # the process was killed between the two
        return read_json(folder / "metrics.json")
    folder.mkdir(parents=True, exist_ok=True)
    rows = rows_of_epoch(recipe, len(fold.train_rows))
    network = predictor(recipe, rows)  # the first that is built: it clears Keras' session
    model = _untrained(recipe, fold, rows)
    train, validation = _rows(dataset.train, fold.train_rows), _rows(dataset.train, fold.validation_rows)
    rules = schedules.callbacks(recipe, MONITOR)
    average = Average()
    checkpoint = Checkpoint(state, rules, average)
    checkpoint.restore(model)
    done = len(checkpoint.history)
    if not checkpoint.stopped and done < recipe.epochs:
        batches = batches_at_once(means(recipe, rows)[0], rows // min(recipe.batch_size, rows))
        epochs = ShuffledEpochs(train, recipe, fold, done, batches)
        try:
            model.fit(
                stream(epochs),
                shuffle=False,  # else the batches, across epochs
                steps_per_epoch=epochs.parts,
                epochs=recipe.epochs,
                initial_epoch=done,
                validation_data=stream(Batches(validation.images, validation.labels)),
                callbacks=[Reseed(recipe, fold), average, *rules, checkpoint, *callbacks],
                verbose=0,
            )
        except BaseException:
            learner.cache_clear()  # it may be left without its variables, as JAX takes them out
            raise
    network.set_weights(checkpoint.best_weights)
    return _finish(recipe, dataset.test, validation, fold, folder, checkpoint, network)


def _untrained(recipe: Recipe, fold: Fold, rows: int) -> keras.Model:
    """The shared learner with the member's initial weights and the optimizer's first state."""
    model, blank = learner(recipe, rows, *means(recipe, rows))
    keras.utils.set_random_seed(seed_of_weights(recipe, fold))
    _assign(model.weights, _values(models.build(recipe).weights))
    _assign(model.optimizer.variables, blank)
    return model


def means(recipe: Recipe, rows: int) -> tuple[str | None, str]:
    """What XLA compiles (`backend.compiled`) and the precision, on this machine, with so many rows an epoch."""
    precision, dense = backend.precision(recipe.precision), recipe.network == "mlp"
    compiled = backend.compiled(precision, recipe.epochs * rows, not dense)
    # a step of dense layers alone takes a processor less time, too, than Python needs to begin one
    return "epoch" if compiled and dense else compiled, precision


@functools.lru_cache(maxsize=1)
def learner(
    recipe: Recipe, rows: int, compiled: str | None, precision: str
) -> tuple[keras.Model, list[np.ndarray]]:
    """The recipe's network, ready for `fit` with so many rows an epoch, and its optimizer's first state.

    The members of an ensemble share it, and `predictor`, one after the other, each with weights and a state
    of its own: they are traced and compiled once, and a process never gives back what that takes.
    """
    model = models.build(recipe, models.COMPILED if compiled else models.UNCOMPILED, precision)
    batch_size = min(recipe.batch_size, rows)
    if compiled != "step":
        model = LoopModel(model, batch_size)
    schedules.compile(model, recipe, rows // batch_size, by_xla=bool(compiled))
    model.optimizer.build(model.trainable_variables)
    return model, _values(model.optimizer.variables)


@functools.lru_cache(maxsize=1)
def predictor(recipe: Recipe, rows: int) -> keras.Model:
    """The recipe's network as it is saved and predicts, with any weights; `rows` are those of an epoch."""
    keras.utils.clear_session()  # so that its layers have the same names in every process
    network = models.build(recipe)
    network.jit_compile = bool(means(recipe, rows)[0])  # where training is compiled, predicting pays as well
    return network


def _values(variables: list[keras.Variable]) -> list[np.ndarray]:
    return [keras.ops.convert_to_numpy(each) for each in variables]


def _assign(variables: list[keras.Variable], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


def _finish(
    recipe: Recipe,
    test: Digits,
    validation: Digits,
    fold: Fold,
    folder: Path,
    checkpoint: "Checkpoint",
    network: keras.Model,
) -> dict[str, Any]:
    """Predicts with the best epoch's `network` and writes what a finished fold holds; metrics.json makes it one."""
    began = time.perf_counter()
    with atomic(folder / "model.keras") as file:
        network.save(file)
    probabilities = predict(network, validation.images, recipe.test_shift)
    test_probabilities = predict(network, test.images, recipe.test_shift)
    for name, values in (("validation", probabilities), ("test", test_probabilities)):
        with atomic(folder / f"{name}_probabilities.npy") as file:
            np.save(file, values)
    checkpoint.write_history()
    metrics = {
        "repeat": fold.repeat,
        "fold": fold.fold,
        **scores(validation.labels, probabilities),
        "parameters": network.count_params(),
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
        moves = list(itertools.product((0, shift, 2 * shift), repeat=2))
        views = np.concatenate([padded[:, y : y + SIDE, x : x + SIDE] for y, x in moves])
        probabilities[unsure] = _predict(model, views).reshape(len(moves), -1, CLASSES).mean(axis=0)
    return probabilities


def _predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """In whole batches, filled up with empty pictures: code is compiled for one shape alone."""
    filled = np.pad(images, ((0, -len(images) % backend.rows_at_once()), (0, 0), (0, 0)))
    return model.predict(stream(Batches(filled)), verbose=0)[: len(images)]


def _rows(digits: Digits, rows: np.ndarray) -> Digits:
    return Digits(digits.images[rows], digits.labels[rows], digits.ids[rows])


class Average(keras.callbacks.Callback):
    """Validates the moving average of the weights, where the optimizer has one, and keeps what was validated.

    At a high learning rate the weights go to and fro about a better place, which the average is near. They
    themselves are what training goes on from.

    Source: Polyak and Juditsky, 'Acceleration of stochastic approximation by averaging' (1992).
    """

    weights: list[np.ndarray]  # all of the model's, as they were last validated

    def on_test_begin(self, logs=None):
        """Called by Keras, between the last step of an epoch and its validation."""
        self._last = _values(self.model.trainable_variables)
        self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        # on JAX they are now the optimizer's own arrays, and validation deletes what it is given
        _assign(self.model.trainable_variables, _values(self.model.trainable_variables))

    def on_test_end(self, logs=None):
        """Called by Keras."""
        self.weights = _values(self.model.weights)
        _assign(self.model.trainable_variables, self._last)


class Checkpoint(keras.callbacks.Callback):
    """Saves after each epoch, in one step, all that the next one depends on, and restores it.

    Keras' own callbacks forget: ReduceLROnPlateau its state in `on_train_begin`, ModelCheckpoint its best;
    BackupAndRestore writes two files. This comes after the `rules` in the list of callbacks, so that it
    resets what they reset and saves what they decided.
    """

    _STATE = ("best", "wait", "cooldown_counter", "best_epoch", "stopped_epoch")  # of a rule

    def __init__(self, path: Path, rules: list[keras.callbacks.Callback], average: Average):
        """`path` is the file to save in; `rules`, of `schedules`, are the callbacks whose state is kept.

        `average` has the weights that the monitored value is that of.
        """
        super().__init__()
        self.path = path
        self.history: list[dict[str, Any]] = []
        self.best_weights: list[np.ndarray] = []
        self.stopped = False
        self._rules, self._average = rules, average
        self._restored: list[dict[str, Any]] = []

    @property
    def best_epoch(self) -> int:
        """The epoch, from 1, with the highest monitored value; the earliest on a tie."""
        return max(self.history, key=lambda row: row[MONITOR])["epoch"]

    def restore(self, model: keras.Model) -> None:
        """Puts the saved state into `model`; a damaged one is reported and the fold starts over."""
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
        _assign(variables, [*weights, *optimizer])
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
            self.best_weights = self._average.weights
        self.stopped = bool(self.model.stop_training)
        self.history[-1]["seconds"] = round(time.perf_counter() - self._began, 3)
        self._save()
        self.write_history()

    def _save(self) -> None:
        variables = {
            "weight": _values(self.model.weights),
            "optimizer": _values(self.model.optimizer.variables),
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
