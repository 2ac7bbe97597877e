"""Training one fold: what it leaves behind, and that an interruption changes none of it."""

import dataclasses
import gc
import json
import re
import time
import weakref
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
from digit_recognizer.training import backend, batches, fold, networks, optimization, predict
from digit_recognizer.training.batches import Batches, ShuffledEpochs, stream
from digit_recognizer.training.callbacks import OutOfTimeError, TimeBudget, ValidationWeights
from digit_recognizer.training.checkpoint import Checkpoint
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
    assert np.load(undisturbed / "test_probabilities.npy").shape == (20, 10)


@pytest.mark.parametrize(("rule", "kept"), [("best", 1), ("last", 3)])
def test_the_recipe_says_which_epoch_is_kept(rule, kept, dataset, folds, tmp_path):
    """So small a learning rate changes no weight, on any processor: the first epoch stays the best."""
    options = {"epochs": 3, "batch_size": 16, "folds": 2, "learning_rate": 1e-30, "kept_epoch": rule}
    train_member(change(named("dropout_mlp"), options), dataset, folds[0], tmp_path)
    history, metrics = pd.read_csv(tmp_path / "history.csv"), read_json(tmp_path / "metrics.json")
    assert (len(history), metrics["best_epoch"]) == (3, kept)


def test_the_last_epochs_network_predicts(long_recipe, dataset, folds, tmp_path):
    recipe = change(long_recipe, {"kept_epoch": "last", "precision": "float32"})
    train_member(recipe, dataset, folds[0], tmp_path)
    history, metrics = pd.read_csv(tmp_path / "history.csv"), read_json(tmp_path / "metrics.json")
    assert metrics["accuracy"] == pytest.approx(history["val_accuracy"].iloc[-1])
    assert metrics["log_loss"] == pytest.approx(history["val_loss"].iloc[-1], rel=1e-4)


def test_the_saved_model_is_the_one_that_predicted(undisturbed, dataset):
    model = keras.saving.load_model(undisturbed / "model.keras")
    assert (predict_with_tta(model, dataset.test_images) == np.load(undisturbed / "test_probabilities.npy")).all()


def test_a_member_predicts_with_the_views_of_its_recipe(long_recipe, dataset, folds, tmp_path):
    recipe = change(long_recipe, {"epochs": 1, "rotation": 15.0, "tta_views": 3})
    train_member(recipe, dataset, folds[0], tmp_path)
    model = keras.saving.load_model(tmp_path / "model.keras")
    for name, images in (("test", dataset.test_images), ("validation", dataset.train_images[folds[0].validation_rows])):
        found = np.load(tmp_path / f"{name}_probabilities.npy")
        assert found == pytest.approx(predict_with_tta(model, images, views_of(recipe)), abs=1e-6)
        assert np.abs(found - predict_with_tta(model, images)).max() > 1e-3


def test_the_schedules_end_a_training_that_learns_nothing(dataset, folds, tmp_path):
    """So small a learning rate changes no weight, on any processor: the first epoch stays the best."""
    options = {"epochs": 6, "batch_size": 16, "folds": 2, "schedule": "plateau", "plateau_patience": 1}
    options |= {"stopping_rule": "patience", "stopping_patience": 3, "learning_rate": 1e-30, "dropout": 0.0}
    recipe = change(named("dropout_mlp"), options | {"min_learning_rate": 0.0, "plateau_factor": 0.5})
    with pytest.raises(Death):
        train_member(recipe, dataset, folds[0], tmp_path, [DieAt(2, "after")])
    train_member(recipe, dataset, folds[0], tmp_path)
    history, metrics = pd.read_csv(tmp_path / "history.csv"), read_json(tmp_path / "metrics.json")
    assert (metrics["epochs"], metrics["best_epoch"]) == (4, 1)
    assert history["learning_rate"].to_numpy() == pytest.approx(np.array([4, 4, 2, 1]) * 2.5e-31, rel=1e-6, abs=0)


def test_a_fold_that_dies_in_the_third_epoch_is_not_at_its_end(undisturbed, long_recipe):
    history = pd.read_csv(undisturbed / "history.csv")
    assert history["learning_rate"].iloc[0] == pytest.approx(long_recipe.learning_rate)
    assert len(history) > 3


def test_resumed_fold_has_the_same_bytes(undisturbed, long_recipe, dataset, folds, tmp_path):
    """Cut in the first or the third epoch, before or after it was saved, by one trainer; resumed by another."""
    moments = [(epoch, moment) for epoch in (0, 2) for moment in ("within", "after")]
    trainer = None
    for epoch, moment in moments:
        if trainer is None or keras.backend.backend() == "jax":  # which takes out a trainer's variables
            trainer = FoldTrainer(long_recipe, len(folds[0].train_rows))
        folder = tmp_path / f"{epoch} {moment}"
        with pytest.raises(Death):
            trainer.train(at(folds[0], folder), dataset, callbacks=[DieAt(epoch, moment)])
        saved = epoch + (moment == "after")  # epochs
        assert (folder / "state.npz").exists() == (saved > 0)
        if saved:
            with np.load(folder / "state.npz") as state:
                assert len(json.loads(str(state["facts"]))["history"]) == saved
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
    def die(*_, **options):
        raise Death

    with monkeypatch.context() as patch:
        patch.setattr(fold, "predict_with_tta", die)
        with pytest.raises(Death):
            train_member(long_recipe, dataset, folds[0], tmp_path)
    assert not (tmp_path / "metrics.json").exists()

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "fit", die)  # it is trained already, stopped early or not
        train_member(long_recipe, dataset, folds[0], tmp_path)
    assert numbers(tmp_path) == numbers(undisturbed)


@pytest.fixture(scope="module")
def state(long_recipe, dataset, folds, tmp_path_factory):
    """The bytes of a state.npz."""
    folder = tmp_path_factory.mktemp("killed")
    with pytest.raises(Death):
        train_member(long_recipe, dataset, folds[0], folder, [DieAt(1, "after")])
    return (folder / "state.npz").read_bytes()


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
    with pytest.raises(Death):
        train_member(recipes[0], dataset, folds[0], tmp_path, [DieAt(1, "after")])
    with np.load(tmp_path / "state.npz") as arrays:
        counts = json.loads(str(arrays["facts"]))["counts"]
    assert (counts["scale"] > 0) == (formats[0] == "float16")
    train_member(recipes[1], dataset, folds[0], tmp_path)
    assert "damaged" not in capsys.readouterr().out
    assert read_json(tmp_path / "metrics.json")["epochs"] == len(pd.read_csv(tmp_path / "history.csv")) == 3


def test_the_scale_of_float16s_loss_goes_on(dataset, folds, tmp_path):
    options = {"epochs": 2, "batch_size": 16, "folds": 2, "precision": "float16"}
    recipe, found = change(named("dropout_mlp"), options), []

    class Look(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            found.append(float(self.model.optimizer.dynamic_scale))

    with pytest.raises(Death):
        train_member(recipe, dataset, folds[0], tmp_path, [Look(), DieAt(0, "after")])
    with np.load(tmp_path / "state.npz") as file:
        arrays = dict(file)
    (name,) = [name for name in arrays if name.startswith("scale_") and arrays[name] == found[0]]
    arrays[name] = np.float32(64)  # as after steps that overflowed
    np.savez(tmp_path / "state.npz", **arrays)
    train_member(recipe, dataset, folds[0], tmp_path, [Look()])
    assert found[0] != 64 and found[1] == 64


@pytest.mark.parametrize("damage", [lambda data: data[:-300], lambda data: data[:5000] + b"\0" * 64 + data[5064:]])
def test_a_damaged_state_starts_the_fold_over(
    undisturbed, long_recipe, dataset, folds, tmp_path, state, damage, capsys
):
    (tmp_path / "state.npz").write_bytes(damage(state))
    train_member(long_recipe, dataset, folds[0], tmp_path)
    assert re.search(r"state.npz is damaged \(.*\): this fold starts over", capsys.readouterr().out)
    assert numbers(tmp_path) == numbers(undisturbed)


def training_rows(dataset, member):
    """The images and the labels of the member's training rows."""
    return dataset.train_images[member.train_rows], dataset.train_labels[member.train_rows]


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
    rows = training_rows(dataset, folds[0])
    epochs = ShuffledEpochs(*rows, recipe, folds[0])
    batches = [epochs[number] for number in range(len(epochs))]
    assert [len(labels) for _, labels in batches] == [16, 16] * recipe.epochs  # of 40 rows
    first, second = ([image.tobytes() for images, _ in batches[i : i + 2] for image in images] for i in (0, 2))
    validation = {image.tobytes() for image in dataset.train_images[folds[0].validation_rows]}
    assert len(set(first)) == len(set(second)) == 32 and not validation & {*first, *second}
    assert first != second
    whole = ShuffledEpochs(*rows, recipe, folds[0], 0, batches=2)
    assert len(whole) == recipe.epochs
    assert [image.tobytes() for image in whole[0][0]] == first


def test_the_last_part_of_an_epoch_may_have_fewer_batches(recipe, dataset, folds):
    rows, recipe = training_rows(dataset, folds[0]), change(recipe, {"batch_size": 8})
    single, three = (ShuffledEpochs(*rows, recipe, folds[0], 0, batches) for batches in (1, 3))
    assert (single.chunks, three.chunks) == (5, 2)
    assert [len(three[number][1]) for number in range(4)] == [24, 16, 24, 16]
    for number in (1, 3):  # the second part of two epochs
        begin = 5 * (number // 2) + 3
        expected = np.concatenate([single[begin][0], single[begin + 1][0]])
        assert (three[number][0] == expected).all()


def test_a_batch_follows_from_its_number_alone(recipe, dataset, folds):
    rows = training_rows(dataset, folds[0])
    whole, resumed = (ShuffledEpochs(*rows, recipe, folds[0], done) for done in (0, 1))
    for number in (3, 0, 2, 1):  # in whatever order they are asked for
        assert (whole[number][0] == ShuffledEpochs(*rows, recipe, folds[0])[number][0]).all()
    assert (resumed[0][0] == whole[2][0]).all() and (resumed[1][1] == whole[3][1]).all()


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


def test_rows_are_freed_after_use(small_recipe, dataset, folds, monkeypatch, tmp_path):
    """The members of an ensemble come one after the other, and memory must not grow with them."""
    made = []

    def watched(kind):
        def make(*arguments, **options):
            batches = kind(*arguments, **options)
            made.append(weakref.ref(batches))
            return batches

        return make

    for module in (fold, predict):
        monkeypatch.setattr(module, "Batches", watched(Batches))
    monkeypatch.setattr(fold, "ShuffledEpochs", watched(ShuffledEpochs))
    train_member(small_recipe, dataset, folds[0], tmp_path)
    gc.collect()
    assert len(made) == 4  # of training, of validation, and of the predictions for both
    assert not any(batches() for batches in made)


def test_a_batch_larger_than_the_fold(recipe, dataset, folds):
    rows = training_rows(dataset, folds[0])
    assert ShuffledEpochs(*rows, change(recipe, {"batch_size": 1000}), folds[0], 0).chunks == 1


@pytest.mark.parametrize(("rule", "kept"), [("best", 2), ("last", 4)])
def test_the_kept_epoch_is_the_earliest_of_the_best_or_the_last(rule, kept, tmp_path):
    checkpoint = Checkpoint(tmp_path / "state.npz", "", rule, [], ValidationWeights())
    checkpoint.history = [{"epoch": 1 + i, "val_accuracy": value} for i, value in enumerate([0.5, 0.9, 0.7, 0.9])]
    assert checkpoint.kept_epoch == kept


def test_a_loss_that_is_no_number_is_refused(long_recipe, dataset, folds, tmp_path):
    with pytest.raises(UserError, match=r"the loss is (nan|inf) in epoch"):
        train_member(change(long_recipe, {"learning_rate": 1e30}), dataset, folds[0], tmp_path)
    assert not (tmp_path / "metrics.json").exists()


def test_no_epoch_is_begun_for_which_there_is_no_time(small_recipe, dataset, folds, tmp_path):
    """If the time is over in the last epoch, the member is finished all the same; if in the first, it is not."""
    for epoch in (small_recipe.epochs - 1, 0):
        budget = TimeBudget(float("inf"))

        class TimePasses(keras.callbacks.Callback):
            def on_epoch_begin(self, now, logs=None, epoch=epoch, budget=budget):
                budget.deadline = 0 if now == epoch else budget.deadline

        folder = tmp_path / str(epoch)
        with nullcontext() if epoch else pytest.raises(OutOfTimeError):
            train_member(small_recipe, dataset, folds[0], folder, [budget, TimePasses()])
        assert (folder / "metrics.json").exists() == bool(epoch)
        assert (folder / "state.npz").exists() != bool(epoch)


def test_the_longest_epoch_so_far_decides_whether_there_is_time(monkeypatch):
    """After epochs of 10 and 4 s, there have to be 15 s for the next one, and before the last as much to predict."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    budget = TimeBudget(1000)
    budget.set_params({"epochs": 9})
    for seconds in (10, 4):
        budget.on_epoch_begin(0)
        now[0] += seconds
        budget.on_epoch_end(0)
    budget.deadline = 14 + 15
    budget.check()
    budget.deadline -= 1
    with pytest.raises(OutOfTimeError):
        budget.check()
    budget.deadline = 14 + 30
    budget.on_epoch_begin(8)
    budget.on_train_end()
    now[0] += 2  # the predictions, measured from here on
    budget.check()
    budget.deadline = 16 + 18
    budget.on_epoch_begin(8)
    budget.deadline -= 1
    with pytest.raises(OutOfTimeError):
        budget.on_epoch_begin(8)


def test_state_and_metrics_record_the_identity(small_recipe, dataset, folds, tmp_path):
    with pytest.raises(Death):
        train_member(small_recipe, dataset, folds[0], tmp_path, [DieAt(0, "after")], identity="own")
    with np.load(tmp_path / "state.npz") as state:
        assert json.loads(str(state["facts"]))["identity"] == "own"
    train_member(small_recipe, dataset, folds[0], tmp_path, identity="own")
    assert read_json(tmp_path / "metrics.json")["identity"] == "own"
