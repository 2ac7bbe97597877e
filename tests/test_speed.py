"""The fast ways to train compute what plain Keras in float32 computes; so do the backend's choices."""

import ctypes
import functools
import importlib
import itertools
import os
import platform
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import at, train_member
from keras import ops

from digit_recognizer import files
from digit_recognizer.named_recipes import named
from digit_recognizer.recipes import change
from digit_recognizer.training import backend, fold, networks, processor
from digit_recognizer.training.batches import batches_per_call
from digit_recognizer.training.fold import FoldTrainer, make_learner
from digit_recognizer.training.layers import (
    FusedBatchNormalization,
    PhiloxDropout,
    QuickConv2D,
    compiled_gradient,
    multiplied_gradient,
)
from digit_recognizer.training.networks import KERAS, TENSORFLOW, XLA
from digit_recognizer.training.optimization import QuickAdam
from digit_recognizer.training.predict import predict_with_tta

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
needs_tensorflow = pytest.mark.skipif(not ON_TENSORFLOW, reason="of TensorFlow alone")


def plain(name, **options):
    """A recipe without randomness in training."""
    drawn = ("rotation", "zoom", "shift", "shear", "elastic", "dropout", "conv_dropout")
    return change(named(name), dict.fromkeys(drawn, 0.0) | options)


def steps(recipe, layer_set, precision, by_xla, weights, batches):
    """Of each batch: the outputs, and by how much a step of plain gradient descent of rate 1 lowers each weight."""
    model = networks.build(recipe, layer_set, precision)
    optimizer = keras.optimizers.SGD(1.0)
    if precision == "float16":  # with the usual scale the first steps overflow and are left out
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=256)
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=by_xla)
    found = []
    for images, labels in batches:
        model.set_weights(weights)
        outputs = ops.convert_to_numpy(model(images, training=False))
        model.train_on_batch(images, labels)
        moves = [np.ravel(before - after) for before, after in zip(weights, model.get_weights(), strict=True)]
        found.append((outputs, moves))
    return found


@pytest.fixture(scope="module", params=["bn_cnn", "fast", "residual"])
def published(request):
    """The recipe, its first weights, which of them are trained, three batches, and plain Keras' steps on them."""
    narrow = {"filters": (16, 24, 32)} if request.param == "residual" else {}
    recipe = plain(request.param, **narrow)
    keras.utils.set_random_seed(3)
    model = networks.build(recipe)
    weights, trained = model.get_weights(), [each.trainable for each in model.weights]
    # Noise, and several batches: where two of the four pixels that are pooled are as high, rounding picks the
    # one that learns. In the even parts of a digit that is so everywhere, in noise now and then.
    generator = np.random.default_rng(0)
    batches = [
        (generator.integers(0, 256, (20, 28, 28), dtype=np.uint8), np.arange(20, dtype=np.uint8) % 10) for _ in range(3)
    ]
    return recipe, weights, trained, batches, steps(recipe, KERAS, "float32", False, weights, batches)


def computes(precision):
    """Whether TensorFlow computes in it here: with a limit on its instructions, oneDNN has no half precision."""
    return precision == "float32" or not os.environ.get("ONEDNN_MAX_CPU_ISA")


@pytest.mark.parametrize(
    ("layer_set", "by_xla", "precision", "has_avx512"),
    [
        pytest.param(XLA, True, "float32", False, id="compiled"),
        pytest.param(TENSORFLOW, False, "float32", True, id="float32-avx512"),
        *(
            pytest.param(TENSORFLOW, False, precision, False, id=precision)
            for precision in ("float32", "bfloat16", "float16")
        ),
    ],
)
def test_one_step_is_that_of_plain_keras(published, layer_set, by_xla, precision, has_avx512, monkeypatch):
    monkeypatch.setattr(processor, "has_avx512", lambda: has_avx512)
    recipe, weights, trained, batches, expected = published
    if not computes(precision):
        pytest.skip(f"{precision} is refused here")
    found = steps(recipe, layer_set, precision, by_xla, weights, batches)
    exact = precision == "float32"
    # bfloat16 has eight bits, 0.4 % in each number, and rounding picks among the pixels that are pooled: that
    # turns a gradient, and leaves its size along the right one
    apart, along, of_statistics = {
        "float32": (0.02, 0.005, 5e-5),
        "bfloat16": (0.4, 0.1, 0.03),
        "float16": (0.2, 0.1, 0.005),
    }[precision]
    for (mine, _), (theirs, _) in zip(found, expected, strict=True):
        assert np.linalg.norm(mine - theirs) < (1e-5 if exact else of_statistics) * np.linalg.norm(theirs)
    plain_steps = functools.cache(lambda: steps(recipe, KERAS, precision, False, weights, batches))
    whole = np.linalg.norm(np.concatenate(list(itertools.compress(expected[0][1], trained))))
    for number, is_trained in enumerate(trained):
        pairs = [(mine[number], theirs[number]) for (_, mine), (_, theirs) in zip(found, expected, strict=True)]
        size = min(np.linalg.norm(theirs) for _, theirs in pairs)
        if is_trained and size < 1e-5 * whole:  # of a bias before a normalisation, which takes it out
            # what rounding leaves of it in half precision depends on the processor: as much as in plain Keras
            own = [0.0] * 3 if exact else [np.linalg.norm(move[number]) for _, move in plain_steps()]
            for (mine, _), theirs in zip(pairs, own, strict=True):
                assert np.linalg.norm(mine) < max(0.01 * whole, 1.5 * theirs)
            continue
        errors = [np.linalg.norm(mine - theirs) / np.linalg.norm(theirs) for mine, theirs in pairs]
        mine, theirs = map(np.concatenate, zip(*pairs, strict=True))
        assert max(errors) < (apart if is_trained else of_statistics)
        assert mine @ theirs / (theirs @ theirs) == pytest.approx(1, abs=along)
        assert not exact or min(errors) < 5e-5  # of a batch in which rounding had nothing to pick


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_what_stays_float32_in_half_precision(precision):
    model = networks.build(named("bn_cnn"), TENSORFLOW, precision)
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model.output.dtype == "float32"
    computed = {type(layer).__name__: layer.compute_dtype for layer in model.layers}
    assert computed["RandomDistortion"] == computed["Rescaling"] == "float32"
    assert computed["QuickConv2D"] == precision
    assert networks.build(named("bn_cnn")).layers[-2].compute_dtype == "float32"  # the next is its own


def gradients(layer, pictures, slopes, training=False):
    """The gradients of the layer's pictures and of its weights that are trained, by name."""
    tf = importlib.import_module("tensorflow")
    with tf.GradientTape() as tape:
        tape.watch(pictures)
        outputs = layer(pictures, training=training)
    weights = {weight.name: weight.value for weight in layer.trainable_weights}
    found = tape.gradient(outputs, {"pictures": pictures} | weights, slopes)
    return {name: gradient.numpy() for name, gradient in found.items()}


@needs_tensorflow
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("height", "width", "channels"), [(7, 5, 6), (28, 28, 1)])
def test_gradients_of_a_convolution_are_keras_own(padding, height, width, channels):
    generator = np.random.default_rng(0)
    pictures = ops.convert_to_tensor(generator.normal(size=(8, height, width, channels)).astype("float32"))
    ours, keras_own = (kind(4, 3, padding=padding) for kind in (QuickConv2D, keras.layers.Conv2D))
    slopes = ops.convert_to_tensor(generator.normal(size=keras_own(pictures).shape).astype("float32"))
    ours.build(pictures.shape)
    ours.set_weights(keras_own.get_weights())
    found, expected = (gradients(layer, pictures, slopes) for layer in (ours, keras_own))
    for name, gradient in expected.items():
        assert found[name] == pytest.approx(gradient, abs=1e-3)
    for of_filters in (multiplied_gradient, compiled_gradient):
        by_hand = of_filters(pictures, slopes, (3, 3, channels, 4), padding.upper())
        assert by_hand.numpy() == pytest.approx(expected["kernel"], abs=1e-3)


@needs_tensorflow
def test_fused_normalisation_is_keras_own():
    generator = np.random.default_rng(0)
    pictures = ops.convert_to_tensor(generator.normal(3, 2, size=(8, 6, 6, 5)).astype("float32"))
    slopes = ops.convert_to_tensor(generator.normal(size=(8, 6, 6, 5)).astype("float32"))
    ours, keras_own = FusedBatchNormalization(momentum=0.9), keras.layers.BatchNormalization(momentum=0.9)
    for training_ in (True, False):
        found, expected = (ops.convert_to_numpy(x(pictures, training=training_)) for x in (ours, keras_own))
        assert found == pytest.approx(expected, abs=1e-5)
    for mine, theirs in zip(ours.get_weights(), keras_own.get_weights(), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)
    found, expected = (gradients(x, pictures, slopes, training=True) for x in (ours, keras_own))
    for name, gradient in expected.items():
        assert found[name] == pytest.approx(gradient, abs=1e-4)


@needs_tensorflow
def test_dropout_by_philox_is_keras_own():
    units = np.ones((64, 200), "float32")
    ours, keras_own = PhiloxDropout(0.25, seed=7), keras.layers.Dropout(0.25, seed=7)
    for training_ in (True, True, False):  # each time with the next seed
        found, expected = (ops.convert_to_numpy(x(units, training=training_)) for x in (ours, keras_own))
        assert (found == expected).all()
    by_xla = importlib.import_module("tensorflow").function(jit_compile=True)
    compiled = by_xla(lambda: ours(units, training=True))().numpy()
    assert (compiled == 0).mean() == pytest.approx(0.25, abs=0.02)
    assert set(np.unique(compiled)) == {np.float32(0), np.float32(1 / 0.75)}


def test_every_pooling_network_can_pool_before_its_activation(dataset):
    for activation in ("sigmoid", "tanh", "relu", "leaky_relu", "elu"):
        recipe = plain("bn_cnn", activation=activation)
        ours, published = networks.build(recipe, TENSORFLOW), networks.build(recipe)
        ours.set_weights(published.get_weights())
        images = dataset.test_images
        expected = published.predict(images, verbose=0)
        assert ours.predict(images, verbose=0) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("part", ["step", "epoch", pytest.param("none", marks=needs_tensorflow)])
def test_a_training_resumes_with_the_same_bytes(part, dataset, folds, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "xla_scope", lambda *_: part)
    recipe = change(named("dropout_mlp"), {"epochs": 2, "batch_size": 16, "folds": 2, "rotation": 10.0})
    trainer = FoldTrainer(recipe, len(folds[0].train_rows))
    trainer.train(at(folds[0], tmp_path / "whole"), dataset)

    class Death(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trainer.train(at(folds[0], tmp_path / "parts"), dataset, callbacks=[Death()])
    train_member(recipe, dataset, folds[0], tmp_path / "parts")
    for name in ("validation_probabilities.npy", "test_probabilities.npy"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@needs_tensorflow
def test_batches_in_a_loop_are_the_same_training(small_recipe, dataset, folds, tmp_path, monkeypatch):
    recipe = change(small_recipe, {"batch_size": 8, "precision": "float32"})
    monkeypatch.setattr(backend, "xla_scope", lambda *_: "none")
    found = []
    for count in (1, 3):  # of the 5 of an epoch
        monkeypatch.setattr(fold, "batches_per_call", lambda *_, count=count: count)
        train_member(recipe, dataset, folds[0], tmp_path / str(count))
        found.append((tmp_path / str(count) / "test_probabilities.npy").read_bytes())
    assert found[0] == found[1]


def test_batches_per_call():
    assert [batches_per_call(scope, 100) for scope in ("epoch", "step", "none")] == [100, 1, 32]
    assert batches_per_call("none", 5) == 5


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("float16", 0.02)])
def test_an_epoch_in_one_call_is_the_same_training(
    precision, tolerance, small_recipe, dataset, folds, tmp_path, monkeypatch
):
    # the scaling of float16's loss is the optimizer's, whatever the network
    recipe = small_recipe if precision == "float32" else change(named("dropout_mlp"), {"batch_size": 16})
    recipe = change(recipe, {"precision": precision, "schedule": "one_cycle", "epochs": 2, "folds": 2})
    found = {}
    for part in ("step", "epoch"):
        monkeypatch.setattr(backend, "xla_scope", lambda *_, part=part: part)
        train_member(recipe, dataset, folds[0], tmp_path / part)
        table = np.loadtxt(tmp_path / part / "history.csv", delimiter=",", skiprows=1)[:, :-1]  # without seconds
        found[part] = table, np.load(tmp_path / part / "test_probabilities.npy")
    for one, other in zip(found["epoch"], found["step"], strict=True):
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("scope", ["none", "step", "epoch"])
def test_float16_trains_with_a_scaled_loss(scope):
    """Whatever the way: small gradients would be 0, and steps that overflow would be taken."""
    scaled = make_learner(change(named("fast"), {"precision": "float16"}), 1280, scope, "float16")
    assert isinstance(scaled.optimizer, keras.optimizers.LossScaleOptimizer)
    assert type(scaled.optimizer.inner_optimizer).__name__ == "Muon"
    for dtype in ("bfloat16", "float32"):
        learner = make_learner(named("fast"), 1280, scope, dtype)
        assert type(learner.optimizer).__name__ == "Muon"


@pytest.mark.parametrize("name", ["fast", "dropout_mlp"])
def test_compiled_prediction_is_that_of_the_saved_network(name, dataset, monkeypatch):
    monkeypatch.setattr(backend, "xla_scope", lambda *_: "step")
    recipe, images = named(name), dataset.test_images
    network = FoldTrainer(recipe, 100).network
    assert network.jit_compile
    for seed in (0, 1):  # of members that share it
        keras.utils.set_random_seed(seed)
        saved = networks.build(recipe)
        network.set_weights(saved.get_weights())
        assert predict_with_tta(network, images) == pytest.approx(predict_with_tta(saved, images), abs=1e-6)


@pytest.mark.parametrize(
    ("flags", "isa", "expected"),
    [
        ("fma avx2", None, "float32"),
        ("avx512f avx512_bf16", None, "bfloat16"),
        ("avx512f amx_bf16 amx_tile", "", "bfloat16"),
        ("avx512f amx_bf16 amx_tile", "AVX512_CORE_AMX", "bfloat16"),
        ("avx512f amx_bf16 amx_tile", "AVX512_CORE", "float32"),
        ("avx512f amx_bf16 amx_tile", "avx2", "float32"),
    ],
)
@needs_tensorflow
def test_precision_follows_the_processors_instructions(monkeypatch, flags, isa, expected):
    monkeypatch.setattr(processor, "cpuinfo", lambda name: set(flags.split()))
    monkeypatch.setattr(backend, "find_accelerator", lambda: None)
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if isa is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    assert backend.compute_dtype("auto") == expected
    assert backend.compute_dtype("float16") == "float16"


@pytest.mark.parametrize(
    ("accelerator", "expected"),
    [
        ({"compute_capability": (7, 5)}, "float16"),  # T4
        ({"compute_capability": (9, 0)}, "bfloat16"),
        ({"device_name": "TPU v5 lite"}, "bfloat16"),
    ],
)
def test_precision_follows_the_accelerator(monkeypatch, accelerator, expected):
    monkeypatch.setattr(backend, "find_accelerator", lambda: accelerator)
    assert backend.compute_dtype("auto") == expected
    assert backend.xla_scope(expected, 1) == "epoch"


@needs_tensorflow
def test_xla_compiles_where_it_pays(monkeypatch):
    monkeypatch.setattr(backend, "find_accelerator", lambda: None)
    pays = "none" if sys.platform == "darwin" else "epoch"
    # TensorFlow's own convolutions are faster; a step of dense layers alone is short: there the epoch is one call
    assert backend.xla_scope("float32", 10**6) == "none"
    assert backend.xla_scope("float32", 10**6, convolutions=False) == pays
    assert backend.xla_scope("float32", 1000, convolutions=False) == "none"
    assert backend.xla_scope("bfloat16", 10**6, convolutions=False) == "none"
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert [backend.xla_scope("float32", 1, convolutions=each) for each in (True, False)] == ["step", "epoch"]


@needs_tensorflow
def test_kernels_follow_the_processors_instructions(monkeypatch):
    flags, pictures = {"avx2", "avx512f"}, ops.zeros((1, 28, 28, 2))
    monkeypatch.setattr(processor, "cpuinfo", lambda name: flags)
    convolution = QuickConv2D(4, 3)
    for isa, expected in (("AVX512_CORE", True), ("AVX2", False), ("", True)):
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
        assert processor.has_avx512() == expected
        assert convolution.quick_gradient(pictures) is (None if expected else compiled_gradient)
    flags.remove("avx512f")
    assert convolution.quick_gradient(pictures) is compiled_gradient
    assert convolution.quick_gradient(pictures[..., :1]) is None
    assert convolution.quick_gradient(ops.cast(pictures, "bfloat16")) is None
    assert convolution.quick_gradient(ops.zeros((1, 7, 7, 1), "bfloat16")) is multiplied_gradient
    monkeypatch.setattr(sys, "platform", "darwin")  # without XLA
    assert convolution.quick_gradient(pictures) is None


@needs_tensorflow
def test_quick_adam_is_keras_own():
    generator, first = np.random.default_rng(0), np.ones((30, 20), "float32")
    ours, keras_own = keras.Variable(first), keras.Variable(first)
    quick, plain_adam = QuickAdam(0.01), keras.optimizers.Adam(0.01)
    for _ in range(5):
        gradient = ops.convert_to_tensor(generator.normal(size=first.shape).astype("float32"))
        quick.apply([gradient], [ours])
        plain_adam.apply([gradient], [keras_own])
    assert ours.numpy() == pytest.approx(keras_own.numpy(), abs=1e-6)
    assert np.abs(ours.numpy() - first).mean() > 0.01


ALLOCATING = """
import ctypes, resource, threading
from digit_recognizer.training import processor

processor.keep_freed_memory()
libc, size = ctypes.CDLL(None), 12_845_056
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]

def steps():
    for _ in range(5):
        blocks = [libc.malloc(size) for _ in range(10)]  # more than one heap of an arena holds
        for block in blocks:
            libc.memset(block, 1, size)
        for block in blocks:
            libc.free(block)

before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread = threading.Thread(target=steps)
thread.start()
thread.join()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults / (10 * size / resource.getpagesize()))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="of glibc alone")
def test_a_thread_gets_freed_memory_back_without_page_faults():
    environment = os.environ | {"PYTHONPATH": str(files.ROOT / "src")}
    line = [sys.executable, "-c", ALLOCATING]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=environment)
    assert float(done.stdout) < 2  # times the pages of a step: the first step's, not those of all five


CONVOLVING = """
from digit_recognizer.training import backend
backend.start(1)
import tensorflow as tf
tf.nn.conv2d(tf.zeros((1, 8, 8, 2)), tf.zeros((3, 3, 2, 4)), 1, "SAME")
"""


@needs_tensorflow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="of x86 alone")
@pytest.mark.skipif(sys.platform == "darwin", reason="TensorFlow is built without oneDNN for macOS")
@pytest.mark.parametrize("asked", [None, "0"])
def test_onednn_computes_on_every_processor_unless_it_is_forbidden(asked):
    environment = os.environ | {"PYTHONPATH": str(files.ROOT / "src"), "ONEDNN_VERBOSE": "1"}
    environment.pop("TF_ENABLE_ONEDNN_OPTS", None)
    environment |= {"TF_ENABLE_ONEDNN_OPTS": asked} if asked else {}
    line = [sys.executable, "-c", CONVOLVING]
    done = subprocess.run(line, capture_output=True, text=True, check=True, env=environment)
    assert ("cpu,convolution" in done.stdout) == (asked is None)
