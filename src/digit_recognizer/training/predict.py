"""From pictures to probabilities: the one way, for validation rows, test rows and a person's own pictures."""

import itertools
from collections.abc import Iterable
from pathlib import Path

import keras
import numpy as np

from digit_recognizer.data.digits import CLASSES, SIDE
from digit_recognizer.data.plan import TrainedModel
from digit_recognizer.errors import UserError
from digit_recognizer.training import (
    backend,
    layers,  # noqa: F401, the layers that a model.keras names
)
from digit_recognizer.training.batches import Batches, stream

# Pictures predicted with at least this probability skip test-time augmentation: it would not change the answer.
_CERTAIN = 0.999


def predict_with_tta(model: keras.Model, images: np.ndarray, shift: int = 0) -> np.ndarray:
    """Returns class probabilities, float32 (n, 10), of uint8 images (n, 28, 28).

    With a `shift` in pixels, the probabilities of an uncertain picture are the mean over the picture and its 8
    neighbours, moved by that shift in each direction; what comes in from outside is 0.
    """
    probabilities = _predict(model, images)
    uncertain = np.flatnonzero(probabilities.max(axis=1) < _CERTAIN) if shift else []
    if len(uncertain):
        padded = np.pad(images[uncertain], ((0, 0), (shift, shift), (shift, shift)))
        moves = list(itertools.product((0, shift, 2 * shift), repeat=2))
        views = np.concatenate([padded[:, y : y + SIDE, x : x + SIDE] for y, x in moves])
        probabilities[uncertain] = _predict(model, views).reshape(len(moves), -1, CLASSES).mean(axis=0)
    return probabilities


def _predict(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Predicts whole batches, the last one filled up with empty pictures: code is compiled for one shape."""
    filled = np.pad(images, ((0, -len(images) % backend.prediction_batch_size()), (0, 0), (0, 0)))
    return model.predict(stream(Batches(filled)), verbose=0)[: len(images)]


def predict_ensemble(models: Iterable[TrainedModel], images: np.ndarray) -> np.ndarray:
    """Returns the weighted mean of the models' class probabilities, float64 (n, 10).

    Args:
        models: with weights that sum to 1.
        images: uint8 (n, 28, 28).

    Raises UserError if a model can't be loaded. Needs `backend.start`.
    """
    total = np.zeros((len(images), CLASSES))
    for trained in models:
        model = load_model(trained.path)
        model.run_eagerly = True  # compiling each network would take longer than a few digits do
        total += trained.weight * predict_with_tta(model, images, trained.tta_shift)
    return total


def load_model(path: Path) -> keras.Model:
    """Returns a saved network, ready to predict; raises UserError if it can't be loaded."""
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a damaged file can raise nearly anything
        reason = str(error).strip().split("\n")[0]
        raise UserError(
            f"{path} is damaged ({reason}): delete {path.parent}/metrics.json and train again"
        ) from None
