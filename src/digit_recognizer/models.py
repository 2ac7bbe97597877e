"""The networks, from raw pixels to class probabilities: one function each."""

import keras
from keras import layers

from digit_recognizer.digits import CLASSES, SIDE
from digit_recognizer.layers import RandomAffine
from digit_recognizer.recipes import Recipe


def build(recipe: Recipe) -> keras.Model:
    """The recipe's network, new and not compiled.

    It maps uint8 (n, 28, 28) to float32 (n, 10), probabilities that sum to 1. Scaling and augmentation
    are layers of it, so that a saved model needs nothing but pixels.
    """
    return NETWORKS[recipe.network](recipe)


def bn_cnn(recipe: Recipe) -> keras.Model:
    """The tutorial's augmented BN-CNN: 742,858 parameters, 741,962 of them trainable.

    Source: 'Learn Computer Vision Fundamentals with the Famous MNIST Data', layer by layer as published.
    """
    pixels, x = _augmented_pixels(recipe)
    for filters, normalised in ((64, True), (128, True), (192, False)):
        x = layers.Conv2D(filters, 3, padding="same")(x)
        if normalised:
            x = layers.BatchNormalization()(x)
        x = layers.ReLU()(x)
        x = layers.MaxPooling2D(2)(x)
    x = layers.Flatten()(x)
    x = layers.Dense(256)(x)
    x = layers.BatchNormalization()(x)
    x = layers.ReLU()(x)
    x = layers.Dropout(recipe.dropout)(x)
    return keras.Model(
        pixels, layers.Dense(CLASSES, activation="softmax", dtype="float32")(x), name=recipe.name
    )


def _augmented_pixels(recipe: Recipe) -> tuple:
    """The input, and its pixels as (n, 28, 28, 1) from 0 to 1, augmented in training."""
    pixels = keras.Input((SIDE, SIDE), dtype="uint8", name="pixels")
    x = layers.Reshape((SIDE, SIDE, 1))(pixels)
    x = layers.Rescaling(1 / 255)(x)
    return pixels, RandomAffine(recipe.rotation, recipe.zoom, recipe.shift)(x)


NETWORKS = {"bn_cnn": bn_cnn}
