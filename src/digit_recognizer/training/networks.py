"""The networks, from raw pixels to class probabilities: one function each."""

from collections.abc import Callable
from dataclasses import dataclass

import keras
from keras import layers

from digit_recognizer.data.digits import CLASSES, SIDE
from digit_recognizer.files import UserError
from digit_recognizer.recipes import Recipe
from digit_recognizer.training import backend
from digit_recognizer.training.layers import FusedBatchNormalization, PhiloxDropout, QuickConv2D, RandomDistortion


@dataclass(frozen=True)
class LayerSet:
    """The layer classes that a network is built of: the same function of the same weights with every set."""

    augments: bool  # False: a network that only predicts
    convolution: Callable[..., keras.layers.Layer]
    normalisation: Callable[..., keras.layers.Layer]
    dropout: Callable[[float], keras.layers.Layer]
    # All activations here are monotonic, so pooling first gives the same values at a quarter of the work.
    pools_before_activation: bool


# Keras' own layers: the network that is saved and predicts, which loads without this package.
KERAS = LayerSet(False, layers.Conv2D, layers.BatchNormalization, layers.Dropout, False)
# For a training step that XLA compiles.
XLA = LayerSet(True, layers.Conv2D, layers.BatchNormalization, PhiloxDropout, True)
# For a training step that XLA does not compile, on an accelerator: what Keras' users run there.
PLAIN = LayerSet(True, layers.Conv2D, layers.BatchNormalization, layers.Dropout, True)
# For a training step of TensorFlow's own kernels on a processor.
TENSORFLOW = LayerSet(True, QuickConv2D, FusedBatchNormalization, layers.Dropout, True)


def layer_set_of(xla_scope: backend.XlaScope) -> LayerSet:
    """Returns the layers of the network that trains; `xla_scope` is the part of the training that XLA compiles."""
    if xla_scope != "none":
        return XLA
    return PLAIN if backend.find_accelerator() else TENSORFLOW


def build(recipe: Recipe, layer_set: LayerSet = KERAS, compute_dtype: str = "float32") -> keras.Model:
    """Returns the recipe's network, with random weights and not compiled.

    It maps uint8 (n, 28, 28) to float32 (n, 10), probabilities that sum to 1. Scaling and augmentation are layers of
    it: a saved model needs nothing but pixels. With a `compute_dtype` of bfloat16 or float16, weights, statistics,
    augmentation and probabilities stay float32. Raises UserError for an unknown network, which a recipe.json may name.
    """
    if recipe.network not in NETWORKS:
        raise UserError(f"recipe.json: network={recipe.network}: it must be one of: {', '.join(NETWORKS)}")
    keras.config.set_dtype_policy("float32" if compute_dtype == "float32" else f"mixed_{compute_dtype}")
    try:
        return NETWORKS[recipe.network](recipe, layer_set)
    finally:
        keras.config.set_dtype_policy("float32")


def mlp(recipe: Recipe, layer_set: LayerSet) -> keras.Model:
    """Dense layers alone."""
    pixels, x = scaled_pixels(recipe, layer_set)
    return classifier(recipe, layer_set, pixels, x)


def shallow_cnn(recipe: Recipe, layer_set: LayerSet) -> keras.Model:
    """One convolution before the dense layers."""
    pixels, x = scaled_pixels(recipe, layer_set)
    x = layers.Conv2D(recipe.filters[0], 3, activation=_activation(recipe))(x)
    return classifier(recipe, layer_set, pixels, x)


def lenet(recipe: Recipe, layer_set: LayerSet) -> keras.Model:
    """Two convolutions, pooling and dropout before the dense layers."""
    pixels, x = scaled_pixels(recipe, layer_set)
    for filters in recipe.filters:
        x = layers.Conv2D(filters, 3, activation=_activation(recipe))(x)
    x = layers.MaxPooling2D(2)(x)
    return classifier(recipe, layer_set, pixels, x)


def bn_cnn(recipe: Recipe, layer_set: LayerSet) -> keras.Model:
    """The BN-CNN of 'Learn Computer Vision Fundamentals with the Famous MNIST Data', layer by layer as published."""
    pixels, x = scaled_pixels(recipe, layer_set)
    for filters, normalised in zip(recipe.filters, (True, True, False), strict=True):
        x = layer_set.convolution(filters, 3, padding="same")(x)
        if normalised:
            x = layer_set.normalisation(momentum=recipe.batchnorm_momentum)(x)
        rest = [layers.Activation(_activation(recipe)), layers.MaxPooling2D(2)]
        for layer in reversed(rest) if layer_set.pools_before_activation else rest:
            x = layer(x)
    return classifier(recipe, layer_set, pixels, x, normalised=True)


def fast_cnn(recipe: Recipe, layer_set: LayerSet) -> keras.Model:
    """A BN-CNN of our own, with five convolutions where the tutorial's network has three.

    A digit lies in the middle 20 x 20 pixels, so three of them need no padding, which saves time for more filters.
    Pooling comes before the normalisation, which then has a quarter of the pixels.
    """
    pixels, x = scaled_pixels(recipe, layer_set)
    layouts = (  # padding, whether pooling follows; the height and width after both
        ("same", True),  # 14
        ("valid", False),  # 12
        ("valid", True),  # 5
        ("same", False),  # 5
        ("valid", False),  # 3
    )
    for filters, (padding, pooled) in zip(recipe.filters, layouts, strict=True):
        x = layer_set.convolution(filters, 3, padding=padding, use_bias=False)(x)
        if pooled:
            x = layers.MaxPooling2D(2)(x)
        x = layer_set.normalisation(momentum=recipe.batchnorm_momentum)(x)
        x = layers.Activation(_activation(recipe))(x)
    return classifier(recipe, layer_set, pixels, x, normalised=True)


def scaled_pixels(recipe: Recipe, layer_set: LayerSet) -> tuple:
    """Returns the input, uint8 (n, 28, 28), and its pixels, float (n, 28, 28, 1), augmented in training and scaled."""
    pixels = keras.Input((SIDE, SIDE), dtype="uint8", name="pixels")
    x = layers.Reshape((SIDE, SIDE, 1))(pixels)
    x = layers.Rescaling(1.0 if recipe.scaling == "raw" else 1 / 255, dtype="float32")(x)
    if layer_set.augments and any(recipe.augmentation.values()):
        x = RandomDistortion(**recipe.augmentation, dtype="float32")(x)
    if recipe.scaling == "columns":  # as keras.utils.normalize(axis=1): an empty column stays one
        x = layers.UnitNormalization(axis=1, dtype="float32")(x)
    return pixels, x


def classifier(recipe: Recipe, layer_set: LayerSet, pixels, x, normalised=False) -> keras.Model:
    """Returns the network from the input `pixels` through `x` and the recipe's dense layers to the classes."""
    if recipe.conv_dropout:
        x = layer_set.dropout(recipe.conv_dropout)(x)
    x = layers.Flatten()(x)
    for units in recipe.hidden:
        x = layers.Dense(units, activation=None if normalised else _activation(recipe))(x)
        if normalised:
            x = layers.BatchNormalization(momentum=recipe.batchnorm_momentum)(x)
            x = layers.Activation(_activation(recipe))(x)
        if recipe.dropout:
            x = layer_set.dropout(recipe.dropout)(x)
    probabilities = layers.Dense(CLASSES, activation="softmax", dtype="float32")(x)
    return keras.Model(pixels, probabilities, name=recipe.name)


def _activation(recipe: Recipe):
    """The activation, as layers take it; Keras' own leaky ReLU has a slope of 0.2, the course's 0.1."""
    return layers.LeakyReLU(0.1) if recipe.activation == "leaky_relu" else recipe.activation


NETWORKS = {network.__name__: network for network in (mlp, shallow_cnn, lenet, bn_cnn, fast_cnn)}
