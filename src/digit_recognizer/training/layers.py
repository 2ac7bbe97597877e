"""Layers of our own. Loading a saved model needs `import digit_recognizer.training.layers` and nothing else.

RandomDistortion is part of a saved model. The other layers compute what Keras' own layers compute, with the
same weights, but train faster: what they learned is saved in Keras' own.
"""

import math

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("digit_recognizer", name="RandomAffine")  # its name in saved models
class RandomDistortion(keras.layers.Layer):
    """Rotates, zooms, shifts, slants and bends each picture with random numbers of its own, in training only.

    One affine map and one smooth displacement, read by one bilinear interpolation on the model's device. It
    is written with a gather, which every backend compiles, XLA on a GPU included. What lies outside the
    picture is 0.

    The affine map's numbers are uniform in plus or minus the argument: the numbers of Keras'
    ImageDataGenerator, and a shear. The displacement is a smooth field of normal random vectors.

    Sources: the tutorial 'Learn Computer Vision Fundamentals with the Famous MNIST Data' (rotation, zoom,
    shift); Simard, Steinkraus and Platt, 'Best practices for convolutional neural networks' (2003) (elastic).

    Args:
        rotation: degrees.
        zoom: part of the size; height and width are scaled independently.
        shift: part of the height and of the width.
        shear: pixels to the side for each pixel of height.
        elastic: pixels, the root mean square of the displacement down and of the displacement across.

    Call: float (batch, height, width, channels) -> the same shape and dtype.
    """

    def __init__(self, rotation=0.0, zoom=0.0, shift=0.0, shear=0.0, elastic=0.0, **kwargs):
        """See the class."""
        super().__init__(**kwargs)
        self.rotation, self.zoom, self.shift, self.shear = rotation, zoom, shift, shear
        self.elastic = elastic
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, images, training=False):
        """See the class."""
        if not training:
            return images
        y, x = self._affine_points(images)
        if self.elastic:
            down, across = self._displacement(images)
            y, x = y + down, x + across
        return ops.cast(read_bilinear(images, y, x), images.dtype)

    def _affine_points(self, images):
        """The point, two float32 (batch, height * width), that each pixel takes its value from."""
        batch, height, width = ops.shape(images)[0], images.shape[1], images.shape[2]
        draw = keras.random.uniform((batch, 6, 1), -1.0, 1.0, dtype="float32", seed=self.seed_generator)
        angle = draw[:, 0] * (self.rotation * math.pi / 180)
        y = ops.repeat(ops.arange(height, dtype="float32"), width) - (height - 1) / 2
        x = ops.tile(ops.arange(width, dtype="float32"), [height]) - (width - 1) / 2
        y = y * (1 + self.zoom * draw[:, 1]) + self.shift * height * draw[:, 3]
        x = x * (1 + self.zoom * draw[:, 2]) + self.shift * width * draw[:, 4]
        x = x + self.shear * draw[:, 5] * y
        sine, cosine = ops.sin(angle), ops.cos(angle)
        return cosine * y - sine * x + (height - 1) / 2, sine * y + cosine * x + (width - 1) / 2

    def _displacement(self, images):
        """Pixels down and across, two float32 (batch, height * width)."""
        weights = smooth_field_weights(*images.shape[1:3]) * np.float32(self.elastic)
        knots = (2, ops.shape(images)[0], len(weights))
        vectors = keras.random.normal(knots, dtype="float32", seed=self.seed_generator)
        field = ops.matmul(vectors, ops.convert_to_tensor(weights))
        return field[0], field[1]

    def get_config(self):
        """The arguments of the constructor."""
        names = ("rotation", "zoom", "shift", "shear", "elastic")
        return super().get_config() | {name: getattr(self, name) for name in names}


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
    """Returns the pictures' values at the points (y, x), interpolated between pixels, and 0 outside.

    Args:
        images: float (batch, height, width, channels).
        y, x: float32 (batch, height * width), in pixels from the upper left one's middle.

    Returns a tensor of the shape of `images`.
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


class QuickConv2D(keras.layers.Conv2D):
    """Conv2D of stride 1 whose gradients take the way that is fast on a processor.

    On TensorFlow in half precision, where the pictures are small, the filters' gradient is one product of
    matrices. With `turns`, the pictures' gradient is a convolution with the turned filters. TensorFlow's own
    kernels for them are slow there; elsewhere, and on JAX, this is Keras' Conv2D.
    """

    turns = False
    _SMALL = 8  # pixels of height

    def convolution_op(self, inputs, kernel):
        """Called by Keras: float (batch, height, width, channels) -> the same with other channels."""
        multiplies = inputs.dtype != "float32" and inputs.shape[1] <= self._SMALL
        if keras.backend.backend() != "tensorflow" or not (multiplies or self.turns):
            return super().convolution_op(inputs, kernel)
        import tensorflow as tf

        padding = self.padding.upper()

        @tf.custom_gradient
        def convolve(pictures, filters):
            def gradient(slopes):
                shared = {"out_backprop": slopes, "strides": [1, 1, 1, 1], "padding": padding}
                if self.turns:
                    of_pictures = pictures_gradient(slopes, filters, padding)
                else:
                    of_pictures = tf.raw_ops.Conv2DBackpropInput(
                        input_sizes=tf.shape(pictures), filter=filters, **shared
                    )
                if multiplies:
                    return of_pictures, filters_gradient(pictures, slopes, filters.shape, padding)
                return of_pictures, tf.raw_ops.Conv2DBackpropFilter(
                    input=pictures, filter_sizes=filters.shape, **shared
                )

            return tf.nn.conv2d(pictures, filters, 1, padding), gradient

        return convolve(inputs, tf.convert_to_tensor(kernel))


class TurningConv2D(QuickConv2D):
    """QuickConv2D for a processor without AVX-512."""

    turns = True


def pictures_gradient(slopes, filters, padding: str):
    """Returns the gradient of a convolution's input, as a convolution with the filters turned by half a turn.

    Args:
        slopes: (batch, height, width, filters), the gradient of its output.
        filters: (rows, columns, channels, filters), rows and columns odd.
        padding: of the convolution, SAME or VALID.
    """
    import tensorflow as tf

    rows, columns = filters.shape[:2]
    if padding == "VALID":
        padding = [[0, 0], [rows - 1] * 2, [columns - 1] * 2, [0, 0]]
    return tf.nn.conv2d(slopes, tf.transpose(tf.reverse(filters, [0, 1]), [0, 1, 3, 2]), 1, padding)


def filters_gradient(pictures, slopes, shape, padding: str):
    """Returns the gradient of a convolution's filters, by one product of matrices.

    Args:
        pictures: (batch, height, width, channels), the convolution's input.
        slopes: (batch, height, width, filters), the gradient of its output, with the output's height and width.
        shape: shape of the filters: odd height and width, channels, filters.
        padding: SAME or VALID.

    Returns a tensor of that shape.
    """
    rows, columns, channels, filters = shape
    height, width = slopes.shape[1:3]
    if padding == "SAME":
        pictures = ops.pad(pictures, [[0, 0], [rows // 2] * 2, [columns // 2] * 2, [0, 0]])
    windows = [pictures[:, y : y + height, x : x + width] for y in range(rows) for x in range(columns)]
    windows = ops.reshape(ops.concatenate(windows, axis=-1), (-1, rows * columns * channels))
    return ops.reshape(ops.matmul(ops.transpose(windows), ops.reshape(slopes, (-1, filters))), shape)


class MaxOfFour(keras.layers.Layer):
    """MaxPooling2D(2) as the maximum of four slices, for a training step that XLA compiles.

    XLA on a processor has no good code for the gradient of a pooling window, but compiles the slices, and
    the normalisation and activation beside them, into one loop over the picture.
    """

    def call(self, images):
        """Float (batch, height, width, channels) -> (batch, height // 2, width // 2, channels)."""
        height, width = images.shape[1] // 2 * 2, images.shape[2] // 2 * 2
        upper = ops.maximum(images[:, 0:height:2, 0:width:2], images[:, 0:height:2, 1:width:2])
        lower = ops.maximum(images[:, 1:height:2, 0:width:2], images[:, 1:height:2, 1:width:2])
        return ops.maximum(upper, lower)


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """BatchNormalization of pictures by TensorFlow's fused kernel, for a training step that XLA does not compile.

    Keras writes it as a dozen element-wise operations, each of which reads and writes all pictures.
    Statistics are float32 whatever the inputs are. On JAX, and at prediction, this is Keras' own.
    """

    def call(self, inputs, training=None, mask=None):
        """Float (batch, height, width, channels) -> the same."""
        if keras.backend.backend() != "tensorflow" or not training or len(inputs.shape) != 4:
            return super().call(inputs, training=training, mask=mask)
        outputs, mean, variance = self.normalize(ops.cast(inputs, self.compute_dtype))
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs

    def normalize(self, pictures):
        """Returns the normalised pictures, and mean and variance of the batch, float32 (channels,)."""
        import tensorflow as tf

        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=pictures,
            scale=self.gamma,
            offset=self.beta,
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self.epsilon,
            is_training=True,
        )
        # the kernel's variance is that of a sample, Keras averages that of the batch
        count = tf.cast(tf.size(pictures) / pictures.shape[-1], "float32")
        return outputs, mean, variance * (count - 1) / count


class MultipliedBatchNormalization(FusedBatchNormalization):
    """FusedBatchNormalization for a processor without AVX-512, where the fused kernel's forward pass is slow.

    There the sums over the pictures are products of matrices; the gradient is the fused kernel's.
    """

    def normalize(self, pictures):
        """See FusedBatchNormalization."""
        import tensorflow as tf

        @tf.custom_gradient
        def apply(pictures, gamma, beta):
            rows = tf.reshape(tf.cast(pictures, "float32"), (-1, pictures.shape[-1]))
            weights = tf.fill((1, tf.shape(rows)[0]), 1 / tf.cast(tf.shape(rows)[0], "float32"))
            mean = (weights @ rows)[0]
            variance = (weights @ tf.math.squared_difference(rows, mean))[0]
            scale = gamma * tf.math.rsqrt(variance + self.epsilon)
            offset = beta - mean * scale
            outputs = pictures * tf.cast(scale, pictures.dtype) + tf.cast(offset, pictures.dtype)

            def gradient(slopes, *_):
                return tf.raw_ops.FusedBatchNormGradV3(
                    y_backprop=slopes,
                    x=pictures,
                    scale=gamma,
                    reserve_space_1=mean,
                    reserve_space_2=variance,
                    reserve_space_3=tf.zeros(0),
                    epsilon=self.epsilon,
                    is_training=True,
                )[:3]

            return (outputs, mean, variance), gradient

        return apply(pictures, tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta))


class PhiloxDropout(keras.layers.Dropout):
    """Dropout with the Philox generator, for a training step that XLA compiles.

    Keras leaves the choice of the generator to TensorFlow, and the one that XLA then takes on a processor is
    many times slower than Philox, which TensorFlow takes without XLA.
    """

    def call(self, inputs, training=False):
        """Float of any shape -> the same."""
        if keras.backend.backend() != "tensorflow" or not training:
            return super().call(inputs, training=training)
        import tensorflow as tf

        seed = tf.cast(self.seed_generator.next() % (tf.int32.max - 1), "int32")  # as Keras does
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed, rng_alg="philox")
