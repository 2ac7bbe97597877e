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
from digit_recognizer.runs.directory import Run
from digit_recognizer.training import backend, networks
from digit_recognizer.training.batches import Batches, stream
from digit_recognizer.training.layers import RandomDistortion

# A picture predicted with this probability skips test-time augmentation: it would not change the answer.
CERTAIN = 0.999
_BLOCK = 4096  # pictures whose views are computed at once: with 16 views 51 MB
_VIEWS_SEED = 0  # of the views' random numbers
VIEW_RANGE = 0.5  # how far views are distorted, as a part of training's range


def views_of(recipe: recipes.Recipe) -> list[csr_array]:
    """Returns the recipe's views, each a matrix float32 (784, 784) from a picture's pixels to the view's.

    All pictures have the same views, so the prediction of one does not depend on the others. A view is distorted with
    random numbers half as large as in training, and they come in pairs of opposite numbers, so that they lie evenly
    around the picture. Needs `backend.start`.
    """
    return _distorted(recipe.tta_views, *recipe.augmentation.items())


def apply(view: csr_array, images: np.ndarray) -> np.ndarray:
    """Returns the view of each picture; both are uint8 (n, 28, 28)."""
    pixels = view @ images.reshape(-1, PIXELS).T.astype(np.float32)
    return np.rint(pixels.T).astype(np.uint8).reshape(-1, SIDE, SIDE)


@functools.cache
def _distorted(number: int, *distortion: tuple[str, float]) -> list[csr_array]:
    layer, random = RandomDistortion(**dict(distortion)), np.random.default_rng(_VIEWS_SEED)
    pictures = np.eye(PIXELS, dtype=np.float32).reshape(-1, SIDE, SIDE, 1)  # with one bright pixel each
    views: list[csr_array] = []
    while len(views) < number:
        draw = VIEW_RANGE * random.uniform(-1, 1, 6)
        for sign in (1, -1):
            images = layer.distort(pictures, np.tile((sign * draw).astype(np.float32)[:, None], (PIXELS, 1, 1)))
            views.append(csr_array(np.asarray(images).reshape(PIXELS, PIXELS).T))
    return views[:number]


def predict_with_tta(
    model: keras.Model,
    images: np.ndarray,
    views: Sequence[csr_array] = (),
    batch: int | None = None,
    whole_batches: bool = True,
) -> np.ndarray:
    """Returns class probabilities, float32 (n, 10), of uint8 images (n, 28, 28).

    With `views`, each a matrix of `views_of`, the probabilities of an uncertain picture are the mean over them. `batch`
    is the number of rows that are predicted at once (None: as many as suit the device). Without `whole_batches` a few
    pictures take less time, and the rounding of one depends on their number.
    """
    if not len(images):
        return np.empty((0, CLASSES), np.float32)
    batch = batch or backend.prediction_batch_size()
    probabilities = _predict(model, images, batch, whole_batches)
    uncertain = np.flatnonzero(probabilities.max(axis=1) < CERTAIN) if views else np.array([], int)
    for first in range(0, len(uncertain), _BLOCK):
        rows = uncertain[first : first + _BLOCK]
        pictures = np.concatenate([apply(view, images[rows]) for view in views])
        of_views = _predict(model, pictures, batch, whole_batches)
        probabilities[rows] = of_views.reshape(len(views), -1, CLASSES).mean(axis=0)
    return probabilities


def _predict(model: keras.Model, images: np.ndarray, batch: int, whole_batches: bool) -> np.ndarray:
    """Predicts whole batches, the last one filled up with empty pictures: code is compiled for one shape.

    Without `whole_batches` fewer pictures than half a batch are filled up to a power of two: there are few shapes.
    """
    is_small = not whole_batches and len(images) <= batch // 2
    if is_small:
        batch = 1 << (len(images) - 1).bit_length()
    filled = np.pad(images, ((0, -len(images) % batch), (0, 0), (0, 0)))
    if is_small:
        return model.predict_on_batch(filled)[: len(images)]
    return model.predict(stream(Batches(filled, rows=batch)), verbose=0)[: len(images)]


class Ensemble:
    """Saved networks in memory, whose weighted mean is the prediction. Needs `backend.start`."""

    def __init__(self, models: dict[Path, float]):
        """Takes paths of model.keras with weights that sum to 1; raises UserError as `load_model`."""
        self.weights, self._members = np.array([*models.values()]), []
        for path in models:
            recipe = recipe_of(path)
            self._members.append((load_model(path, recipe), views_of(recipe)))

    def predict(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the probabilities of uint8 (n, 28, 28): the ensemble's (n, 10), the members' (members, n, 10)."""
        members = [predict_with_tta(model, images, views, whole_batches=False) for model, views in self._members]
        return np.tensordot(self.weights, np.array(members), axes=1), np.array(members)


def recipe_of(path: Path) -> recipes.Recipe:
    """Returns the recipe of the run that has the network `path`, a model.keras."""
    return recipes.from_json(Run(path.parents[1]).require_settings())


def load_model(path: Path, recipe: recipes.Recipe) -> keras.Model:
    """Returns a saved network of the recipe, ready to predict; raises UserError if it cannot be loaded.

    The network is built from the recipe and takes only the weights from the file, so nothing in the file is run.
    """
    with reading(path, f"delete {path.with_name('metrics.json')} and train again"), warnings.catch_warnings():
        warnings.simplefilter("error")  # Keras only warns of layers that the file does not have
        model = networks.build(recipe)
        model.load_weights(path)
    return model
