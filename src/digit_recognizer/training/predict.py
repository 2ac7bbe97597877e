"""From pictures to probabilities: the one way, for validation rows, test rows and a person's own pictures."""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
from scipy.sparse import csr_array

from digit_recognizer import recipes
from digit_recognizer.data.digits import CLASSES
from digit_recognizer.files import reading
from digit_recognizer.recipes import Recipe
from digit_recognizer.runs.directory import Run
from digit_recognizer.training import backend, networks
from digit_recognizer.training.batches import Batches, stream
from digit_recognizer.training.views import apply, views_of

# Pictures predicted with at least this probability skip test-time augmentation: it would not change the answer.
_CERTAIN = 0.999

# Pictures of which all views are made at once: with 16 views 51 MB.
_BLOCK = 4096


def predict_with_tta(model: keras.Model, images: np.ndarray, views: Sequence[csr_array] = ()) -> np.ndarray:
    """Returns class probabilities, float32 (n, 10), of uint8 images (n, 28, 28).

    With `views`, each a matrix of `views_of`, the probabilities of an uncertain picture are the mean over them.
    """
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
    with reading(path, f"delete {path.with_name('metrics.json')} and train again"):
        model = networks.build(recipe)
        model.load_weights(path)
    return model
