"""Test-time augmentation: the views of a picture over which its prediction is the mean.

All pictures have the same views, so that the prediction of one does not depend on the others. A view is linear in
the picture: it is kept as a sparse matrix, which a processor applies to thousands of pictures in a moment.
"""

import functools

import numpy as np
from scipy.sparse import csr_array

from digit_recognizer.data.digits import PIXELS, SIDE
from digit_recognizer.recipes import Recipe
from digit_recognizer.training.augmentation import RandomDistortion, smooth_field_weights

_SEED = 0  # of the views' random numbers

RANGE = 0.5  # how far views are distorted, as a part of training's range


def views_of(recipe: Recipe) -> list[csr_array]:
    """Returns the recipe's views, each a float32 (784, 784) that computes a view's pixels from a picture's.

    A view is distorted with random numbers half as large as in training. Needs `backend.start`.
    """
    return _distorted(recipe.tta_views, *recipe.augmentation.items())


def apply(view: csr_array, images: np.ndarray) -> np.ndarray:
    """Returns the view of each picture; both are uint8 (n, 28, 28)."""
    pixels = view @ images.reshape(-1, PIXELS).T.astype(np.float32)
    return np.rint(pixels.T).astype(np.uint8).reshape(-1, SIDE, SIDE)


@functools.cache
def _distorted(number: int, *distortion: tuple[str, float]) -> list[csr_array]:
    """Returns views in pairs of opposite random numbers, so that they lie evenly around the picture itself."""
    layer, random = RandomDistortion(**dict(distortion)), np.random.default_rng(_SEED)
    knots = len(smooth_field_weights(SIDE, SIDE))
    views: list[csr_array] = []
    while len(views) < number:
        draw, vectors = RANGE * random.uniform(-1, 1, 6), RANGE * random.normal(size=(2, knots))
        views += [_matrix(layer, sign * draw, sign * vectors) for sign in (1, -1)]
    return views[:number]


def _matrix(layer: RandomDistortion, draw: np.ndarray, vectors: np.ndarray | None = None) -> csr_array:
    """Returns what `layer` makes of each picture that has one bright pixel, with the same random numbers for all."""
    pictures = np.eye(PIXELS, dtype=np.float32).reshape(-1, SIDE, SIDE, 1)
    draw = np.tile(draw.astype(np.float32)[:, None], (PIXELS, 1, 1))
    if vectors is not None:
        vectors = np.tile(vectors.astype(np.float32)[:, None], (1, PIXELS, 1))
    return csr_array(np.asarray(layer.distort(pictures, draw, vectors)).reshape(PIXELS, PIXELS).T)
