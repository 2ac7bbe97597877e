"""Writes the ensemble of a run as one network in a format that needs nothing of this package."""

import importlib.util
import io
import os
import shutil
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_array, eye_array, vstack

from digit_recognizer.data import digits
from digit_recognizer.data.digits import CLASSES, PIXELS, SIDE
from digit_recognizer.files import UserError, atomic, check_target
from digit_recognizer.results.ensemble import trained_models
from digit_recognizer.runs.directory import Run, announced
from digit_recognizer.training import backend

if TYPE_CHECKING:
    import keras

_CHECKED = 100  # digits of the sample that the file predicts to be checked
_BATCH = 20  # of them at once: with 16 views that is 340 pictures
# Largest difference of a probability. Float32 rounds to less than 0.0001, but a GPU multiplies with fewer digits.
_TOLERANCE = 0.01

Predict = Callable[[np.ndarray], np.ndarray]  # uint8 (n, 28, 28) -> float32 (n, 10)


@dataclass(frozen=True)
class Format:
    """A file format."""

    name: str  # as keras.Model.export takes it
    packages: tuple[str, ...]  # which write and check it, besides Keras
    usage: str  # code that predicts `images`, without its first "import" and its "probabilities ="


FORMATS = {
    ".keras": Format("keras", (), "keras; network = keras.saving.load_model({file!r}); network.predict(images)"),
    "": Format(
        "tf_saved_model",
        ("tensorflow",),
        "tensorflow as tf; network = tf.saved_model.load({file!r}); network.serve(images)",
    ),
    ".tflite": Format(
        "litert",
        ("tensorflow",),
        "tensorflow as tf; network = tf.lite.Interpreter({file!r}).get_signature_runner(); "
        "network(pixels=images)['output_0']",
    ),
    ".onnx": Format(
        "onnx",
        ("tensorflow", "tf2onnx", "onnx", "onnxruntime"),
        "onnxruntime; network = onnxruntime.InferenceSession({file!r}); network.run(None, {{'pixels': images}})[0]",
    ),
}


def export(run: Run, file: Path) -> None:
    """Writes the ensemble of `run` to `file` in the format of its ending, checks it, and prints how to use it.

    The network maps uint8 (n, 28, 28) to float32 (n, 10), what predict.py predicts. It computes in float32. The file is
    written whole, or not at all if its predictions differ from the members' mean.

    Raises UserError for an unknown ending, if a package is not installed, if the file cannot be written, if the run is
    not trained or if one of its networks is damaged.
    """
    format = _format_of(file)
    models, settings = trained_models(run), run.require_settings()
    with announced(run):
        backend.start(settings.get("threads") or backend.cores())
        from digit_recognizer.training.predict import Ensemble  # with Keras

        network, views = build_network(models)
        images = digits.sample().test_images[:_CHECKED]
        expected, _ = Ensemble(models).predict(images)
        with atomic(file, several_writers=True) as temporary:
            difference = _write(network, format, temporary, images, expected)
        size = sum(path.stat().st_size for path in [file, *file.rglob("*")] if path.is_file())
        members = f"{len(models)} networks as one" if len(models) > 1 else "1 network"
        print(f"{file}: {members}, {size / 1e6:.1f} MB; computes in float32")
        print(f"largest difference from the members' mean, on {len(images)} digits: {difference:.1e}")
        print("takes images, uint8 (n, 28, 28), 0 is the background; gives probabilities, float32 (n, 10)")
        if views:
            print(f"predicts a picture and {views} views of it, as the members do, so give it few pictures at once")
        code, _, call = format.usage.format(file=str(file)).rpartition("; ")
        print(f"import {code}; probabilities = {call}")


def _format_of(file: Path) -> Format:
    """Returns the format of the file; raises UserError if it is unknown, or if the file cannot be written here."""
    if file.suffix not in FORMATS:
        endings = ", ".join(filter(None, FORMATS))
        raise UserError(f"FILE {file}: its name has to end in {endings}, or to have no ending for a SavedModel")
    format, chosen = FORMATS[file.suffix], backend.choose()
    if format.packages and chosen != "tensorflow":
        raise UserError(f"FILE {file}: TensorFlow writes this format, not {chosen}: set KERAS_BACKEND=tensorflow")
    if missing := [package for package in format.packages if not importlib.util.find_spec(package)]:
        raise UserError(f"FILE {file}: this format needs what is not installed: pip install {' '.join(missing)}")
    if not file.suffix and os.path.lexists(file):
        raise UserError(f"FILE {file}: it exists, and a SavedModel is a new folder: remove it or take another name")
    check_target("FILE", file)
    return format


def build_network(models: dict[Path, float]) -> tuple["keras.Model", int]:
    """Returns the ensemble as one network of Keras' own layers, and the largest number of views of a member.

    It computes what `Ensemble` predicts, but every view of every picture. `models` are paths of model.keras in run
    directories, with weights that sum to 1. Needs `backend.start`.
    """
    from keras import Input, Model, layers, ops, utils

    from digit_recognizer.training.predict import CERTAIN, load_model, recipe_of, views_of

    utils.clear_session()  # layers have the same names in every process
    pixels = Input((SIDE, SIDE), dtype="uint8", name="pixels")
    inputs: dict[tuple, Any] = {}  # by their views, which members share
    weighted = []
    for number, (path, weight) in enumerate(models.items(), start=1):
        recipe = recipe_of(path)
        member, views = load_model(path, recipe), recipe.tta_views
        member.name = f"member_{number}"
        key = (views, *recipe.augmentation.values())
        if views and key not in inputs:
            inputs[key] = _view(pixels, views_of(recipe))
        probabilities = member(inputs[key] if views else pixels)
        if views:  # the mean over them, unless the picture itself is certain
            probabilities = ops.reshape(probabilities, (-1, 1 + views, CLASSES))
            plain, mean = probabilities[:, 0], ops.mean(probabilities[:, 1:], axis=1)
            probabilities = ops.where(ops.max(plain, axis=-1, keepdims=True) < CERTAIN, mean, plain)
        weighted.append(layers.Rescaling(weight, name=f"weighted_{number}")(probabilities))
    mean = layers.Add(name="probabilities")(weighted) if len(weighted) > 1 else weighted[0]
    return Model(pixels, mean, name="ensemble"), max((key[0] for key in inputs), default=0)


def _view(pixels: "keras.KerasTensor", views: list[csr_array]) -> "keras.KerasTensor":
    """Returns each picture and its views one after the other, uint8 (n * (1 + views), 28, 28).

    Each pixel of a view is a weighted sum of few pixels of the picture (bilinear interpolation reads four).
    """
    from keras import ops

    matrix = csr_array(vstack([eye_array(PIXELS), *views]), dtype=np.float32)
    counts = np.diff(matrix.indptr)  # of the pixels that each pixel is computed from
    is_used = np.arange(counts.max()) < counts[:, None]
    sources, weights = np.zeros(is_used.shape, np.int32), np.zeros(is_used.shape, np.float32)
    sources[is_used], weights[is_used] = matrix.indices, matrix.data
    flat = ops.cast(ops.reshape(pixels, (-1, PIXELS)), "float32")
    read = ops.reshape(ops.take(flat, sources.ravel(), axis=1), (-1, *sources.shape))
    return ops.cast(ops.reshape(ops.round(ops.sum(read * weights, axis=-1)), (-1, SIDE, SIDE)), "uint8")


def _write(network: "keras.Model", format: Format, file: Path, images: np.ndarray, expected: np.ndarray) -> float:
    """Writes the network, predicts with the file, and returns the largest difference from `expected`.

    If that fails, there is no folder `file`. Raises UserError if the file cannot be written or predicts otherwise.
    """
    shutil.rmtree(file, ignore_errors=True)  # of a process that was killed
    # the converters print and use deprecated functions
    with redirect_stdout(io.StringIO()), backend.native_messages_dropped(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            if format.name == "keras":
                network.save(file)
            else:
                network(images[:1])  # Keras exports no network to ONNX that was never called
                network.export(str(file), format=format.name, verbose=False)
            predict = _load(format.name, file)
            batches = np.array_split(images, -(-len(images) // _BATCH))
            difference = np.abs(np.concatenate([predict(batch) for batch in batches]) - expected).max()
            if not difference <= _TOLERANCE:  # nor is NaN
                raise ValueError(f"its predictions differ from the members' by {difference:.2g}")
            return float(difference)
        except BaseException as error:
            shutil.rmtree(file, ignore_errors=True)
            if isinstance(error, OSError) or not isinstance(error, Exception):
                raise
            reason = " ".join(str(error).split())[:200] or type(error).__name__  # a converter can raise nearly anything
            problem = f"{file.name[1:]} cannot be written ({reason})"
            raise UserError(f"{problem}: take another format, such as .keras") from None


def _load(name: str, file: Path) -> Predict:
    """Returns the function that predicts with `file`; `name` is its format, as keras.Model.export takes it."""
    if name == "keras":
        import keras

        return keras.saving.load_model(file).predict_on_batch
    if name == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(file)
        return lambda images: session.run(None, {"pixels": images})[0]
    import tensorflow as tf

    if name == "litert":
        runner = tf.lite.Interpreter(str(file)).get_signature_runner()
        return lambda images: runner(pixels=images)["output_0"]
    network = tf.saved_model.load(str(file))
    return lambda images: network.serve(images).numpy()
