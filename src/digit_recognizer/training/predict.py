"""From pictures to probabilities: the one way, for validation rows, test rows and a person's own pictures."""

import json
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from scipy.sparse import csr_array

from digit_recognizer.data.digits import CLASSES
from digit_recognizer.data.plan import TrainedModel
from digit_recognizer.errors import UserError
from digit_recognizer.training import (
    augmentation,  # noqa: F401, the layer that a model.keras names
    backend,
)
from digit_recognizer.training.batches import Batches, stream
from digit_recognizer.training.views import apply, views_of

# Pictures predicted with at least this probability skip test-time augmentation: it would not change the answer.
_CERTAIN = 0.999

# Pictures of which all views are made at once: with 16 views 51 MB.
_BLOCK = 4096

# What a model.keras may be made of, besides the project's own layers: the classes of all networks so far.
_MODULES = (None, "keras", "keras.layers", "keras.initializers", "keras.src.models.functional")
_CLASSES = ("Functional", "InputLayer", "DTypePolicy", "GlorotUniform", "Ones", "Zeros", "__keras_tensor__")
_CLASSES += ("Activation", "Add", "BatchNormalization", "Conv2D", "Cropping2D", "Dense", "Dropout", "Flatten")
_CLASSES += (
    "GlobalAveragePooling2D",
    "LeakyReLU",
    "MaxPooling2D",
    "Rescaling",
    "Reshape",
    "UnitNormalization",
)


# The project's own layer by its names: registered, and of its class, in this version and in earlier ones.
_OWN = [("digit_recognizer>RandomAffine", name) for name in ("RandomDistortion", "RandomAffine")]


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
        total += trained.weight * predict_with_tta(model, images, views_of(trained.recipe))
    return total


def load_model(path: Path) -> keras.Model:
    """Returns a saved network, ready to predict.

    Nothing in the file is run: what is no part of this project's networks is refused before Keras builds it.

    Raises UserError if it can't be loaded.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_parts(json.loads(archive.read("config.json")))
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # a damaged file can raise nearly anything
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise UserError(
            f"{path} is damaged, or none of this program's ({reason[:300]}): delete {path.parent}/metrics.json and "
            "train again"
        ) from None


def _check_parts(config: Any) -> None:
    """Raises ValueError for a class or function, in a network's config.json, that no network of ours has.

    Keras' safe mode refuses code in the file, but it has imported other modules, and called other functions, that the
    file names (CVE-2025-1550, CVE-2025-8747).
    """
    inner = config
    if isinstance(config, dict):
        name, module = config.get("class_name"), config.get("module")
        own = (config.get("registered_name"), name) in _OWN
        if name is not None and not own and (module not in _MODULES or name not in _CLASSES):
            raise ValueError(f"it names {module}.{name}")
        inner = config.values()
    for each in inner if isinstance(config, dict | list) else ():
        _check_parts(each)
