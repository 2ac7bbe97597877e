"""The tutorial's way to train its network, as people copy it, for the benchmark to compare with.

Source: 'Learn Computer Vision Fundamentals with the Famous MNIST Data'. It needs TensorFlow; each function
imports what it needs, so that this module can be imported without it.
"""

import numpy as np

from digit_recognizer import named_recipes, recipes
from digit_recognizer.data.digits import SIDE

AUGMENTATION = {"rotation": 10.0, "zoom": 0.1, "shift": 0.1}  # degrees, and parts of the picture
BATCH = 64  # rows


def scale(images: np.ndarray) -> np.ndarray:
    """Returns pixels as the tutorial takes them: float32 (n, 28, 28, 1) of 0 to 1, from uint8 (n, 28, 28)."""
    return (images[..., None] / 255).astype(np.float32)


def augmented_batches(images: np.ndarray, labels: np.ndarray | None = None):
    """Returns endless augmented batches, for `fit`, of images that `scale` returned and of their labels."""
    import tensorflow as tf

    rotation, zoom, shift = AUGMENTATION.values()
    generator = tf.keras.preprocessing.image.ImageDataGenerator(
        rotation_range=rotation, zoom_range=zoom, width_shift_range=shift, height_shift_range=shift
    )
    return generator.flow(images, labels, BATCH)


def compiled_network():
    """Returns the network as the tutorial writes and compiles it, a keras.Sequential for scaled images."""
    import keras

    from digit_recognizer.training import networks

    recipe = recipes.change(named_recipes.named("bn_cnn"), dict.fromkeys(AUGMENTATION, 0.0))
    model = networks.build(recipe)
    # the first three are the pixels, their shape and their scale
    model = keras.Sequential([keras.Input((SIDE, SIDE, 1)), *model.layers[3:]])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model
