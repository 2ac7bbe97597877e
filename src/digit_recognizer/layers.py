"""Layers of our own. Loading a saved model needs `import digit_recognizer.layers` and nothing else.

RandomAffine is part of a saved model. The others are Keras' own layers in ways that train faster: the
same function of the same weights, so that what they learned is saved in Keras' own.
"""

import math

import keras
from keras import ops


@keras.saving.register_keras_serializable("digit_recognizer")
class RandomAffine(keras.layers.Layer):
    """Rotates, scales, shifts and slants each picture by its own random draw, in training only.

    The draws are uniform in plus or minus the argument and, but for the shear, those of Keras'
    ImageDataGenerator (which the tutorial uses), done as one affine map and one bilinear reading, in the
    model and on its device.
    It is written with a gather because every backend compiles that, XLA on a GPU included; what lies
    outside the picture is 0.

    Args:
        rotation: degrees.
        zoom: part of the size; height and width are scaled independently.
        shift: part of the height and of the width.
        shear: pixels to the side for each pixel of height: hands slant their digits differently.

    Call: float (batch, height, width, channels) -> the same shape and dtype.
    """

    def __init__(self, rotation=0.0, zoom=0.0, shift=0.0, shear=0.0, **kwargs):
        """See the class."""
        super().__init__(**kwargs)
        self.rotation, self.zoom, self.shift, self.shear = rotation, zoom, shift, shear
        self.seed_generator = keras.random.SeedGenerator()

    def call(self, images, training=False):
        """See the class."""
        if not training:
            return images
        batch, height, width = ops.shape(images)[0], images.shape[1], images.shape[2]
        draw = keras.random.uniform((batch, 6, 1), -1.0, 1.0, dtype="float32", seed=self.seed_generator)
        angle = draw[:, 0] * (self.rotation * math.pi / 180)
        y = ops.repeat(ops.arange(height, dtype="float32"), width) - (height - 1) / 2
        x = ops.tile(ops.arange(width, dtype="float32"), [height]) - (width - 1) / 2
        y = y * (1 + self.zoom * draw[:, 1]) + self.shift * height * draw[:, 3]
        x = x * (1 + self.zoom * draw[:, 2]) + self.shift * width * draw[:, 4]
        x = x + self.shear * draw[:, 5] * y
        sine, cosine = ops.sin(angle), ops.cos(angle)
        from_y = cosine * y - sine * x + (height - 1) / 2
        from_x = sine * y + cosine * x + (width - 1) / 2
        return ops.cast(read_bilinear(images, from_y, from_x), images.dtype)

    def get_config(self):
        """The arguments of the constructor."""
        names = ("rotation", "zoom", "shift", "shear")
        return super().get_config() | {name: getattr(self, name) for name in names}


def read_bilinear(images, y, x):
    """The pictures' values at the points (y, x), between pixels, and 0 outside.

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
    """Conv2D of stride 1 whose filters' gradient is a product of matrices where that is faster, uncompiled.

    With AVX-512 TensorFlow's own kernels for it take a fifth to two fifths longer where the pictures are small,
    in half precision; where they have one channel, in float32, they cost 2 of the 35 ms of a step of bn_cnn.
    Elsewhere it is Keras' own.
    """

    _SMALL = 8  # pixels of height

    def convolution_op(self, inputs, kernel):
        """Called by Keras: float (batch, height, width, channels) -> the same with other channels."""
        single = inputs.dtype == "float32"
        pays = inputs.shape[-1] == 1 if single else inputs.shape[1] <= self._SMALL
        if keras.backend.backend() != "tensorflow" or not pays:
            return super().convolution_op(inputs, kernel)
        import tensorflow as tf

        padding = self.padding.upper()

        @tf.custom_gradient
        def convolve(pictures, filters):
            def gradient(slopes):
                of_pictures = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(pictures),
                    filter=filters,
                    out_backprop=slopes,
                    strides=[1, 1, 1, 1],
                    padding=padding,
                )
                return of_pictures, filters_gradient(pictures, slopes, filters.shape, padding)

            return tf.nn.conv2d(pictures, filters, 1, padding), gradient

        return convolve(inputs, tf.convert_to_tensor(kernel))


def filters_gradient(pictures, slopes, shape, padding: str):
    """The gradient of a convolution's filters, as one product of matrices.

    Args:
        pictures: (batch, height, width, channels), what is convolved.
        slopes: (batch, its height, its width, filters), the gradient of the convolution's result.
        shape: of the filters: odd height and width, channels, filters.
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
    """MaxPooling2D(2) as the maximum of four slices, where XLA compiles the training step.

    XLA on a processor has no good code for the gradient of a pooling window, but makes one loop over the
    picture of the slices, and of the normalisation and activation beside them. Uncompiled it is slow.
    """

    def call(self, images):
        """Float (batch, height, width, channels) -> (batch, height // 2, width // 2, channels)."""
        height, width = images.shape[1] // 2 * 2, images.shape[2] // 2 * 2
        upper = ops.maximum(images[:, 0:height:2, 0:width:2], images[:, 0:height:2, 1:width:2])
        lower = ops.maximum(images[:, 1:height:2, 0:width:2], images[:, 1:height:2, 1:width:2])
        return ops.maximum(upper, lower)


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """BatchNormalization of pictures by TensorFlow's fused kernel, where nothing compiles the step.

    Keras writes it as a dozen element-wise operations, each a walk through memory. Statistics are float32
    whatever the inputs are. Elsewhere, and without training, it is Keras' own.
    """

    def call(self, inputs, training=None, mask=None):
        """Float (batch, height, width, channels) -> the same."""
        if keras.backend.backend() != "tensorflow" or not training or len(inputs.shape) != 4:
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=tf.cast(inputs, self.compute_dtype),
            scale=self.gamma,
            offset=self.beta,
            mean=tf.zeros(0),
            variance=tf.zeros(0),
            epsilon=self.epsilon,
            is_training=True,
        )
        # the kernel's variance is that of a sample, Keras averages that of the batch
        count = tf.cast(tf.size(inputs) / inputs.shape[-1], "float32")
        for moving, batch in (
            (self.moving_mean, mean),
            (self.moving_variance, variance * (count - 1) / count),
        ):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs


class PhiloxDropout(keras.layers.Dropout):
    """Dropout whose random numbers are good code where XLA compiles the step.

    Keras leaves the choice of the generator to TensorFlow. That which XLA takes on a processor makes a
    number in 0.7 µs, which for the 9,216 units of lenet was three quarters of a step; Philox, which
    TensorFlow itself takes, in 0.01 µs.
    """

    def call(self, inputs, training=False):
        """Float of any shape -> the same."""
        if keras.backend.backend() != "tensorflow" or not training:
            return super().call(inputs, training=training)
        import tensorflow as tf

        seed = tf.cast(self.seed_generator.next() % (tf.int32.max - 1), "int32")  # as Keras does
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed, rng_alg="philox")
