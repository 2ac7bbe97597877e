"""Training on an accelerator: the way back if it fails, and what has to hold on a real one.

A test with `device` runs twice: everywhere on a processor that takes the ways of an accelerator, and, if an accelerator
is found, on that.
"""

import os
import sys
from pathlib import Path

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import LIGHT, THREADS, at, finish, start, tell
from test_training import Death, DieAt

from digit_recognizer.files import UserError, read_json, write_json
from digit_recognizer.named_recipes import named
from digit_recognizer.recipes import change
from digit_recognizer.training import backend, fold, remote, session
from digit_recognizer.training import cluster as cluster_module
from digit_recognizer.training.batches import LoopModel
from digit_recognizer.training.cluster import ClusterOptions
from digit_recognizer.training.fold import FoldTrainer
from digit_recognizer.training.session import TrainingOptions

FIELDS = {"folds": 2, "epochs": 1, "batch_size": 16, "precision": "float32"}
T4 = {"device_name": "Tesla T4", "compute_capability": (7, 5)}
LAST = "none" if keras.backend.backend() == "tensorflow" else "step"
COMPILER = "no kernel is registered for this operation"
MEMORY = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 154140672 bytes"


def pretend(patch):
    """Makes the backend take the ways of an accelerator on a processor."""
    patch.setattr(backend, "find_accelerator", lambda: T4)
    patch.setattr(backend, "prediction_batch_size", lambda: 1024)


DEVICES = ["rehearsal", pytest.param("accelerator", marks=pytest.mark.accelerator)]


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch):
    if request.param == "rehearsal":
        pretend(monkeypatch)
    return request.param


def train(dataset, folder, **options):
    return session.train(folder, dataset, ["dropout_mlp"], FIELDS, TrainingOptions(threads=THREADS, **options))


def fail(patch, place):
    """Lets a part of a training fail as it may on an accelerator."""
    fit, evaluate, predict = keras.Model.fit, keras.Model.evaluate, fold.predict_with_tta

    def fit_or_fail(model, *arguments, **options):
        if (place == "epoch" and isinstance(model, LoopModel)) or (place == "step" and model.jit_compile):
            raise NotImplementedError(COMPILER)
        return fit(model, *arguments, **options)

    def evaluate_or_fail(model, x, **options):
        if place == "validation" and getattr(x, "batches", x).rows > 512:
            raise RuntimeError(MEMORY)
        return evaluate(model, x, **options)

    def predict_or_fail(*arguments, batch, **options):
        if place == "prediction" and batch > 256:
            raise RuntimeError(MEMORY)
        return predict(*arguments, batch=batch, **options)

    patch.setattr(keras.Model, "fit", fit_or_fail)
    patch.setattr(keras.Model, "evaluate", evaluate_or_fail)
    patch.setattr(fold, "predict_with_tta", predict_or_fail)


@pytest.mark.parametrize(
    ("place", "scope", "rows", "reasons"),
    [
        ("epoch", "step", 1024, [COMPILER]),
        ("step", LAST, 1024, [COMPILER] * 2),
        ("validation", "epoch", 512, [MEMORY]),
        ("prediction", "epoch", 256, [MEMORY] * 2),
    ],
)
def test_after_a_failure_the_member_starts_again_in_a_simpler_way(
    place, scope, rows, reasons, dataset, tmp_path, monkeypatch, capsys
):
    """One line for each failure; the other member begins with what worked."""
    if place == "step" and LAST == "step":
        pytest.skip("JAX always compiles")
    pretend(monkeypatch)
    fail(monkeypatch, place)
    assert not train(dataset, tmp_path)
    lines = [line for line in capsys.readouterr().out.splitlines() if "Tesla T4, GPU 0 fails with" in line]
    assert len(lines) == len(reasons) and all(line.startswith("fold_00: ") for line in lines)
    assert all(reason in line for reason, line in zip(reasons, lines, strict=True))
    fallback = {"device": "Tesla T4", "xla_scope": scope, "prediction_batch": rows}
    assert read_json(tmp_path / "recipe.json")["fallback"] == fallback


def test_on_ray_the_other_members_begin_with_what_worked(dataset, tmp_path, monkeypatch, capsys):
    pytest.importorskip("ray").cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def train_on_card(*arguments):
        patch = pytest.MonkeyPatch()
        pretend(patch)
        fail(patch, "epoch")
        remote._trainer = None  # as in another worker
        return remote.train_member(*arguments)

    monkeypatch.setattr(cluster_module, "train_member", train_on_card)
    monkeypatch.setattr(backend, "count_gpus", lambda: 1)
    assert not train(dataset, tmp_path, cluster=ClusterOptions(workers=1, gpus_per_fold=1))
    assert read_json(tmp_path / "recipe.json")["fallback"]["xla_scope"] == "step"
    assert {read_json(path)["device"] for path in tmp_path.glob("*/metrics.json")} == {"Tesla T4, GPU 0"}
    assert capsys.readouterr().out.count("Tesla T4, GPU 0 fails with") == 1


@pytest.mark.parametrize(
    ("accelerator", "error", "tries"),
    [
        (None, NotImplementedError(COMPILER), 1),  # a processor has no simpler way
        (T4, UserError("the loss is nan"), 1),  # not the device's fault
        (T4, ValueError("a bug"), 3 if LAST == "none" else 2),
    ],
)
def test_a_failure_that_no_simpler_way_helps_stays_one(accelerator, error, tries, dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "find_accelerator", lambda: accelerator)
    calls = []

    def fit(model, *arguments, **options):
        calls.append(model)
        raise error

    monkeypatch.setattr(keras.Model, "fit", fit)
    with pytest.raises(type(error), match=str(error)):
        train(dataset, tmp_path)
    assert len(calls) == tries


@pytest.mark.parametrize(("device", "scopes"), [("Tesla T4", ["step"]), ("Tesla P100", ["epoch"])])
def test_a_run_continues_in_the_way_that_this_device_recorded(device, scopes, dataset, tmp_path, monkeypatch):
    pretend(monkeypatch)
    train(dataset, tmp_path, fold_indices=[0])
    path = tmp_path / "recipe.json"
    entry = {"device": device, "xla_scope": "step", "prediction_batch": 512}
    write_json(path, read_json(path) | {"fallback": entry})
    made, make = [], fold.make_learner
    monkeypatch.setattr(fold, "make_learner", lambda *arguments: made.append(arguments[2]) or make(*arguments))
    assert not train(dataset, tmp_path) and made == scopes


def train_by(scope, recipe, dataset, member, *callbacks):
    """Trains a member with this part of a training compiled, and returns its predictions of the test rows."""
    trainer = FoldTrainer(recipe, len(member.train_rows), scope, 256)
    trainer.train(member, dataset, callbacks=callbacks)
    return np.load(member.folder / "test_probabilities.npy")


HALF = [("float16", 0.03), pytest.param("bfloat16", 0.1, marks=pytest.mark.accelerator)]


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), *HALF])
def test_the_compiled_epoch_trains_as_single_steps_do(
    precision, tolerance, device, small_recipe, dataset, folds, tmp_path
):
    recipe = change(small_recipe, {"precision": precision, "schedule": "one_cycle"})
    if (device, precision) == ("rehearsal", "float16"):  # a processor convolves slowly in it
        recipe = change(named("dropout_mlp"), FIELDS | {"precision": precision, "schedule": "one_cycle", "epochs": 2})
    found = {}
    for scope in ("epoch", "step"):
        probabilities = train_by(scope, recipe, dataset, at(folds[0], tmp_path / scope))
        found[scope] = probabilities, pd.read_csv(tmp_path / scope / "history.csv").drop(columns="seconds").to_numpy()
    for epoch, step in zip(found["epoch"], found["step"], strict=True):
        assert epoch == pytest.approx(step, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("scope", ["step", "epoch"])
def test_a_resumed_training_ends_as_an_undisturbed_one(device, scope, dataset, folds, tmp_path):
    """With the same bytes on a processor; a GPU does not promise that."""
    recipe = change(named("dropout_mlp"), FIELDS | {"epochs": 2, "rotation": 10.0})
    whole, cut = (at(folds[0], tmp_path / name) for name in ("whole", "cut"))
    expected = train_by(scope, recipe, dataset, whole)
    with pytest.raises(Death):
        train_by(scope, recipe, dataset, cut, DieAt(0, "after"))
    assert train_by(scope, recipe, dataset, cut) == pytest.approx(expected, abs=0 if device == "rehearsal" else 0.02)


@pytest.mark.parametrize("device", ["processor", *DEVICES], indirect=True)
def test_memory_and_file_descriptors_stay_level(device, dataset, campaign, tmp_path, monkeypatch):
    """50 members in a campaign, 12 in the suite; the first ones fill caches."""
    folds, repeats, warm = (5, 10, 10) if campaign else (4, 3, 4)
    memory, descriptors, train_one = [], [], FoldTrainer.train

    def watched(*arguments, **options):
        metrics = train_one(*arguments, **options)
        memory.append(memory_in_use(device))
        descriptors.append(len([*Path("/proc/self/fd").iterdir()]))
        return metrics

    monkeypatch.setattr(FoldTrainer, "train", watched)
    fields = FIELDS | {"folds": folds, "repeats": repeats, "precision": "auto"}
    assert not session.train(tmp_path, dataset, ["dropout_mlp"], fields, TrainingOptions(threads=THREADS))
    assert len(memory) == folds * repeats
    growth = (memory[-1] - memory[warm]) / 1e6 / (len(memory) - warm)
    tell(f"{len(memory)} members: {growth:.2f} MB more for each, {descriptors[warm]} to {descriptors[-1]} descriptors")
    assert growth < (2 if device == "processor" else 4), memory  # MB a member
    assert max(descriptors[warm:]) == descriptors[warm], descriptors


def memory_in_use(device) -> int:
    """Of this process, or on the accelerator, in bytes."""
    if device != "accelerator":
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if LAST == "none":
        import tensorflow as tf

        return tf.config.experimental.get_memory_info("GPU:0")["current"]
    import jax

    return jax.devices()[0].memory_stats()["bytes_in_use"]


@pytest.mark.accelerator
def test_two_workers_on_one_card(csvs, tmp_path):
    """In processes of their own: this one may have taken the card's memory."""
    pytest.importorskip("ray")
    line = ("train", "--input", csvs, *LIGHT, "--workers", "2", "--gpus-per-fold", "0.5", "--output", tmp_path / "run")
    outcome = finish(start(*line, TF_FORCE_GPU_ALLOW_GROWTH="true"))
    assert (outcome.code, outcome.out.count("fails with")) == (0, 0), outcome
