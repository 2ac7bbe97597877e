"""From pictures to probabilities: the one way, for validation rows, test rows and a person's own pictures."""

import functools
import warnings
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from scipy.sparse import csr_array

from digit_recognizer import recipes
from digit_recognizer.data.digits import CLASSES, PIXELS, SIDE
from digit_recognizer.files import reading
from digit_recognizer.recipes import Recipe
from digit_recognizer.runs.directory import Run
from digit_recognizer.training import backend, networks
from digit_recognizer.training.augmentation import RandomDistortion, smooth_field_weights
from digit_recognizer.training.batches import Batches, stream

_CERTAIN = (
    0.999  # a picture predicted with this probability skips test-time augmentation: it would not change the answer
)
_BLOCK = 4096  # pictures whose views are computed at once: with 16 views 51 MB
_VIEWS_SEED = 0  # of the views' random numbers
VIEW_RANGE = 0.5  # how far views are distorted, as a part of training's range


def views_of(recipe: Recipe) -> list[csr_array]:
    """Returns the recipe's views, each a matrix float32 (784, 784) from a picture's pixels to the view's.

    All pictures have the same views, so the prediction of one does not depend on the others. A view is distorted with
    random numbers half as large as in training. Needs `backend.start`.
    """
    return _distorted(recipe.tta_views, *recipe.augmentation.items())


def apply(view: csr_array, images: np.ndarray) -> np.ndarray:
    """Returns the view of each picture; both are uint8 (n, 28, 28)."""
    pixels = view @ images.reshape(-1, PIXELS).T.astype(np.float32)
    return np.rint(pixels.T).astype(np.uint8).reshape(-1, SIDE, SIDE)


@functools.cache
def _distorted(number: int, *distortion: tuple[str, float]) -> list[csr_array]:
    """Returns views in pairs of opposite random numbers, so that they lie evenly around the picture."""
    layer, random = RandomDistortion(**dict(distortion)), np.random.default_rng(_VIEWS_SEED)
    knots = len(smooth_field_weights(SIDE, SIDE))
    views: list[csr_array] = []
    while len(views) < number:
        draw, vectors = VIEW_RANGE * random.uniform(-1, 1, 6), VIEW_RANGE * random.normal(size=(2, knots))
        views += [_matrix(layer, sign * draw, sign * vectors) for sign in (1, -1)]
    return views[:number]


def _matrix(layer: RandomDistortion, draw: np.ndarray, vectors: np.ndarray | None = None) -> csr_array:
    """Returns the distortion by `layer` as a matrix: what it makes of each picture with one bright pixel."""
    pictures = np.eye(PIXELS, dtype=np.float32).reshape(-1, SIDE, SIDE, 1)
    draw = np.tile(draw.astype(np.float32)[:, None], (PIXELS, 1, 1))
    if vectors is not None:
        vectors = np.tile(vectors.astype(np.float32)[:, None], (1, PIXELS, 1))
    return csr_array(np.asarray(layer.distort(pictures, draw, vectors)).reshape(PIXELS, PIXELS).T)


def predict_with_tta(model: keras.Model, images: np.ndarray, views: Sequence[csr_array] = ()) -> np.ndarray:
    """Returns class probabilities, float32 (n, 10), of uint8 images (n, 28, 28).

    With `views`, each a matrix of `views_of`, the probabilities of an uncertain picture are the mean over them.
    """
    if not len(images):
        return np.empty((0, CLASSES), np.float32)
    probabilities = _predict(model, images)
    uncertain = np.flatnonzero(probabilities.max(axis=1) < _CERTAIN) if views else np.array([], int)
    for first in range(0, len(uncertain), _BLOCK):
        rows = uncertain[first : first + _BLOCK]
        pictures = np.concatenate([apply(view, images[rows]) for view in views])
        probabilities[rows] = _predict(model, pictures).reshape(len(views), -1, CLASSES).mean(axis=0)
    return probabilities


def _predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Predicts whole batches, the last one filled up with empty pictures: code is compiled for one shape."""
    filled = np.pad(images, ((0, -len(images) % backend.prediction_batch_size()), (0, 0), (0, 0)))
    return model.predict(stream(Batches(filled)), verbose=0)[: len(images)]


def predict_ensemble(models: dict[Path, float], images: np.ndarray) -> np.ndarray:
    """Returns the weighted mean of the models' class probabilities, float64 (n, 10).

    Args:
        models: paths of model.keras in run directories, with weights that sum to 1.
        images: uint8 (n, 28, 28).

    Raises UserError if a model cannot be loaded. Needs `backend.start`.
    """
    total = np.zeros((len(images), CLASSES))
    for path, weight in models.items():
        recipe = recipes.from_json(Run(path.parents[1]).require_settings())
        model = load_model(path, recipe)
        model.run_eagerly = True  # compiling each network would take longer than a few digits do
        total += weight * predict_with_tta(model, images, views_of(recipe))
    return total


def load_model(path: Path, recipe: Recipe) -> keras.Model:
    """Returns a saved network of the recipe, ready to predict; raises UserError if it cannot be loaded.

    The network is built from the recipe and takes only the weights from the file, so nothing in the file is run.
    """
    with reading(path, f"delete {path.with_name('metrics.json')} and train again"), warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras only warns of layers that the file does not have
        model = networks.build(recipe)
        model.load_weights(path)
    return model
