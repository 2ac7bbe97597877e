"""How a recipe learns: each knob's values, the learning rates, and when training ends."""

import keras
import numpy as np
import pytest

from digit_recognizer import recipes
from digit_recognizer.training import networks, optimization


def recipe(**options):
    return recipes.change(recipes.named("dropout_mlp"), {"hidden": (8,)} | options)


def rates(steps, **options):
    """The learning rate of every step of the training, so many an epoch."""
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
    model = networks.build(
        chosen := recipe(optimizer=optimizer, loss=loss, schedule=schedule, learning_rate=0.01)
    )
    optimization.compile(model, chosen, 5)
    images, labels = dataset.train_images, dataset.labels.train
    before = model.evaluate(images, labels, verbose=0)[0]
    model.fit(images, labels, batch_size=16, epochs=2, verbose=0)
    assert model.evaluate(images, labels, verbose=0)[0] < before
    assert type(model.optimizer).__name__.lower() == optimizer


def test_losses_and_accuracy_are_what_they_say(dataset):
    for loss in ("cross_entropy", "squared_error"):
        model = networks.build(chosen := recipe(loss=loss))
        optimization.compile(model, chosen, 1)
        images, labels = dataset.train_images, dataset.labels.train
        found, accuracy = model.evaluate(images, labels, batch_size=80, verbose=0)
        probabilities = model.predict(images, verbose=0)
        if loss == "cross_entropy":
            expected = -np.log(probabilities[np.arange(80), labels]).mean()
        else:
            expected = ((probabilities - np.eye(10)[labels]) ** 2).mean()
        assert found == pytest.approx(expected, rel=1e-5)
        assert accuracy == pytest.approx((probabilities.argmax(axis=1) == labels).mean())


def test_constant():
    assert optimization.learning_rate(recipe(learning_rate=0.02), 7) == 0.02


def test_exponential_falls_once_an_epoch():
    found = rates(5, schedule="exponential", epochs=4, decay=0.9)
    assert found == pytest.approx(np.repeat(0.001 * 0.9 ** np.arange(4), 5))


@pytest.mark.parametrize("warmup", [0.3, 0.1])
def test_one_cycle_rises_and_falls_over_all_epochs(warmup):
    found = rates(10, schedule="one_cycle", epochs=10, warmup=warmup, learning_rate=0.02)
    top = found.argmax()
    assert abs(top - 100 * warmup) <= 1 and found.max() == pytest.approx(0.02, rel=0.06)
    assert 0 < found[0] == pytest.approx(0.02 * 0.5 / (100 * warmup)) and 0 < found[-1] < 1e-5
    assert np.diff(found[:top]) == pytest.approx(0.02 / (100 * warmup), rel=1e-3)
    assert (np.diff(found[top:]) < 0).all()


def test_one_cycle_is_saved_by_its_arguments():
    rate = optimization.OneCycle(0.02, 100, 0.3)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rate))
    assert again.get_config() == {"peak": 0.02, "steps": 100, "warmup": 0.3} == rate.get_config()


def test_plateau_is_a_callback_on_what_is_monitored():
    options = {"schedule": "plateau", "plateau_patience": 4, "plateau_factor": 0.3, "min_learning_rate": 1e-4}
    (rule,) = optimization.callbacks(recipe(**options), "val_accuracy")
    assert (rule.monitor, rule.patience, rule.factor, rule.min_lr) == ("val_accuracy", 4, 0.3, 1e-4)
    assert optimization.callbacks(recipe(), "val_accuracy") == []


def epochs_until_stopped(values, **options):
    """How many epochs a training has whose monitored values are these."""
    chosen = recipe(**options)
    (rule,) = optimization.callbacks(chosen, "val_accuracy")
    model = networks.build(chosen)
    optimization.compile(model, chosen, 1)
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
