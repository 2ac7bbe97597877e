"""The tutorial's way to train its network, as people copy it, for the benchmark to compare with.

Source: 'Learn Computer Vision Fundamentals with the Famous MNIST Data'. It needs TensorFlow; each function
imports what it needs, so that this module costs nothing elsewhere.
"""

import numpy as np

from digit_recognizer import recipes
from digit_recognizer.data.digits import SIDE

AUGMENTATION = {"rotation": 10.0, "zoom": 0.1, "shift": 0.1}  # degrees, and parts of the picture
BATCH = 64  # rows


def floats(images: np.ndarray) -> np.ndarray:
    """Pixels as the tutorial takes them: float32 (n, 28, 28, 1) of 0 to 1, from uint8 (n, 28, 28)."""
    return (images[..., None] / 255).astype(np.float32)


def augmented(images: np.ndarray, labels: np.ndarray | None = None):
    """Endless batches of `floats` and of their labels, if there are any, for `fit`."""
    import tensorflow as tf

    rotation, zoom, shift = AUGMENTATION.values()
    generator = tf.keras.preprocessing.image.ImageDataGenerator(
        rotation_range=rotation, zoom_range=zoom, width_shift_range=shift, height_shift_range=shift
    )
    return generator.flow(images, labels, BATCH)


def compiled():
    """The network as the tutorial writes and compiles it, on `floats`: a keras.Sequential."""
    import keras

    from digit_recognizer.training import networks

    model = networks.build(recipes.change(recipes.named("bn_cnn"), dict.fromkeys(AUGMENTATION, 0.0)))
    # the first three are the pixels, their shape and their scale
    model = keras.Sequential([keras.Input((SIDE, SIDE, 1)), *model.layers[3:]])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
