"""Networks predict what they have learned, however short the training: statistics of batch normalisation."""

import dataclasses
import os

import keras
import numpy as np
import pytest
from conftest import train_member

from digit_recognizer.data import digits, folds
from digit_recognizer.named_recipes import named
from digit_recognizer.recipes import change
from digit_recognizer.runs.plan import make_members
from digit_recognizer.training import networks
from digit_recognizer.training.callbacks import BatchStatistics

NARROW = {"fast": (8, 16, 16, 32, 32), "bn_cnn": (16, 24, 32)}


def rows_of_the_sample(rows):
    """That many training rows of the sample, the first ones again if it has fewer."""
    whole = digits.sample()
    chosen = np.arange(rows) % len(whole.train_images)
    return dataclasses.replace(whole, train_images=whole.train_images[chosen], train_labels=whole.train_labels[chosen])


def accuracy_with_large_batches(model, images, labels):
    """The accuracy of a network's weights with the statistics of one batch of all these pictures."""
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in layers:
        layer.momentum = 0.0
    for _ in layers:  # each time one more layer has its statistics
        model(images, training=True)
    return (model.predict(images, verbose=0).argmax(axis=1) == labels).mean()


@pytest.mark.parametrize(
    ("name", "rows", "batch_size", "epochs", "precision"),
    [
        ("fast", 300, 16, 2, "float32"),
        ("fast", 1300, 512, 4, "float32"),
        ("fast", 2600, 2048, 10, "bfloat16"),
        ("fast", 10_000, 1024, 2, "float32"),
        ("fast", 1300, 128, 3, "bfloat16"),
        ("bn_cnn", 300, 32, 10, "float32"),
        ("bn_cnn", 1300, 1024, 3, "bfloat16"),
    ],
)
def test_a_network_predicts_what_it_has_learned(name, rows, batch_size, epochs, precision, tmp_path):
    if precision != "float32" and os.environ.get("ONEDNN_MAX_CPU_ISA"):
        pytest.skip("oneDNN has no half precision with a limit on its instructions")
    options = {"filters": NARROW[name], "dropout": 0.0, "batch_size": batch_size, "epochs": epochs}
    recipe = change(named(name), options | {"precision": precision, "folds": 2, "tta_views": 0})
    dataset = rows_of_the_sample(rows)
    member = make_members(folds.split(dataset.train_labels, recipe), tmp_path)[0]
    train_member(recipe, dataset, member, tmp_path)
    images, labels = dataset.train_images[member.train_rows], dataset.train_labels[member.train_rows]
    model = networks.build(recipe)
    model.load_weights(tmp_path / "model.keras")
    accuracy = (model.predict(images, verbose=0).argmax(axis=1) == labels).mean()
    assert accuracy >= accuracy_with_large_batches(model, images, labels) - 0.02


def test_3000_rows_and_6_epochs_reach_an_accuracy_of_097(tmp_path):
    """The sample's digits and a copy of each, moved by a pixel, in the same fold."""
    sample, moved = digits.sample(), np.roll(digits.sample().train_images, 1, axis=1)
    chosen = np.arange(3000) % 2600 % 1300
    images = np.where((np.arange(3000) < 1300)[:, None, None], sample.train_images[chosen], moved[chosen])
    few = {"test_images": sample.test_images[:9], "ids": sample.ids[:9]}
    dataset = dataclasses.replace(sample, train_images=images, train_labels=sample.train_labels[chosen], **few)
    recipe = change(named("fast"), {"filters": (24, 48, 48, 96, 96), "folds": 3, "epochs": 6})
    members = make_members((chosen % 3).astype(np.int8)[:, None], tmp_path)
    errors = sum(train_member(recipe, dataset, member, member.folder)["errors"] for member in members)
    assert errors < 0.03 * 3000


def test_the_statistics_are_those_of_the_pictures():
    """The mean and the variance of all pictures, whatever the number of batches."""
    recipe = change(named("fast"), {"filters": NARROW["fast"], "tta_views": 0})
    model = networks.build(recipe)
    images = digits.sample().train_images
    BatchStatistics(recipe, networks.KERAS, "float32").update(model, images, seed=0)
    first = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    before = keras.Model(model.input, first.input)
    values = before.predict(images, verbose=0).reshape(-1, NARROW["fast"][0])
    assert keras.ops.convert_to_numpy(first.moving_mean) == pytest.approx(values.mean(axis=0), abs=1e-3)
    assert keras.ops.convert_to_numpy(first.moving_variance) == pytest.approx(values.var(axis=0), rel=1e-2)
