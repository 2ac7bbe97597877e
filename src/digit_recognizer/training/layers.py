"""Layers that compute what Keras' own layers compute, with the same weights, but train faster.

No saved model has them: what they learned is saved in Keras' own.
"""

import keras
from keras import ops


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
