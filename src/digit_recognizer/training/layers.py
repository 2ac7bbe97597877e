"""Layers that compute what Keras' own layers compute, with the same weights, but train faster.

No saved model has them: what they learned is saved in Keras' own.
"""

import keras
from keras import ops


class QuickConv2D(keras.layers.Conv2D):
    """Conv2D of stride 1 whose filters' gradient is one product of matrices where TensorFlow's kernel is slow.

    It is slow in half precision where the pictures are small; elsewhere, and on JAX, this is Keras' Conv2D.
    """

    _SMALL = 8  # pixels of height

    def convolution_op(self, inputs, kernel):
        """Called by Keras: float (batch, height, width, channels) -> the same with other channels."""
        multiplies = inputs.dtype != "float32" and inputs.shape[1] <= self._SMALL
        if keras.backend.backend() != "tensorflow" or not multiplies:
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


class XlaGradientConv2D(keras.layers.Conv2D):
    """Conv2D of stride 1 whose gradients XLA compiles, for float32 on a processor without AVX-512.

    TensorFlow's own kernels for them are slow there, its forward pass is not. In half precision, and on JAX, this
    is Keras' Conv2D.
    """

    def convolution_op(self, inputs, kernel):
        """Called by Keras: float (batch, height, width, channels) -> the same with other channels."""
        if keras.backend.backend() != "tensorflow" or inputs.dtype != "float32":
            return super().convolution_op(inputs, kernel)
        import tensorflow as tf

        shared = {"strides": [1, 1, 1, 1], "padding": self.padding.upper()}

        @tf.function(jit_compile=True)
        def of_pictures(pictures, filters, slopes):
            return tf.raw_ops.Conv2DBackpropInput(
                input_sizes=tf.shape(pictures), filter=filters, out_backprop=slopes, **shared
            )

        @tf.function(jit_compile=True)
        def of_filters(pictures, filters, slopes):
            return tf.raw_ops.Conv2DBackpropFilter(
                input=pictures, filter_sizes=filters.shape, out_backprop=slopes, **shared
            )

        @tf.custom_gradient
        def convolve(pictures, filters):
            def gradient(slopes):
                return of_pictures(pictures, filters, slopes), of_filters(pictures, filters, slopes)

            return tf.nn.conv2d(pictures, filters, **shared), gradient

        return convolve(inputs, tf.convert_to_tensor(kernel))


class XlaGradientMaxPooling2D(keras.layers.MaxPooling2D):
    """MaxPooling2D(2) whose gradient XLA compiles, for a processor without AVX-512. On JAX it is Keras' own."""

    def call(self, inputs):
        """Float (batch, height, width, channels) -> (batch, height // 2, width // 2, channels)."""
        if keras.backend.backend() != "tensorflow":
            return super().call(inputs)
        import tensorflow as tf

        compiled = tf.function(pooling_gradient, jit_compile=True)

        @tf.custom_gradient
        def pool(pictures):
            maxima = tf.nn.max_pool2d(pictures, 2, 2, "VALID")
            return maxima, lambda slopes: compiled(pictures, maxima, slopes)

        return pool(inputs)


def pooling_gradient(pictures, maxima, slopes):
    """Returns the gradient of the pictures that were pooled: of equal pixels the first takes it, as in TensorFlow.

    Args:
        pictures: (batch, height, width, channels), the input.
        maxima: (batch, height // 2, width // 2, channels), the output.
        slopes: the gradient of the output.
    """
    import tensorflow as tf

    height, width, channels = pictures.shape[1:]
    rows, columns = maxima.shape[1:3]
    windows = tf.reshape(pictures[:, : 2 * rows, : 2 * columns], (-1, rows, 2, columns, 2, channels))
    highest = [windows[:, :, y, :, x] == maxima for y, x in ((0, 0), (0, 1), (1, 0))]
    first = tf.where(highest[0], 0, tf.where(highest[1], 1, tf.where(highest[2], 2, 3)))
    number = tf.reshape(tf.range(4), (1, 1, 2, 1, 2, 1))  # of a pixel in its window
    gradient = tf.where(first[:, :, None, :, None] == number, slopes[:, :, None, :, None], 0)
    gradient = tf.reshape(gradient, (-1, 2 * rows, 2 * columns, channels))
    return tf.pad(gradient, [[0, 0], [0, height - 2 * rows], [0, width - 2 * columns], [0, 0]])


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
    """FusedBatchNormalization for a processor without AVX-512, where TensorFlow's fused kernels are slow.

    There sums over the pictures are products of matrices, which use all cores and all of their width.
    """

    def normalize(self, pictures):
        """See FusedBatchNormalization."""
        import tensorflow as tf

        @tf.custom_gradient
        def apply(pictures, gamma, beta):
            values = tf.cast(pictures, "float32")
            mean = _mean(values)
            variance = _mean(tf.math.squared_difference(values, mean))
            inverse = tf.math.rsqrt(variance + self.epsilon)
            scale = gamma * inverse
            outputs = tf.cast(values * scale + (beta - mean * scale), pictures.dtype)

            def gradient(slopes, *_):
                slopes = tf.cast(slopes, "float32")
                of_beta, of_gamma = _mean(slopes), _mean(slopes * (values - mean)) * inverse
                factor = scale * inverse * of_gamma
                # scale * (slopes - of_beta - of_gamma * (values - mean) * inverse), in fewer passes
                of_pictures = slopes * scale - (values * factor + (scale * of_beta - mean * factor))
                count = tf.cast(tf.size(values) // values.shape[-1], "float32")
                return tf.cast(of_pictures, pictures.dtype), of_gamma * count, of_beta * count

            return (outputs, mean, variance), gradient

        return apply(pictures, tf.convert_to_tensor(self.gamma), tf.convert_to_tensor(self.beta))


def _mean(pictures):
    """Returns the mean of each channel of float32 (batch, height, width, channels), by products of matrices."""
    import tensorflow as tf

    means = tf.reshape(pictures, (tf.shape(pictures)[0], -1))
    for channels in (means.shape[-1], pictures.shape[-1]):  # over the batch, then over the picture
        means = tf.reshape(means, (-1, channels))
        count = tf.shape(means)[0]
        means = tf.fill((1, count), 1 / tf.cast(count, "float32")) @ means
    return means[0]


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
