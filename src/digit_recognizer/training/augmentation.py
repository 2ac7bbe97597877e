"""Augmentation: the layer that distorts the pictures from which a network learns."""

import math

import keras
import numpy as np
from keras import ops


class RandomDistortion(keras.layers.Layer):
    """Rotates, zooms, shifts, slants and bends each picture with random numbers of its own, in training only.

    One affine map and one smooth displacement, read by one bilinear interpolation on the model's device. It is written
    with a gather, which every backend compiles, XLA on a GPU included. What lies outside the picture is 0. The affine
    map's numbers are uniform in plus or minus the argument; the displacement is a smooth field of normal vectors.

    Sources: the tutorial 'Learn Computer Vision Fundamentals with the Famous MNIST Data' (rotation, zoom, shift, as
    Keras' ImageDataGenerator has them); Simard, Steinkraus and Platt, 'Best practices for convolutional neural
    networks' (2003) (elastic).

    Args:
        rotation: degrees.
        zoom: part of the size; height and width are scaled independently.
        shift: part of the height and of the width.
        shear: pixels to the side for each pixel of height.
        elastic: pixels, the root mean square of the displacement down and of the displacement across.

    Call: float (batch, height, width, channels) -> the same shape and dtype.
    """

    def __init__(self, rotation=0.0, zoom=0.0, shift=0.0, shear=0.0, elastic=0.0, **kwargs):
        super().__init__(**kwargs)
        self.rotation, self.zoom, self.shift, self.shear, self.elastic = rotation, zoom, shift, shear, elastic
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, images, training=False):
        if not training:
            return images
        batch, vectors = ops.shape(images)[0], None
        draw = keras.random.uniform((batch, 6, 1), -1.0, 1.0, dtype="float32", seed=self.seed_generator)
        if self.elastic:
            knots = (2, batch, len(smooth_field_weights(*images.shape[1:3])))
            vectors = keras.random.normal(knots, dtype="float32", seed=self.seed_generator)
        return self.distort(images, draw, vectors)

    def distort(self, images, draw, vectors=None):
        """Returns the pictures, float (batch, height, width, channels), distorted by these random numbers.

        `draw` are those of the affine map, float32 (batch, 6, 1), from -1 to 1; `vectors` those of the displacement,
        float32 (2, batch, knots), normal, or None.
        """
        height, width = images.shape[1:3]
        # the point that each pixel takes its value from, two float32 (batch, height * width)
        y = ops.repeat(ops.arange(height, dtype="float32"), width) - (height - 1) / 2
        x = ops.tile(ops.arange(width, dtype="float32"), [height]) - (width - 1) / 2
        y = y * (1 + self.zoom * draw[:, 1]) + self.shift * height * draw[:, 3]
        x = x * (1 + self.zoom * draw[:, 2]) + self.shift * width * draw[:, 4]
        x = x + self.shear * draw[:, 5] * y
        angle = draw[:, 0] * (self.rotation * math.pi / 180)
        sine, cosine = ops.sin(angle), ops.cos(angle)
        y, x = cosine * y - sine * x + (height - 1) / 2, sine * y + cosine * x + (width - 1) / 2
        if vectors is not None:
            weights = smooth_field_weights(height, width) * np.float32(self.elastic)
            field = ops.matmul(vectors, ops.convert_to_tensor(weights))  # pixels down, and across
            y, x = y + field[0], x + field[1]
        return ops.cast(read_bilinear(images, y, x), images.dtype)


def smooth_field_weights(height: int, width: int, spacing: float = 7.0) -> np.ndarray:
    """Returns weights, float32 (knots, height * width), that turn random numbers at knots into a smooth field.

    The knots lie on a grid of `spacing` pixels, and the field is a uniform cubic B-spline between them.
    Independent normal numbers of variance 1 at the knots give a field of variance 1 at every pixel.
    """

    def along(size: int) -> np.ndarray:  # (knots, size)
        count = math.ceil((size - 1) / spacing) + 3
        middle = (np.arange(size) - (size - 1) / 2) / spacing
        away = np.abs(middle - (np.arange(count) - (count - 1) / 2)[:, None])
        return np.where(away < 1, 2 / 3 - away**2 + away**3 / 2, np.clip(2 - away, 0, None) ** 3 / 6)

    weights = np.einsum("ay,bx->abyx", along(height), along(width)).reshape(-1, height * width)
    return (weights / np.sqrt((weights**2).sum(axis=0))).astype(np.float32)


def read_bilinear(images, y, x):
    """Returns the values of pictures, float (batch, height, width, channels), at the points (y, x), and 0 outside.

    `y` and `x` are float32 (batch, height * width), in pixels from the upper left one's middle.
    """
    batch, (height, width, channels) = ops.shape(images)[0], images.shape[1:]
    # A margin of zeros, one pixel before and two behind, makes clipping and "0 outside" the same thing.
    padded = ops.reshape(ops.pad(images, [[0, 0], [1, 2], [1, 2], [0, 0]]), (-1, channels))
    stride = width + 3
    y = ops.clip(y, -1.0, float(height)) + 1
    x = ops.clip(x, -1.0, float(width)) + 1
    top, left = ops.floor(y), ops.floor(x)
    down, right = ops.expand_dims(y - top, -1), ops.expand_dims(x - left, -1)
    picture = ops.expand_dims(ops.arange(batch, dtype="int32") * ((height + 3) * stride), 1)
    corner = picture + ops.cast(top * stride + left, "int32")
    upper = (1 - right) * ops.take(padded, corner, axis=0) + right * ops.take(padded, corner + 1, axis=0)
    corner = corner + stride
    lower = (1 - right) * ops.take(padded, corner, axis=0) + right * ops.take(padded, corner + 1, axis=0)
    return ops.reshape((1 - down) * upper + down * lower, (-1, height, width, channels))
