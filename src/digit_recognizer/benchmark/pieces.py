"""Parts c and d: augmentation alone, and batch normalisation alone and with pooling and ReLU."""

from collections.abc import Iterator

import numpy as np

from digit_recognizer.benchmark import baseline
from digit_recognizer.benchmark.baseline import BATCH
from digit_recognizer.benchmark.timing import Row, compare
from digit_recognizer.benchmark.workload import Workload, first_rows, on_tensorflow

BLOCKS = ((BATCH, 28, 28, 64), (BATCH, 14, 14, 128))  # what the tutorial's network normalises


def measure_augmentation(workload: Workload) -> Iterator[Row]:
    """Part c."""
    if not on_tensorflow("augmentation alone"):
        return
    import tensorflow as tf
    from keras import layers

    from digit_recognizer.training.augmentation import RandomDistortion

    images = baseline.scale(first_rows(workload.dataset, workload.batches * BATCH)[0])
    batches = [tf.constant(batch) for batch in np.split(images, workload.batches)]
    flow = baseline.augmented_batches(images)

    def apply(*chain, by_xla=False):
        @tf.function(jit_compile=by_xla)
        def augment(pictures):
            for layer in chain:
                pictures = layer(pictures, training=True)
            return pictures

        return lambda: [augment(batch) for batch in batches][-1].numpy()

    keras_layers = (
        layers.RandomRotation(10 / 360),
        layers.RandomZoom(0.1, 0.1),
        layers.RandomTranslation(0.1, 0.1),
    )
    ways = {
        "ImageDataGenerator": lambda: [flow[number] for number in range(len(flow))],
        "Keras' three layers": apply(*keras_layers),
        "ours, uncompiled": apply(RandomDistortion(**baseline.AUGMENTATION)),
        "ours, compiled": apply(RandomDistortion(**baseline.AUGMENTATION), by_xla=True),
    }
    yield from compare("augmenting", ways, workload.rounds, "images/s", lambda seconds: len(images) / seconds)


def measure_normalization(workload: Workload) -> Iterator[Row]:
    """Part d: forward and backward, float32."""
    if not on_tensorflow("batch normalisation alone"):
        return
    import keras
    import tensorflow as tf

    from digit_recognizer.training.networks import KERAS, TENSORFLOW, XLA

    def step(layer_set, shape, whole, by_xla=False):
        rest = [keras.layers.Activation("relu"), layer_set.pooling()] if whole else []
        rest = reversed(rest) if layer_set.pools_before_activation else rest
        block = keras.Sequential([keras.Input(shape[1:], shape[0]), layer_set.normalisation(), *rest])
        pictures, slope = (tf.random.stateless_normal(each, (0, 0)) for each in (shape, block.output_shape))

        @tf.function(jit_compile=by_xla)
        def differentiate():
            with tf.GradientTape() as tape:
                tape.watch(pictures)
                outputs = block(pictures, training=True)
            return tape.gradient(outputs, [pictures, *block.trainable_variables], slope)

        return lambda: [differentiate() for _ in range(workload.batches)][-1][0].numpy()

    for shape in BLOCKS:
        for whole, what in ((False, "normalising"), (True, "normalising, pooling, ReLU")):
            ways = {
                "as published": step(KERAS, shape, whole),
                "ours, uncompiled": step(TENSORFLOW, shape, whole),
                "ours, compiled": step(XLA, shape, whole, by_xla=True),
            }
            what = f"{what} {'x'.join(map(str, shape))}"
            yield from compare(
                what, ways, workload.rounds, "ms", lambda taken: 1000 * taken / workload.batches
            )
