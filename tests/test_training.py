"""Training one fold: what it leaves behind, and that an interruption changes none of it."""

import dataclasses
import gc
import json
import re
import time
import zipfile
from contextlib import nullcontext

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import at, train_member

from digit_recognizer.files import UserError, read_json
from digit_recognizer.named_recipes import named
from digit_recognizer.recipes import change
from digit_recognizer.runs.member import HISTORY
from digit_recognizer.training import backend, batches, networks, optimization
from digit_recognizer.training.batches import Batches, ShuffledEpochs, stream
from digit_recognizer.training.callbacks import OutOfTimeError, TimeBudget, ValidationWeights
from digit_recognizer.training.fold import FoldTrainer
from digit_recognizer.training.predict import predict_with_tta, views_of


class Death(BaseException):
    """What a killed process looks like from within."""


class DieAt(keras.callbacks.Callback):
    """Dies in that epoch: `within` it, when its first steps are done, or `after` its state is saved."""

    def __init__(self, epoch, moment):
        super().__init__()
        self.epoch, self.moment, self.now = epoch, moment, None

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if (self.now, batch, self.moment) == (self.epoch, 0, "within"):
            raise Death

    def on_epoch_end(self, epoch, logs=None):
        if (epoch, self.moment) == (self.epoch, "after"):
            raise Death


def numbers(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*.npy"))}


@pytest.fixture(scope="module")
def long_recipe(small_recipe):
    """So short a patience that the learning rate falls and training may stop early."""
    options = {"epochs": 6, "plateau_patience": 1, "stopping_patience": 3, "learning_rate": 0.01}
    return change(small_recipe, options)


@pytest.fixture(scope="module")
def undisturbed(long_recipe, dataset, folds, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed") / "fold_00"
    train_member(long_recipe, dataset, folds[0], folder)
    assert len(pd.read_csv(folder / "history.csv")) > 3  # an interruption in the third epoch is not at the end
    return folder


def test_what_a_finished_fold_holds(undisturbed, dataset, folds):
    names = {"model.keras", "history.csv", "validation_probabilities.npy", "test_probabilities.npy", "metrics.json"}
    assert {path.name for path in undisturbed.iterdir()} == names
    history = pd.read_csv(undisturbed / "history.csv")
    assert tuple(history.columns) == HISTORY
    metrics = read_json(undisturbed / "metrics.json")
    assert metrics["epochs"] == len(history) and metrics["best_epoch"] == 1 + history["val_accuracy"].argmax()
    probabilities = np.load(undisturbed / "validation_probabilities.npy")
    assert probabilities.shape == (40, 10) and probabilities.dtype == np.float32
    right = probabilities.argmax(axis=1) == dataset.train_labels[folds[0].validation_rows]
    assert metrics["accuracy"] == pytest.approx(right.mean()) == pytest.approx(history["val_accuracy"].max())
    assert metrics["errors"] == (~right).sum() and metrics["rows"] == 40
    model = keras.saving.load_model(undisturbed / "model.keras")
    assert (np.load(undisturbed / "test_probabilities.npy") == predict_with_tta(model, dataset.test_images)).all()


def test_the_last_epochs_network_predicts(long_recipe, dataset, folds, tmp_path):
    recipe = change(long_recipe, {"kept_epoch": "last", "precision": "float32"})
    train_member(recipe, dataset, folds[0], tmp_path)
    history, metrics = pd.read_csv(tmp_path / "history.csv"), read_json(tmp_path / "metrics.json")
    assert metrics["accuracy"] == pytest.approx(history["val_accuracy"].iloc[-1])
    assert metrics["log_loss"] == pytest.approx(history["val_loss"].iloc[-1], rel=1e-4)


def test_a_member_predicts_with_the_views_of_its_recipe(long_recipe, dataset, folds, tmp_path):
    recipe = change(long_recipe, {"epochs": 1, "rotation": 15.0, "tta_views": 3})
    train_member(recipe, dataset, folds[0], tmp_path)
    model = keras.saving.load_model(tmp_path / "model.keras")
    for name, images in (("test", dataset.test_images), ("validation", dataset.train_images[folds[0].validation_rows])):
        found = np.load(tmp_path / f"{name}_probabilities.npy")
        assert found == pytest.approx(predict_with_tta(model, images, views_of(recipe)), abs=1e-6)
        assert np.abs(found - predict_with_tta(model, images)).max() > 1e-3


@pytest.mark.parametrize(("rule", "kept"), [("best", 1), ("last", 4)])
def test_the_schedules_end_a_training_that_learns_nothing(rule, kept, dataset, folds, tmp_path):
    """So small a learning rate changes no weight, on any processor: the first epoch stays the best."""
    options = {"epochs": 6, "batch_size": 16, "folds": 2, "schedule": "plateau", "plateau_patience": 1}
    options |= {"stopping_rule": "patience", "stopping_patience": 3, "learning_rate": 1e-30, "dropout": 0.0}
    options |= {"min_learning_rate": 0.0, "plateau_factor": 0.5, "kept_epoch": rule}
    recipe = change(named("dropout_mlp"), options)
    with pytest.raises(Death):
        train_member(recipe, dataset, folds[0], tmp_path, [DieAt(2, "after")])
    train_member(recipe, dataset, folds[0], tmp_path)
    history, metrics = pd.read_csv(tmp_path / "history.csv"), read_json(tmp_path / "metrics.json")
    assert (metrics["epochs"], metrics["best_epoch"]) == (4, kept)
    assert history["learning_rate"].to_numpy() == pytest.approx(np.array([4, 4, 2, 1]) * 2.5e-31, rel=1e-6, abs=0)


def test_resumed_fold_has_the_same_bytes(undisturbed, long_recipe, dataset, folds, tmp_path):
    """Cut in the first or the third epoch, before or after it was saved, by one trainer; resumed by another."""
    moments = [(epoch, moment) for epoch in (0, 2) for moment in ("within", "after")]
    trainer = None
    for epoch, moment in moments:
        if trainer is None or keras.backend.backend() == "jax":  # which takes out a trainer's variables
            trainer = FoldTrainer(long_recipe, len(folds[0].train_rows))
        folder = tmp_path / f"{epoch} {moment}"
        with pytest.raises(Death):
            trainer.train(at(folds[0], folder), dataset, "the run's", [DieAt(epoch, moment)])
        saved = epoch + (moment == "after")  # epochs
        assert (folder / "state.npz").exists() == (saved > 0)
        if saved:
            with np.load(folder / "state.npz") as state:
                facts = json.loads(str(state["facts"]))
            assert (len(facts["history"]), facts["identity"]) == (saved, "the run's")
    trainer = FoldTrainer(long_recipe, len(folds[0].train_rows))
    columns = list(HISTORY[:-1])  # all but the seconds
    for epoch, moment in reversed(moments):
        folder = tmp_path / f"{epoch} {moment}"
        trainer.train(at(folds[0], folder), dataset)
        assert numbers(folder) == numbers(undisturbed), folder
        ours, theirs = (pd.read_csv(each / "history.csv")[columns] for each in (folder, undisturbed))
        pd.testing.assert_frame_equal(ours, theirs)


@pytest.mark.parametrize("schedule", ["one_cycle", "exponential"])
def test_what_the_optimizer_counts_and_averages_resumes_with_the_same_bytes(dataset, folds, tmp_path, schedule):
    options = {"schedule": schedule, "epochs": 4, "batch_size": 8, "folds": 2, "stopping_rule": "fall"}
    recipe = change(named("dropout_mlp"), options | {"stopping_monitor": "loss", "ema_epochs": 0.6})
    trainer = FoldTrainer(recipe, len(folds[0].train_rows))
    trainer.train(at(folds[0], tmp_path / "whole"), dataset)
    with pytest.raises(Death):
        trainer.train(at(folds[0], tmp_path / "cut"), dataset, callbacks=[DieAt(2, "within")])
    train_member(recipe, dataset, folds[0], tmp_path / "cut")
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")
    histories = [pd.read_csv(tmp_path / each / "history.csv").iloc[:, :-1] for each in ("cut", "whole")]
    pd.testing.assert_frame_equal(*histories)
    expected = optimization.learning_rate(recipe, 5)  # 40 rows
    rates = [np.mean([float(expected(5 * epoch + step)) for step in range(5)]) for epoch in range(4)]
    assert histories[0]["learning_rate"].to_numpy() == pytest.approx(rates) and len(set(rates)) == 4


def test_death_while_finishing(undisturbed, long_recipe, dataset, folds, tmp_path, monkeypatch):
    def die_before_the_predictions(row):
        if row is None:
            raise Death

    with pytest.raises(Death):
        train_member(long_recipe, dataset, folds[0], tmp_path, on_epoch=die_before_the_predictions)
    assert not (tmp_path / "metrics.json").exists()
    monkeypatch.setattr(keras.Model, "fit", None)  # it is trained already, stopped early or not
    train_member(long_recipe, dataset, folds[0], tmp_path)
    assert numbers(tmp_path) == numbers(undisturbed)


def test_validation_judges_the_weights_of_its_own_epoch(recipe, dataset, folds, tmp_path):
    judged = []

    class Judge(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            rows = folds[0].validation_rows
            own = self.model.evaluate(dataset.train_images[rows], dataset.train_labels[rows], verbose=0)
            judged.append((logs["val_loss"], own[0]))

    mlp = change(named("dropout_mlp"), {"epochs": 3, "batch_size": 16, "holdout": 0.0, "folds": 2})
    train_member(mlp, dataset, folds[0], tmp_path, [Judge()])
    assert [told for told, _ in judged] == [pytest.approx(own, rel=1e-4) for _, own in judged]


def test_the_average_is_validated_and_kept_and_training_goes_on_without_it(dataset):
    rows = (dataset.train_images, dataset.train_labels)

    def weights(epochs, ema_epochs):
        """The weights validated last, after this many epochs of one step; the recipe counts on 4 steps."""
        options = {"optimizer": "sgd", "learning_rate": 0.1, "dropout": 0.0, "ema_epochs": ema_epochs}
        recipe = change(named("dropout_mlp"), options)
        keras.utils.set_random_seed(0)
        model = networks.build(recipe)
        optimization.compile_model(model, recipe, 4)
        kept = ValidationWeights()
        losses = model.fit(*rows, 80, epochs, validation_data=rows, callbacks=[kept], verbose=0).history
        model.set_weights(kept.weights)
        assert losses["val_loss"][-1] == pytest.approx(model.evaluate(*rows, verbose=0)[0], rel=1e-5)
        return [each.ravel() for each in kept.weights if each.dtype == np.float32]

    plain = [weights(epochs, 0.0) for epochs in (1, 2, 3)]
    for *steps, found in zip(*plain, weights(3, 1.0), strict=True):  # over 4 steps: momentum 3 / 4
        assert found == pytest.approx(np.dot([9 / 16, 3 / 16, 4 / 16], steps), abs=1e-6)
    assert np.abs(np.concatenate(plain[0]) - np.concatenate(plain[2])).max() > 1e-3


def test_a_member_owes_nothing_to_those_before_it(undisturbed, long_recipe, dataset, folds, tmp_path):
    trainer = FoldTrainer(long_recipe, len(folds[0].train_rows))
    for member, name in ((folds[0], "before"), (folds[1], "after")):
        trainer.train(at(member, tmp_path / name), dataset)
    train_member(long_recipe, dataset, folds[1], tmp_path / "alone")
    assert numbers(tmp_path / "before") == numbers(undisturbed)
    assert numbers(tmp_path / "after") == numbers(tmp_path / "alone") != numbers(undisturbed)
    names = [
        re.findall(r'"name": "(\w+)"', zipfile.ZipFile(path / "model.keras").read("config.json").decode())
        for path in (undisturbed, tmp_path / "after", tmp_path / "alone")
    ]
    assert names[0] == names[1] == names[2]


@pytest.mark.parametrize("formats", [("float16", "float32"), ("float32", "float16"), ("float16", "float16")])
def test_a_fold_goes_on_in_another_number_format(dataset, folds, tmp_path, formats, capsys):
    """As a session on another device does; the scale of float16's loss goes on where both have one."""
    options = {"epochs": 3, "batch_size": 16, "folds": 2, "optimizer": "sgd"}
    recipes = [change(named("dropout_mlp"), options | {"precision": each}) for each in formats]
    state, scales = tmp_path / "state.npz", []

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            scales.append(float(getattr(self.model.optimizer, "dynamic_scale", 0)))

    with pytest.raises(Death):
        train_member(recipes[0], dataset, folds[0], tmp_path, [Look(), DieAt(1, "after")])
    with np.load(state) as arrays:
        lowered = {  # as after steps that overflowed
            name: np.float32(64) if name.startswith("scale_") and array == scales[0] else array
            for name, array in arrays.items()
        }
    np.savez(state, **lowered)
    train_member(recipes[1], dataset, folds[0], tmp_path, [Look()])
    assert "damaged" not in capsys.readouterr().out
    assert read_json(tmp_path / "metrics.json")["epochs"] == len(pd.read_csv(tmp_path / "history.csv")) == 3
    assert formats != ("float16", "float16") or scales[0] != scales[1] == 64


def test_a_damaged_state_starts_the_fold_over(undisturbed, long_recipe, dataset, folds, tmp_path, capsys):
    path = tmp_path / "state.npz"
    with pytest.raises(Death):
        train_member(long_recipe, dataset, folds[0], tmp_path, [DieAt(1, "after")])
    data = path.read_bytes()
    for damaged in (data[:-300], data[:5000] + b"\0" * 64 + data[5064:]):
        path.write_bytes(damaged)
        train_member(long_recipe, dataset, folds[0], tmp_path)
        assert f"{path} is damaged" in capsys.readouterr().out
        assert numbers(tmp_path) == numbers(undisturbed)


def test_a_member_learns_from_its_training_rows_alone(dataset, folds, tmp_path):
    options = {"epochs": 1, "batch_size": 8, "folds": 2, "kept_epoch": "last"}
    recipe = change(named("dropout_mlp"), options)

    def predictions_with_other(rows, name):
        """What is predicted after a training in which these rows have another picture and another label."""
        images, labels = dataset.train_images.copy(), dataset.train_labels.copy()
        images[rows], labels[rows] = 255 - images[rows], (labels[rows] + 1) % 10
        other = dataclasses.replace(dataset, train_images=images, train_labels=labels)
        train_member(recipe, other, folds[0], tmp_path / name)
        return (tmp_path / name / "test_probabilities.npy").read_bytes()

    expected = predictions_with_other([], "as it is")
    assert predictions_with_other(folds[0].validation_rows, "validation") == expected
    assert predictions_with_other(folds[0].train_rows[:1], "training") != expected


def test_folds_epochs_and_purposes_draw_their_own(recipe, folds):
    draws = [
        batches.random_numbers(each, member, epoch, purpose).random()
        for each in (recipe, dataclasses.replace(recipe, seed=1))
        for member in folds
        for epoch in range(3)
        for purpose in range(2)
    ]
    assert len(set(draws)) == len(draws)


def test_an_epoch_has_each_row_at_most_once_and_no_validation_row(recipe, dataset, folds):
    rows = dataset.training_data(folds[0].train_rows)
    epochs = ShuffledEpochs(*rows, recipe, folds[0])
    batches = [epochs[number] for number in range(len(epochs))]
    assert [len(labels) for _, labels in batches] == [16, 16] * recipe.epochs  # of 40 rows
    first, second = ([image.tobytes() for images, _ in batches[i : i + 2] for image in images] for i in (0, 2))
    validation = {image.tobytes() for image in dataset.train_images[folds[0].validation_rows]}
    assert len(set(first)) == len(set(second)) == 32 and not validation & {*first, *second}
    assert first != second
    assert ShuffledEpochs(*rows, change(recipe, {"batch_size": 1000}), folds[0]).chunks == 1


def test_a_part_of_an_epoch_follows_from_its_number_alone(recipe, dataset, folds):
    """In whatever order it is asked for, and in a resumed training; the last part may have fewer batches."""
    rows, recipe = dataset.training_data(folds[0].train_rows), change(recipe, {"batch_size": 8})
    single, three, resumed = (ShuffledEpochs(*rows, recipe, folds[0], *each) for each in ((0, 1), (0, 3), (1, 3)))
    batches = [single[number][0] for number in range(10)]
    parts = [np.concatenate(batches[begin:end]) for begin, end in ((0, 3), (3, 5), (5, 8), (8, 10))]
    for number in (3, 0, 2, 1):
        assert (three[number][0] == parts[number]).all()
    assert (resumed[0][0] == parts[2]).all() and (resumed[1][0] == parts[3]).all()
    assert (single.chunks, three.chunks) == (5, 2)


def test_pictures_reach_keras_whole_and_in_order(dataset, monkeypatch):
    monkeypatch.setattr(backend, "prediction_batch_size", lambda: 24)
    for labels in (None, dataset.train_labels):
        batches = Batches(dataset.train_images, labels)
        found = [[keras.ops.convert_to_numpy(part) for part in batch] for batch in stream(batches)]
        assert [len(images) for images, *_ in found] == [24, 24, 24, 8]
        for parts, whole in zip(zip(*found, strict=True), batches.arrays, strict=True):
            assert (np.concatenate(parts) == whole).all() and parts[0].dtype == np.uint8
    if keras.config.backend() == "tensorflow":  # `stream` tells why
        assert stream(batches).options().autotune.enabled is False


def test_rows_are_freed_after_use(small_recipe, dataset, folds, tmp_path):
    """The members of an ensemble come one after the other, and memory must not grow with them."""

    def in_memory():
        gc.collect()
        return sum(type(each) in (Batches, ShuffledEpochs) for each in gc.get_objects())

    before = in_memory()
    train_member(small_recipe, dataset, folds[0], tmp_path)
    assert in_memory() <= before


def test_a_loss_that_is_no_number_is_refused(long_recipe, dataset, folds, tmp_path):
    with pytest.raises(UserError, match=r"the loss is (nan|inf) in epoch"):
        train_member(change(long_recipe, {"learning_rate": 1e30}), dataset, folds[0], tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_no_epoch_is_begun_for_which_there_is_no_time(small_recipe, dataset, folds, tmp_path):
    """If the time is over after the last epoch, the member is finished all the same; if after the first, it is not."""
    for epoch in (small_recipe.epochs, 1):
        budget, folder, is_last = TimeBudget(float("inf")), tmp_path / str(epoch), epoch > 1

        def time_passes(row, epoch=epoch, budget=budget):
            if row and row["epoch"] == epoch:
                budget.deadline = 0

        with nullcontext() if is_last else pytest.raises(OutOfTimeError):
            train_member(small_recipe, dataset, folds[0], folder, [budget], on_epoch=time_passes)
        assert (folder / "metrics.json").exists() == is_last
        assert (folder / "state.npz").exists() != is_last


def test_the_longest_epoch_so_far_decides_whether_there_is_time(monkeypatch):
    """With half as much to spare; before the last epoch there has to be time for the predictions too."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    budget = TimeBudget(1000)
    budget.set_params({"epochs": 9})

    def needs(seconds, begin, *epoch):
        budget.deadline = now[0] + seconds
        begin(*epoch)
        budget.deadline -= 1
        with pytest.raises(OutOfTimeError):
            begin(*epoch)

    for seconds in (10, 4):
        budget.on_epoch_begin(0)
        now[0] += seconds
        budget.on_epoch_end(0)
    needs(15, budget.check)
    needs(30, budget.on_epoch_begin, 8)
    budget.on_train_end()
    now[0] += 2  # the predictions, measured from here on
    needs(15, budget.check)
    needs(18, budget.on_epoch_begin, 8)
