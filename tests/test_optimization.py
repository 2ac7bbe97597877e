"""How a recipe learns: each knob's values, the learning rates, and when training ends."""

import keras
import numpy as np
import pytest
from keras import ops

from digit_recognizer import named_recipes, recipes
from digit_recognizer.training import networks, optimization
from digit_recognizer.training.optimization import Muon


def recipe(**options):
    return recipes.change(named_recipes.named("dropout_mlp"), {"hidden": (8,)} | options)


def rates(steps, **options):
    """The learning rate of every step of the training; an epoch has `steps` steps."""
    rate = optimization.learning_rate(chosen := recipe(**options), steps)
    return np.array([float(rate(step)) for step in range(steps * chosen.epochs)])


@pytest.mark.parametrize(
    ("optimizer", "loss", "schedule"),
    [
        ("adam", "cross_entropy", "exponential"),
        ("sgd", "squared_error", "one_cycle"),
        ("adagrad", "cross_entropy", "plateau"),
        ("rmsprop", "squared_error", "constant"),
        ("muon", "cross_entropy", "one_cycle"),
    ],
)
def test_every_knob_learns(optimizer, loss, schedule, dataset):
    keras.utils.set_random_seed(0)
    model = networks.build(chosen := recipe(optimizer=optimizer, loss=loss, schedule=schedule, learning_rate=0.01))
    optimization.compile_model(model, chosen, 5)
    images, labels = dataset.train_images, dataset.train_labels
    before = model.evaluate(images, labels, verbose=0)[0]
    model.fit(images, labels, batch_size=16, epochs=2, verbose=0)
    assert model.evaluate(images, labels, verbose=0)[0] < before
    assert type(model.optimizer).__name__.lower().removeprefix("quick") == optimizer


def test_losses_and_accuracy_are_what_they_say(dataset):
    images, labels = dataset.train_images, dataset.train_labels
    for loss in ("cross_entropy", "squared_error"):
        model = networks.build(chosen := recipe(loss=loss))
        optimization.compile_model(model, chosen, 1)
        probabilities = model.predict(images, verbose=0)
        expected = {
            "cross_entropy": -np.log(probabilities[np.arange(80), labels]).mean(),
            "squared_error": ((probabilities - np.eye(10)[labels]) ** 2).mean(),
        }
        accuracy = (probabilities.argmax(axis=1) == labels).mean()
        found = model.evaluate(images, labels, batch_size=80, verbose=0)
        assert found == pytest.approx([expected[loss], accuracy], rel=1e-5)


def test_exponential_falls_once_an_epoch():
    found = rates(5, schedule="exponential", epochs=4, decay=0.9)
    assert found == pytest.approx(np.repeat(0.001 * 0.9 ** np.arange(4), 5))


@pytest.mark.parametrize("warmup", [0.3, 0.1])
def test_one_cycle_rises_and_falls_over_all_epochs(warmup):
    found = rates(10, schedule="one_cycle", epochs=10, warmup=warmup, learning_rate=0.02)
    top = round(100 * warmup)
    assert found.argmax() == top and found.max() == pytest.approx(0.02)
    assert 0 < found[0] < 0.02 / top and 0 < found[-1] < 2e-5
    assert np.diff(found[: top + 1]) == pytest.approx(0.02 / top, rel=0.06)
    fall = np.cos(np.pi * (np.arange(top, 100) - top) / (100 - top)) / 2 + 0.5
    assert found[top:] == pytest.approx(0.02 * fall, abs=1e-7)


def test_plateau_is_a_callback_on_what_is_monitored():
    options = {"schedule": "plateau", "plateau_patience": 4, "plateau_factor": 0.3, "min_learning_rate": 1e-4}
    (rule,) = optimization.schedule_callbacks(recipe(**options), "val_accuracy")
    assert (rule.monitor, rule.patience, rule.factor, rule.min_lr) == ("val_accuracy", 4, 0.3, 1e-4)
    assert optimization.schedule_callbacks(recipe(), "val_accuracy") == []


def epochs_until_stopped(values, **options):
    """How many epochs a training has whose monitored values are these."""
    chosen = recipe(**options)
    (rule,) = optimization.schedule_callbacks(chosen, "val_accuracy")
    model = networks.build(chosen)
    optimization.compile_model(model, chosen, 1)
    model.stop_training = False
    rule.set_model(model)
    rule.on_train_begin()
    for epoch, value in enumerate(values):
        rule.on_epoch_end(epoch, {chosen.stopping_monitor: value})
        if model.stop_training:
            return epoch + 1
    return len(values)


def test_fall_stops_below_the_epoch_before():
    rule = {"stopping_rule": "fall", "stopping_monitor": "accuracy"}
    assert epochs_until_stopped([0.5, 0.7, 0.7, 0.8, 0.79, 0.9], **rule) == 5
    assert epochs_until_stopped([0.5, 0.6, 0.7], **rule) == 3
    assert epochs_until_stopped([3.0, 2.0, 2.5], stopping_rule="fall", stopping_monitor="val_loss") == 3


@pytest.mark.parametrize("monitor", ["val_accuracy", "accuracy", "val_loss", "loss"])
def test_patience_counts_from_the_best(monitor):
    values = [0.5, 0.9, 0.8, 0.9, 0.95]
    if monitor.endswith("loss"):
        values = [-value for value in values]
    assert epochs_until_stopped(values, stopping_monitor=monitor, stopping_patience=2) == 4
    assert epochs_until_stopped(values, stopping_monitor=monitor, stopping_patience=3) == 5


def test_muon_moves_kernels_by_its_momentum_and_the_rest_as_adam():
    """A kernel moves in the directions of the averaged gradient, in all of them about as far."""
    generator = np.random.default_rng(0)
    shapes = (3, 3, 4, 8), (1, 1, 12, 90), (3, 3, 1, 8), (5, 6), (8,)  # the first two are kernels
    starts = [generator.normal(size=shape).astype("float32") for shape in shapes]
    ours, theirs = ([keras.Variable(start) for start in starts] for _ in range(2))
    muon, adam = Muon(1e-3), keras.optimizers.Adam(1e-3)
    averages = [0, 0]
    for _ in range(3):
        gradients = [generator.normal(size=shape).astype("float32") for shape in shapes]
        before = [ops.convert_to_numpy(kernel) for kernel in ours[:2]]
        muon.apply([ops.convert_to_tensor(gradient) for gradient in gradients], ours)
        adam.apply([ops.convert_to_tensor(gradient) for gradient in gradients], theirs)
        for mine, other in zip(ours[2:], theirs[2:], strict=True):
            assert ops.convert_to_numpy(mine) == pytest.approx(ops.convert_to_numpy(other), abs=1e-6)
        for kernel in (0, 1):
            matrix = -1, shapes[kernel][-1]
            gradient = gradients[kernel].reshape(matrix)
            averages[kernel] = 0.9 * averages[kernel] + gradient
            u, _, v = np.linalg.svd(gradient + 0.9 * averages[kernel], full_matrices=False)
            move = u.T @ (before[kernel] - ops.convert_to_numpy(ours[kernel])).reshape(matrix) @ v.T
            assert move == pytest.approx(np.diag(np.diag(move)), abs=1e-5)
            assert np.all((np.diag(move) > 0.6e-2) & (np.diag(move) < 1.3e-2))
