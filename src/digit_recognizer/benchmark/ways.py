"""The ways that the benchmark compares: as published in Keras, this program's and, if it is installed, PyTorch's.

Images are uint8 (n, 28, 28), labels uint8 (n,). This module imports Keras and TensorFlow: call `backend.start` first.
Source of the published way: the tutorial 'Learn Computer Vision Fundamentals with the Famous MNIST Data'.
"""

import importlib.util
import math
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from digit_recognizer import named_recipes, recipes
from digit_recognizer.data import folds
from digit_recognizer.data.digits import SIDE, Dataset
from digit_recognizer.runs.member import Member
from digit_recognizer.runs.plan import make_members
from digit_recognizer.training import backend, networks
from digit_recognizer.training.batches import stream
from digit_recognizer.training.fold import FoldTrainer
from digit_recognizer.training.optimization import schedule_callbacks
from digit_recognizer.training.predict import predict_with_tta

if importlib.util.find_spec("torch") and not backend.find_accelerator():  # it is not required
    import torch
    from torch import nn
    from torch.nn import functional
else:
    torch = None

Ways = dict[str, Callable[[], Any]]  # what is timed, by name

PUBLISHED, OURS = "bn_cnn, as published", "fast, ours"  # names of ways
TORCH = f"bn_cnn, PyTorch {torch.__version__}" if torch else ""  # its network in PyTorch, written for speed
BN_CNN, FAST = named_recipes.named("bn_cnn"), named_recipes.named("fast")


def epochs(images: np.ndarray, labels: np.ndarray) -> Ways:
    """Returns functions that train for an epoch, without validation; those on Keras return the seconds of its steps."""
    ways: Ways = {PUBLISHED: partial(_fit, _published_network(), _augmented_batches(_scale(images), labels))}
    member = Member(0, 0, 0, np.arange(len(images)), np.arange(0), Path())
    for recipe in (BN_CNN, FAST):
        trainer = FoldTrainer(recipe, len(images))
        shuffled = trainer.epochs(images, labels, member)
        options = {"shuffle": False, "steps_per_epoch": shuffled.chunks}
        ways[f"{recipe.name}, ours"] = partial(_fit, trainer.learner, stream(shuffled), **options)
    return ways | ({TORCH: _torch_epoch(images, labels)} if torch else {})


def _fit(model: keras.Model, batches: Any, **options: Any) -> float:
    """Trains for an epoch; returns the seconds of its steps, without the end of `fit` (see `batches.stream`)."""
    times = []
    note = lambda *_: times.append(time.perf_counter())  # noqa: E731
    callback = keras.callbacks.LambdaCallback(on_epoch_begin=note, on_epoch_end=note)
    model.fit(batches, callbacks=[callback], verbose=0, **options)
    return times[1] - times[0]


def predictors(images: np.ndarray) -> Ways:
    """Returns functions that predict the images, without test-time augmentation."""
    ways: Ways = {PUBLISHED: partial(_published_network().predict, _scale(images), verbose=0)}
    for recipe in (BN_CNN, FAST):
        ways[f"{recipe.name}, ours"] = partial(predict_with_tta, FoldTrainer(recipe, len(images)).network, images)
    if torch:
        network, batches = _torch_network().eval(), torch.from_numpy(images).split(256)
        predict = torch.inference_mode()(lambda: [network(pixels[:, None] / 255).softmax(dim=1) for pixels in batches])
        ways[TORCH] = partial(_autocast, predict)
    return ways


def train_to_accuracy(way: str, dataset: Dataset, recipe: recipes.Recipe, accuracy: float) -> tuple[float, list[float]]:
    """Trains to a validation accuracy, or to the recipe's end; returns the seconds and the epochs' accuracies."""
    accuracies, ends = [], []

    def note(_, logs: dict[str, float]) -> None:
        accuracies.append(float(logs["val_accuracy"]))
        ends.append(time.perf_counter())
        callback.model.stop_training |= accuracies[-1] >= accuracy

    callback = keras.callbacks.LambdaCallback(on_epoch_end=note)
    keras.utils.clear_session()
    keras.utils.set_random_seed(recipe.seed)
    with tempfile.TemporaryDirectory() as folder:
        member = make_members(folds.split(dataset.train_labels, recipe), Path(folder))[0]
        began = time.perf_counter()
        if way == PUBLISHED:
            images, labels = _scale(dataset.train_images), dataset.train_labels
            batches = _augmented_batches(images[member.train_rows], labels[member.train_rows])
            validation = images[member.validation_rows], labels[member.validation_rows]
            callbacks = [*schedule_callbacks(recipe, "val_accuracy"), callback]
            options = {"epochs": recipe.epochs, "validation_data": validation, "callbacks": callbacks}
            _published_network().fit(batches, verbose=0, **options)
        else:
            FoldTrainer(recipe, len(member.train_rows)).train(member, dataset, callbacks=[callback])
    return ends[-1] - began, accuracies


def _published_network() -> keras.Model:
    """Returns the compiled network, which takes scaled images."""
    recipe = recipes.change(BN_CNN, {"rotation": 0.0, "zoom": 0.0, "shift": 0.0})
    # the first three layers are the pixels, their shape and their scale
    network = keras.Sequential([keras.Input((SIDE, SIDE, 1)), *networks.build(recipe).layers[3:]])
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return network


def _augmented_batches(images: np.ndarray, labels: np.ndarray) -> Any:
    ranges = {"width_shift_range": BN_CNN.shift, "height_shift_range": BN_CNN.shift, "zoom_range": BN_CNN.zoom}
    generator = tf.keras.preprocessing.image.ImageDataGenerator(rotation_range=BN_CNN.rotation, **ranges)
    return generator.flow(images, labels, BN_CNN.batch_size)


def _scale(images: np.ndarray) -> np.ndarray:
    return (images[..., None] / 255).astype(np.float32)


def _autocast(function: Callable[..., Any], *arguments: Any) -> Any:
    """Calls a function of PyTorch in the number format that this program takes."""
    with torch.autocast("cpu", torch.bfloat16, enabled=backend.compute_dtype("auto") == "bfloat16"):
        return function(*arguments)


def _torch_epoch(images: np.ndarray, labels: np.ndarray) -> Callable[[], Any]:
    """Returns a function that trains for an epoch on whole batches in a random order."""
    network, batch_size, pixels = _torch_network(), BN_CNN.batch_size, torch.from_numpy(images)
    optimizer, targets = torch.optim.Adam(network.parameters(), fused=True), torch.from_numpy(labels.astype(np.int64))

    def train() -> None:
        for rows in torch.randperm(len(pixels))[: len(pixels) // batch_size * batch_size].split(batch_size):
            logits = _autocast(network, _torch_augment(pixels[rows]))
            optimizer.zero_grad(set_to_none=True)
            functional.cross_entropy(logits.float(), targets[rows]).backward()
            optimizer.step()

    return train


def _torch_network() -> Any:
    """Returns the network in PyTorch, from float (n, 1, 28, 28) to logits (n, 10)."""
    torch.set_num_threads(tf.config.threading.get_intra_op_parallelism_threads())
    # max-pooling and ReLU can change places; ReLU after it has a quarter of the work
    layers = [nn.Conv2d(1, 64, 3, padding=1), nn.BatchNorm2d(64), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(64, 128, 3, padding=1), nn.BatchNorm2d(128), nn.MaxPool2d(2), nn.ReLU(inplace=True)]
    layers += [nn.Conv2d(128, 192, 3, padding=1), nn.MaxPool2d(2), nn.ReLU(inplace=True), nn.Flatten()]
    layers += [nn.Linear(192 * 3 * 3, 256), nn.BatchNorm1d(256), nn.ReLU(), nn.Dropout(0.3)]
    return nn.Sequential(*layers, nn.Linear(256, 10)).to(memory_format=torch.channels_last)


def _torch_augment(pixels: Any) -> Any:
    """Returns float (n, 1, 28, 28) from 0 to 1: each image rotated, zoomed and shifted by its own random numbers."""
    draw = torch.rand(5, len(pixels)) * 2 - 1
    angle = draw[0] * math.radians(BN_CNN.rotation)
    height, width = 1 + BN_CNN.zoom * draw[1:3]
    down, across = 2 * BN_CNN.shift * draw[3:5]  # the image is 2 high and wide
    sine, cosine = torch.sin(angle), torch.cos(angle)
    to_x = torch.stack([cosine * width, sine * height, across], dim=1)
    to_y = torch.stack([-sine * width, cosine * height, down], dim=1)
    shape = [len(pixels), 1, SIDE, SIDE]
    grid = functional.affine_grid(torch.stack([to_x, to_y], dim=1), shape, align_corners=False)
    return functional.grid_sample(pixels.reshape(shape) / 255, grid, align_corners=False)
