"""The networks, from raw pixels to class probabilities: one function each."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import keras
from keras import layers

from digit_recognizer.digits import CLASSES, SIDE
from digit_recognizer.layers import (
    FusedBatchNormalization,
    MaxOfFour,
    PhiloxDropout,
    QuickConv2D,
    RandomAffine,
)
from digit_recognizer.recipes import Recipe


@dataclass(frozen=True)
class Layout:
    """How a network is written: the same function of the same weights, whichever it is.

    Max pooling commutes with every activation here, which all rise, and leaves it a quarter of the work.
    """

    convolution: Callable[..., keras.layers.Layer]
    normalisation: Callable[..., keras.layers.Layer]
    pooling: Callable[[], keras.layers.Layer]
    dropout: Callable[[float], keras.layers.Layer]
    pools_first: bool  # before the activation


_POOLING = partial(layers.MaxPooling2D, 2)
# what is saved, and predicts
PUBLISHED = Layout(layers.Conv2D, layers.BatchNormalization, _POOLING, layers.Dropout, pools_first=False)
# for a step that XLA compiles
COMPILED = Layout(layers.Conv2D, layers.BatchNormalization, MaxOfFour, PhiloxDropout, pools_first=True)
UNCOMPILED = Layout(QuickConv2D, FusedBatchNormalization, _POOLING, layers.Dropout, pools_first=True)


def build(recipe: Recipe, layout: Layout = PUBLISHED, precision: str = "float32") -> keras.Model:
    """The recipe's network, new and not compiled.

    It maps uint8 (n, 28, 28) to float32 (n, 10), probabilities that sum to 1. Scaling and augmentation
    are layers of it, so that a saved model needs nothing but pixels. With a `precision` of bfloat16
    or float16 weights, statistics, augmentation and probabilities stay float32.
    """
    keras.config.set_dtype_policy("float32" if precision == "float32" else f"mixed_{precision}")
    try:
        return NETWORKS[recipe.network](recipe, layout)
    finally:
        keras.config.set_dtype_policy("float32")


def mlp(recipe: Recipe, layout: Layout) -> keras.Model:
    """Dense layers alone.

    As dropout_mlp 101,770 parameters, as mlp 118,282, as softmax_mlp 669,706.
    """
    pixels, x = _pixels(recipe)
    return _classifier(recipe, layout, pixels, x)


def shallow_cnn(recipe: Recipe, layout: Layout) -> keras.Model:
    """One convolution before the dense layers: 2,424,482 parameters."""
    pixels, x = _pixels(recipe)
    x = layers.Conv2D(28, 3, activation=_activation(recipe))(x)
    return _classifier(recipe, layout, pixels, x)


def lenet(recipe: Recipe, layout: Layout) -> keras.Model:
    """Two convolutions, pooling and dropout before the dense layers: 1,199,882 parameters."""
    pixels, x = _pixels(recipe)
    for filters in (32, 64):
        x = layers.Conv2D(filters, 3, activation=_activation(recipe))(x)
    x = layout.pooling()(x)
    return _classifier(recipe, layout, pixels, x)


def bn_cnn(recipe: Recipe, layout: Layout) -> keras.Model:
    """The tutorial's augmented BN-CNN: 742,858 parameters, 741,962 of them trainable.

    Source: 'Learn Computer Vision Fundamentals with the Famous MNIST Data', layer by layer as published.
    """
    pixels, x = _pixels(recipe)
    for filters, normalised in ((64, True), (128, True), (192, False)):
        x = layout.convolution(filters, 3, padding="same")(x)
        if normalised:
            x = layout.normalisation(momentum=recipe.momentum)(x)
        rest = [layers.Activation(_activation(recipe)), layout.pooling()]
        for layer in reversed(rest) if layout.pools_first else rest:
            x = layer(x)
    return _classifier(recipe, layout, pixels, x, normalised=True)


def fast_cnn(recipe: Recipe, layout: Layout) -> keras.Model:
    """A BN-CNN of our own: 848,122 parameters.

    Five convolutions see more than the tutorial's three. A digit lies in the middle 20 x 20 pixels: from the
    second on, three of them leave the border unpadded, and the time that saves is spent on wider ones. The
    first pools at once, and each pools before it normalises, so that what follows has a quarter of the pixels.
    """
    pixels, x = _pixels(recipe)
    for filters, padding, pooled in (  # height and width after it
        (48, "same", True),  # 14
        (96, "valid", False),  # 12
        (96, "valid", True),  # 5
        (192, "same", False),  # 5
        (192, "valid", False),  # 3
    ):
        x = layout.convolution(filters, 3, padding=padding, use_bias=False)(x)
        if pooled:
            x = layout.pooling()(x)
        x = layout.normalisation(momentum=recipe.momentum)(x)
        x = layers.Activation(_activation(recipe))(x)
    return _classifier(recipe, layout, pixels, x, normalised=True)


def _pixels(recipe: Recipe) -> tuple:
    """The input, and its pixels as float (n, 28, 28, 1), augmented in training and scaled."""
    pixels = keras.Input((SIDE, SIDE), dtype="uint8", name="pixels")
    x = layers.Reshape((SIDE, SIDE, 1))(pixels)
    x = layers.Rescaling(1.0 if recipe.scaling == "raw" else 1 / 255, dtype="float32")(x)
    augmentation = (recipe.rotation, recipe.zoom, recipe.shift, recipe.shear)
    if any(augmentation):
        x = RandomAffine(*augmentation, dtype="float32")(x)
    if recipe.scaling == "columns":  # as keras.utils.normalize(axis=1): an empty column stays one
        x = layers.UnitNormalization(axis=1, dtype="float32")(x)
    return pixels, x


def _classifier(recipe: Recipe, layout: Layout, pixels, x, normalised=False) -> keras.Model:
    """The network from the input `pixels` through `x` and the recipe's dense layers to the classes."""
    if recipe.conv_dropout:
        x = layout.dropout(recipe.conv_dropout)(x)
    x = layers.Flatten()(x)
    for units in recipe.hidden:
        if normalised:
            x = layers.Dense(units)(x)
            x = layers.BatchNormalization(momentum=recipe.momentum)(x)
            x = layers.Activation(_activation(recipe))(x)
        else:
            x = layers.Dense(units, activation=_activation(recipe))(x)
        if recipe.dropout:
            x = layout.dropout(recipe.dropout)(x)
    probabilities = layers.Dense(CLASSES, activation="softmax", dtype="float32")(x)
    return keras.Model(pixels, probabilities, name=recipe.name)


def _activation(recipe: Recipe):
    """The activation, as layers take it; Keras' own leaky ReLU has a slope of 0.2, the course's 0.1."""
    return layers.LeakyReLU(0.1) if recipe.activation == "leaky_relu" else recipe.activation


NETWORKS = {network.__name__: network for network in (mlp, shallow_cnn, lenet, bn_cnn, fast_cnn)}
