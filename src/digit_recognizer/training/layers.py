"""Layers that compute what Keras' layers compute, with the same weights, but train faster.

No saved model has them: their weights are saved in Keras' layers.
"""

import sys

import keras
from keras import ops

from digit_recognizer.training import processor

_SMALL = 8  # pixels of height


class QuickConv2D(keras.layers.Conv2D):
    """Conv2D of stride 1 whose filters' gradient goes the quickest way on this processor.

    TensorFlow's kernel for that gradient is slow in half precision where the pictures are small: there a product of
    matrices is quicker. In float32, without AVX-512, XLA's code is quicker where there is more than one input channel.
    Elsewhere, and on JAX, this is Keras' Conv2D.
    """

    def convolution_op(self, inputs, kernel):
        """Called by Keras: float (batch, height, width, channels) -> the same with other channels."""
        of_filters = self.quick_gradient(inputs)
        if of_filters is None:
            return super().convolution_op(inputs, kernel)
        import tensorflow as tf

        shared = {"strides": [1, 1, 1, 1], "padding": self.padding.upper()}

        @tf.custom_gradient
        def convolve(pictures, filters):
            def gradient(slopes):
                of_pictures = tf.raw_ops.Conv2DBackpropInput(
                    input_sizes=tf.shape(pictures), filter=filters, out_backprop=slopes, **shared
                )
                return of_pictures, of_filters(pictures, slopes, filters.shape, shared["padding"])

            return tf.nn.conv2d(pictures, filters, **shared), gradient

        return convolve(inputs, tf.convert_to_tensor(kernel))

    def quick_gradient(self, inputs):
        """Returns the function that is quicker than TensorFlow's kernel for these pictures, or None."""
        if keras.backend.backend() != "tensorflow":
            return None
        if inputs.dtype != "float32":
            return multiplied_gradient if inputs.shape[1] <= _SMALL else None
        has_xla = sys.platform != "darwin"  # TensorFlow is built without it for macOS
        return compiled_gradient if has_xla and inputs.shape[-1] > 1 and not processor.has_avx512() else None


def multiplied_gradient(pictures, slopes, shape, padding: str):
    """Returns the gradient of a convolution's filters, by one product of matrices.

    Args:
        pictures: (batch, height, width, channels), the convolution's input.
        slopes: (batch, height, width, filters), the gradient of its output, with the output's height and width.
        shape: of the filters and of the result: odd height and width, channels, filters.
        padding: SAME or VALID.
    """
    rows, columns, channels, filters = shape
    height, width = slopes.shape[1:3]
    if padding == "SAME":
        pictures = ops.pad(pictures, [[0, 0], [rows // 2] * 2, [columns // 2] * 2, [0, 0]])
    windows = [pictures[:, y : y + height, x : x + width] for y in range(rows) for x in range(columns)]
    windows = ops.reshape(ops.concatenate(windows, axis=-1), (-1, rows * columns * channels))
    return ops.reshape(ops.matmul(ops.transpose(windows), ops.reshape(slopes, (-1, filters))), shape)


def compiled_gradient(pictures, slopes, shape, padding: str):
    """Returns the gradient of a convolution's filters, by XLA; the arguments are those of `multiplied_gradient`."""
    import tensorflow as tf

    options = {"filter_sizes": shape, "strides": [1, 1, 1, 1], "padding": padding}

    @tf.function(jit_compile=True)
    def of_filters(pictures, slopes):
        return tf.raw_ops.Conv2DBackpropFilter(input=pictures, out_backprop=slopes, **options)

    return of_filters(pictures, slopes)


class FusedBatchNormalization(keras.layers.BatchNormalization):
    """BatchNormalization of pictures by TensorFlow's fused kernel, for a training step that XLA does not compile.

    Keras writes it as a dozen element-wise operations, each of which reads and writes all pictures. Statistics are
    float32 whatever the inputs are. On JAX, and at prediction, this is Keras' own.
    """

    def call(self, inputs, training=None, mask=None):
        """Float (batch, height, width, channels) -> the same."""
        if keras.backend.backend() != "tensorflow" or not training or len(inputs.shape) != 4:
            return super().call(inputs, training=training, mask=mask)
        import tensorflow as tf

        pictures, none = ops.cast(inputs, self.compute_dtype), tf.zeros(0)
        options = {"mean": none, "variance": none, "epsilon": self.epsilon, "is_training": True}
        outputs, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
            x=pictures, scale=self.gamma, offset=self.beta, **options
        )
        # the kernel's variance is that of a sample, Keras averages that of the batch
        count = tf.cast(tf.size(pictures) / pictures.shape[-1], "float32")
        for moving, batch in ((self.moving_mean, mean), (self.moving_variance, variance * (count - 1) / count)):
            moving.assign(moving * self.momentum + batch * (1 - self.momentum))
        return outputs


class PhiloxDropout(keras.layers.Dropout):
    """Dropout with the Philox generator, for a training step that XLA compiles.

    Keras leaves the choice to TensorFlow, and the generator that XLA then takes on a processor is many times slower.
    """

    def call(self, inputs, training=False):
        """Float of any shape -> the same."""
        if keras.backend.backend() != "tensorflow" or not training:
            return super().call(inputs, training=training)
        import tensorflow as tf

        seed = tf.cast(self.seed_generator.next() % (tf.int32.max - 1), "int32")  # as Keras does
        return tf.nn.experimental.stateless_dropout(inputs, self.rate, seed, rng_alg="philox")
