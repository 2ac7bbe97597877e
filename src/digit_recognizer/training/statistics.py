"""Statistics of batch normalisation, computed from training rows with the weights that predict.

The moving averages that training keeps lag behind the weights, and the averaged weights that predict are weights for
which no statistics were ever kept. Computed from large batches with the weights themselves, they fit, however short
the training was.

Sources: Wu and Johnson, 'Rethinking "Batch" in BatchNorm' (2021); Izmailov and others, 'Averaging weights leads to
wider optima and better generalization' (2018).
"""

import dataclasses

import keras
import numpy as np

from digit_recognizer.recipes import AUGMENTATION, Recipe
from digit_recognizer.training import networks
from digit_recognizer.training.callbacks import assign, seed_layers, values
from digit_recognizer.training.predict import VIEW_RANGE

ROWS, _BATCH = 4096, 512  # training rows that the statistics are computed from, and those of a batch


class BatchStatistics:
    """Computes the moving means and variances of a network from pictures."""

    def __init__(self, recipe: Recipe, layer_set: networks.LayerSet, compute_dtype: str):
        """Builds a network without dropout whose normalisation keeps the statistics of its last batch.

        It distorts the pictures as the recipe's views are distorted, and not at all if the recipe has no views.
        """
        share = VIEW_RANGE if recipe.tta_views else 0.0
        changes = {name: share * getattr(recipe, name) for name in AUGMENTATION}
        changes |= {"dropout": 0.0, "conv_dropout": 0.0, "batchnorm_momentum": 0.0}
        self._network = networks.build(dataclasses.replace(recipe, **changes), layer_set, compute_dtype)

    def update(self, model: keras.Model, images: np.ndarray, seed: int) -> None:
        """Replaces the statistics of `model`, a network of the same recipe, by those of its weights.

        They are computed from the first ROWS of `images`, uint8 (n, 28, 28); `seed` is that of the distortion.
        """
        moving, computed = _moving_statistics(model), _moving_statistics(self._network)
        if not moving:
            return
        assign(self._network.trainable_variables, values(model.trainable_variables))
        seed_layers(self._network, np.random.default_rng(seed))
        of_batches = []
        for batch in np.array_split(images[:ROWS], max(1, len(images[:ROWS]) // _BATCH)):
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
