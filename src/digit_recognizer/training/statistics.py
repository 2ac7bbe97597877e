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
from digit_recognizer.training.predict import VIEW_RANGE

ROWS, _BATCH = 4096, 512  # training rows that the statistics are computed from, and those of a batch


class BatchStatistics:
    """Computes the moving means and variances of a network from pictures."""

    def __init__(self, recipe: Recipe, layer_set: networks.LayerSet, compute_dtype: str):
        """Builds a network whose normalisation keeps the statistics of its last batch.

        It has no dropout. It distorts the pictures as the recipe's views are distorted, and not at all if the recipe
        has no views.
        """
        share = VIEW_RANGE if recipe.tta_views else 0.0
        changes = {name: share * getattr(recipe, name) for name in AUGMENTATION}
        changes |= {"dropout": 0.0, "conv_dropout": 0.0, "batchnorm_momentum": 0.0}
        self._network = networks.build(dataclasses.replace(recipe, **changes), layer_set, compute_dtype)

    def update(self, model: keras.Model, images: np.ndarray, seed: int) -> None:
        """Replaces the statistics of `model`, a network of the same recipe.

        Args:
            model: has the weights to compute with.
            images: uint8 (n, 28, 28); the first ROWS of them are used.
            seed: of the distortion.
        """
        pairs = list(zip(_normalisations(self._network), _normalisations(model), strict=True))
        if not pairs:
            return
        for own, other in zip(self._network.trainable_variables, model.trainable_variables, strict=True):
            own.assign(other)
        for layer in self._network.layers:
            if hasattr(layer, "seed_generator"):
                layer.seed_generator.state.assign(np.random.default_rng(seed).integers(2**31, size=2))
        batches = np.array_split(images[:ROWS], max(1, len(images[:ROWS]) // _BATCH))
        means, variances = [], []  # of each batch, for each layer
        for batch in batches:
            self._network(batch, training=True)
            means.append([keras.ops.convert_to_numpy(own.moving_mean) for own, _ in pairs])
            variances.append([keras.ops.convert_to_numpy(own.moving_variance) for own, _ in pairs])
        for number, (_, layer) in enumerate(pairs):
            mean = np.array([of_batch[number] for of_batch in means], np.float64)
            variance = np.array([of_batch[number] for of_batch in variances], np.float64)
            layer.moving_mean.assign(mean.mean(axis=0).astype(np.float32))
            layer.moving_variance.assign((variance.mean(axis=0) + mean.var(axis=0)).astype(np.float32))


def _normalisations(model: keras.Model) -> list[keras.layers.BatchNormalization]:
    return [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
