"""What happens between the epochs of a training: seeds, the weights that predict, the time budget, a bar of batches."""

import dataclasses
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import keras
import numpy as np
from tqdm import tqdm

from digit_recognizer.data.digits import Dataset
from digit_recognizer.recipes import AUGMENTATION, Recipe
from digit_recognizer.runs.member import Member
from digit_recognizer.training import networks
from digit_recognizer.training.batches import LAYERS, STATISTICS, random_numbers
from digit_recognizer.training.predict import VIEW_RANGE

# Batch normalisation: the number of training rows for its statistics, and the rows of a batch of them.
STATISTICS_ROWS, _STATISTICS_BATCH = 4096, 512


def values(variables: list[keras.Variable]) -> list[np.ndarray]:
    """Returns the values of Keras variables."""
    return [keras.ops.convert_to_numpy(variable) for variable in variables]


def assign(variables: list[keras.Variable], arrays: list[np.ndarray]) -> None:
    """Gives each variable its value."""
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def seed_layers(model: keras.Model, random: np.random.Generator) -> None:
    """Gives new seeds to the layers that draw random numbers, augmentation and dropout."""
    for layer in model.layers:
        if hasattr(layer, "seed_generator"):
            layer.seed_generator.state.assign(random.integers(2**31, size=2))


class Reseed(keras.callbacks.Callback):
    """Reseeds augmentation and dropout before each epoch, from the recipe's seed, the member and the epoch."""

    def __init__(self, recipe: Recipe, member: Member):
        super().__init__()
        self.recipe, self.member = recipe, member

    def on_epoch_begin(self, epoch, logs=None):
        seed_layers(self.model, random_numbers(self.recipe, self.member, epoch + 1, LAYERS))


class ValidationWeights(keras.callbacks.Callback):
    """Validates the weights that predict, and keeps them; training continues with its own weights.

    They are the moving average of the weights, if the optimizer has one, with statistics of batch normalisation that
    fit them. At a high learning rate the weights oscillate around a better point; their moving average is closer to it.
    Source: Polyak and Juditsky, 'Acceleration of stochastic approximation by averaging' (1992).
    """

    weights: list[np.ndarray]  # all of the model's weights, as they were last validated

    def __init__(self, update_statistics: Callable[[keras.Model], None] = lambda model: None):
        """`update_statistics` replaces the statistics of batch normalisation of a model."""
        super().__init__()
        self._update_statistics = update_statistics

    def on_test_begin(self, logs=None):
        """Puts the weights that predict in place, between the last step of an epoch and its validation."""
        variables = self.model.trainable_variables
        self._last = values(variables)
        self.model.optimizer.finalize_variable_values(variables)
        # on JAX they are now the optimizer's own arrays, and validation deletes what it is given
        assign(variables, values(variables))
        self._update_statistics(self.model)

    def on_test_end(self, logs=None):
        """Puts the training's weights back. Training does not use the statistics, so they stay."""
        self.weights = values(self.model.weights)
        assign(self.model.trainable_variables, self._last)


class BatchStatistics:
    """Computes the statistics of batch normalisation from training rows, with the weights that predict.

    The moving averages that training keeps lag behind the weights, and the averaged weights that predict are weights
    for which no statistics were ever kept. Computed from large batches with the weights themselves, they fit, however
    short the training was. Sources: Wu and Johnson, 'Rethinking "Batch" in BatchNorm' (2021); Izmailov and others,
    'Averaging weights leads to wider optima and better generalization' (2018).
    """

    def __init__(self, recipe: Recipe, layer_set: networks.LayerSet, compute_dtype: str):
        """Builds a network without dropout that keeps a batch's statistics and distorts as the recipe's views."""
        share = VIEW_RANGE if recipe.tta_views else 0.0
        changes = {name: share * getattr(recipe, name) for name in AUGMENTATION}
        changes |= {"dropout": 0.0, "conv_dropout": 0.0, "batchnorm_momentum": 0.0}
        self._network = networks.build(dataclasses.replace(recipe, **changes), layer_set, compute_dtype)

    def updater(self, recipe: Recipe, member: Member, dataset: Dataset) -> Callable[[keras.Model], None]:
        """Returns `update` with training rows of the member, chosen by its seed."""
        random = random_numbers(recipe, member, 0, STATISTICS)
        images, _ = dataset.training_data(member.train_rows)
        images = images[random.permutation(len(images))[:STATISTICS_ROWS]]
        return partial(self.update, images=images, seed=int(random.integers(2**31)))

    def update(self, model: keras.Model, images: np.ndarray, seed: int) -> None:
        """Sets the statistics of `model` from `images`, uint8 (n, 28, 28), which are distorted with this `seed`."""
        moving, computed = _moving_statistics(model), _moving_statistics(self._network)
        if not moving:
            return
        assign(self._network.trainable_variables, values(model.trainable_variables))
        seed_layers(self._network, np.random.default_rng(seed))
        of_batches = []
        for batch in np.array_split(
            images[:STATISTICS_ROWS], max(1, len(images[:STATISTICS_ROWS]) // _STATISTICS_BATCH)
        ):
            self._network(batch, training=True)
            of_batches.append([np.float64(array) for array in values(computed)])
        # means and variances of each normalisation, (batches, channels), in turns
        arrays = [np.array(lines) for lines in zip(*of_batches, strict=True)]
        for number in range(0, len(arrays), 2):
            means, variances = arrays[number : number + 2]
            moving[number].assign(means.mean(axis=0).astype(np.float32))
            moving[number + 1].assign((variances.mean(axis=0) + means.var(axis=0)).astype(np.float32))


def _moving_statistics(model: keras.Model) -> list[keras.Variable]:
    """Returns the moving mean and the moving variance of each batch normalisation, in turns."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    return [variable for layer in layers for variable in (layer.moving_mean, layer.moving_variance)]


class OutOfTimeError(Exception):
    """There is no time for another epoch."""


class TimeBudget(keras.callbacks.Callback):
    """Stops the training before an epoch that would not end in time, judged by the longest epoch so far.

    A member's last epoch is followed by its predictions, which count as an epoch until they have been measured.
    """

    _MARGIN = 1.5  # multiple of the measured time: a busy machine

    def __init__(self, deadline: float):
        """`deadline` is in seconds, as time.monotonic counts them."""
        super().__init__()
        self.deadline, self.longest = deadline, 0.0
        self._prediction: float | None = None  # seconds
        self._trained: float | None = None  # when the last member's training ended

    def check(self, is_last: bool = False) -> None:
        """Raises OutOfTimeError unless there is time for another epoch; `is_last`: and for the member's predictions."""
        if self._trained is not None:
            self._prediction, self._trained = time.monotonic() - self._trained, None
        predictions = self.longest if self._prediction is None else self._prediction
        if time.monotonic() + self._MARGIN * (self.longest + is_last * predictions) > self.deadline:
            raise OutOfTimeError

    def on_epoch_begin(self, epoch, logs=None):
        """Stops the training, whose last epoch is saved, if there is no time for this one."""
        self.check(is_last=epoch + 1 == self.params["epochs"])
        self._began = time.monotonic()

    def on_epoch_end(self, epoch, logs=None):
        self.longest = max(self.longest, time.monotonic() - self._began)

    def on_train_end(self, logs=None):
        self._trained = time.monotonic()


def tensorboard_log(folder: Path) -> keras.callbacks.Callback:
    """Returns the callback that logs loss, accuracy and learning rate of each epoch for TensorBoard."""
    logger = keras.callbacks.TensorBoard(folder, write_graph=False)
    logger._collect_learning_rate = lambda logs: logs  # Keras takes the rate of the last step, the checkpoint the mean
    return logger


class BatchBar(keras.callbacks.Callback):
    """Shows the batches of each epoch as a bar on a terminal."""

    def __init__(self, name: str, batches: int):
        """`name` is the member's, `batches` the number of batches of an epoch."""
        super().__init__()
        self.name, self.batches = name, batches

    def on_epoch_begin(self, epoch, logs=None):
        self._bar = tqdm(total=self.batches, desc=f"{self.name} epoch {epoch + 1}", unit="batch", leave=False)

    def on_train_batch_end(self, batch, logs=None):
        """Moves the bar. One call of the training function takes several batches."""
        self._bar.update(min(-(-self.batches // self.params["steps"]), self.batches - self._bar.n))

    def on_epoch_end(self, epoch, logs=None):
        self._bar.close()
