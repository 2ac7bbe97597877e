"""Training on an accelerator: the way back if it fails, and what has to hold on a real one.

A test with `device` runs twice: everywhere on a processor that takes the ways of an accelerator, and, if an accelerator
is found, on that.
"""

import sys

import keras
import numpy as np
import pytest
from conftest import LIGHT, THREADS, at, finish, start, train_member
from test_endurance import resident

from digit_recognizer.files import UserError, read_json
from digit_recognizer.named_recipes import named
from digit_recognizer.recipes import change
from digit_recognizer.training import backend, fold, remote, session
from digit_recognizer.training import cluster as cluster_module
from digit_recognizer.training.batches import LoopModel
from digit_recognizer.training.cluster import ClusterOptions
from digit_recognizer.training.execution import Execution, recorded_execution
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


@pytest.fixture(params=["rehearsal", pytest.param("accelerator", marks=pytest.mark.accelerator)])
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


def test_only_what_this_device_may_have_recorded_is_taken(monkeypatch):
    monkeypatch.setattr(backend, "find_accelerator", lambda: T4)
    execution = Execution("step", 512)
    recorded = {"device": "Tesla T4", "xla_scope": "step", "prediction_batch": 512}
    assert execution.to_json() == recorded and recorded_execution(recorded) == execution
    for other in (None, [1], {}, *(recorded | {name: "another"} for name in recorded)):
        assert recorded_execution(other) is None


def history(folder):
    return np.loadtxt(folder / "history.csv", delimiter=",", skiprows=1)[:, :-1]  # without seconds


@pytest.fixture
def proved(device, small_recipe):
    """A recipe with convolutions; in the rehearsal without, which is compiled in less time."""
    return small_recipe if device == "accelerator" else change(named("dropout_mlp"), FIELDS | {"epochs": 2})


HALF = [pytest.param(*each, marks=pytest.mark.accelerator) for each in (("float16", 0.03), ("bfloat16", 0.1))]


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), *HALF])
def test_the_compiled_epoch_trains_as_single_steps_do(precision, tolerance, proved, dataset, folds, tmp_path):
    recipe = change(proved, {"precision": precision, "schedule": "one_cycle"})
    for scope in ("epoch", "step"):
        trainer = FoldTrainer(recipe, len(folds[0].train_rows), Execution(scope, 256))
        trainer.train(at(folds[0], tmp_path / scope), dataset)
    assert history(tmp_path / "epoch") == pytest.approx(history(tmp_path / "step"), rel=tolerance, abs=tolerance)


def test_a_resumed_training_ends_as_an_undisturbed_one(device, proved, dataset, folds, tmp_path):
    """With the same bytes on a processor; a GPU does not promise that."""

    class Death(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    train_member(proved, dataset, folds[0], tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train_member(proved, dataset, folds[0], tmp_path / "parts", [Death()])
    train_member(proved, dataset, folds[0], tmp_path / "parts")
    whole, parts = (np.load(tmp_path / name / "test_probabilities.npy") for name in ("whole", "parts"))
    assert parts == pytest.approx(whole, abs=0 if device == "rehearsal" else 0.02)


def test_ten_members_leave_memory_level(device, dataset, tmp_path, monkeypatch):
    memory, train_one = [], FoldTrainer.train

    def watched(*arguments, **options):
        metrics = train_one(*arguments, **options)
        memory.append(resident() if device == "rehearsal" else used_by_device())
        return metrics

    monkeypatch.setattr(FoldTrainer, "train", watched)
    fields = FIELDS | {"repeats": 5, "precision": "auto"}
    session.train(tmp_path, dataset, ["dropout_mlp"], fields, TrainingOptions(threads=THREADS))
    assert len(memory) == 10 and memory[-1] - memory[4] < 5 * 4e6, memory  # bytes


def used_by_device():
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
