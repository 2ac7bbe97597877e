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
from conftest import train_member
from keras import ops

from digit_recognizer import files
from digit_recognizer.named_recipes import named
from digit_recognizer.recipes import change
from digit_recognizer.training import backend, batches, networks
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
    drawn = ("rotation", "zoom", "shift", "shear", "dropout", "conv_dropout")
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


@pytest.fixture(scope="module", params=["bn_cnn", "fast"])
def published(request):
    """The recipe, its first weights, which of them are trained, three batches, and plain Keras' steps on them."""
    recipe = plain(request.param)
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


@pytest.mark.parametrize(
    ("layer_set", "by_xla", "precision", "has_avx512"),
    [
        (XLA, True, "float32", False),
        (TENSORFLOW, False, "float32", True),
        *((TENSORFLOW, False, precision, False) for precision in ("float32", "bfloat16", "float16")),
    ],
    ids=["compiled", "float32-avx512", "float32", "bfloat16", "float16"],
)
def test_one_step_is_that_of_plain_keras(published, layer_set, by_xla, precision, has_avx512, monkeypatch):
    monkeypatch.setattr(backend, "has_avx512", lambda: has_avx512)
    recipe, weights, trained, batches, expected = published
    if precision != "float32" and os.environ.get("ONEDNN_MAX_CPU_ISA"):
        pytest.skip("oneDNN has no half precision with a limit on its instructions")
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


def gradients(layer, pictures, slopes, training):
    """The layer's outputs, and the gradients of its pictures and of its weights that are trained, by name."""
    tf = importlib.import_module("tensorflow")
    with tf.GradientTape() as tape:
        tape.watch(pictures)
        outputs = layer(pictures, training=training)
    weights = {weight.name: weight.value for weight in layer.trainable_weights}
    found = tape.gradient(outputs, {"pictures": pictures} | weights, slopes)
    return {name: values.numpy() for name, values in ({"outputs": outputs} | found).items()}


CONVOLUTION = {"filters": 4, "kernel_size": 3}


@needs_tensorflow
@pytest.mark.parametrize(
    ("quick_kind", "kind", "options", "shape"),
    [
        (QuickConv2D, keras.layers.Conv2D, CONVOLUTION | {"padding": "same"}, (7, 5, 6)),
        (QuickConv2D, keras.layers.Conv2D, CONVOLUTION | {"padding": "valid"}, (7, 5, 6)),
        (QuickConv2D, keras.layers.Conv2D, CONVOLUTION | {"padding": "valid"}, (28, 28, 1)),
        (FusedBatchNormalization, keras.layers.BatchNormalization, {"momentum": 0.9}, (6, 6, 5)),
    ],
)
@pytest.mark.parametrize("gradient", [multiplied_gradient, compiled_gradient])
def test_a_quick_layer_is_keras_own(quick_kind, kind, options, shape, gradient, monkeypatch):
    """Its outputs, its gradients, and the statistics that it keeps."""
    monkeypatch.setattr(QuickConv2D, "quick_gradient", lambda self, inputs: gradient)
    generator = np.random.default_rng(0)
    pictures = ops.convert_to_tensor(generator.normal(1, 2, size=(8, *shape)).astype("float32"))
    quick, keras_own = quick_kind(**options), kind(**options)
    slopes = ops.convert_to_tensor(generator.normal(size=keras_own(pictures).shape).astype("float32"))
    quick.build(pictures.shape)
    quick.set_weights(keras_own.get_weights())
    for training in (True, False):
        found, expected = (gradients(layer, pictures, slopes, training) for layer in (quick, keras_own))
        for name, values in expected.items():
            assert found[name] == pytest.approx(values, abs=1e-3), name
    for found, expected in zip(quick.get_weights(), keras_own.get_weights(), strict=True):
        assert found == pytest.approx(expected, abs=1e-5)


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


@needs_tensorflow
def test_batches_in_a_loop_are_the_same_training(small_recipe, dataset, folds, tmp_path, monkeypatch):
    recipe = change(small_recipe, {"batch_size": 8, "precision": "float32"})
    monkeypatch.setattr(backend, "xla_scope", lambda *_: "none")
    found = []
    for count in (1, 3):  # of the 5 of an epoch
        monkeypatch.setattr(batches, "batches_per_call", lambda *_, count=count: count)
        train_member(recipe, dataset, folds[0], tmp_path / str(count))
        found.append((tmp_path / str(count) / "test_probabilities.npy").read_bytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("scope", ["none", "step", "epoch"])
def test_float16_trains_with_a_scaled_loss(scope):
    """Whatever the way: small gradients would be 0, and steps that overflow would be taken."""
    scaled = make_learner(change(named("fast"), {"precision": "float16"}), 1280, scope, "float16")
    assert isinstance(scaled.optimizer, keras.optimizers.LossScaleOptimizer)
    assert type(scaled.optimizer.inner_optimizer).__name__ == "Muon"
    learner = make_learner(named("fast"), 1280, scope, "bfloat16")
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


@needs_tensorflow
@pytest.mark.parametrize(
    ("accelerator", "flags", "isa", "expected"),
    [
        (None, "fma avx2", "", "float32"),
        (None, "avx512f avx512_bf16", "", "bfloat16"),
        (None, "avx512f amx_bf16 amx_tile", "AVX512_CORE_AMX", "bfloat16"),
        (None, "avx512f amx_bf16 amx_tile", "AVX512_CORE", "float32"),
        (None, "avx512f amx_bf16 amx_tile", "avx2", "float32"),
        ({"compute_capability": (7, 5)}, "", "", "float16"),  # T4
        ({"compute_capability": (9, 0)}, "", "", "bfloat16"),
        ({"device_name": "TPU v5 lite"}, "", "", "bfloat16"),
    ],
)
def test_precision_follows_the_device(monkeypatch, accelerator, flags, isa, expected):
    monkeypatch.setattr(backend, "find_accelerator", lambda: accelerator)
    monkeypatch.setattr(backend, "cpuinfo", lambda name: set(flags.split()))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    assert backend.compute_dtype("auto") == expected
    assert backend.compute_dtype("float16") == "float16"
    assert not accelerator or backend.xla_scope(expected, 1) == "epoch"


@needs_tensorflow
def test_xla_compiles_where_it_pays(monkeypatch):
    """TensorFlow's own convolutions are faster; of short steps, of dense layers alone, the whole epoch is one call."""
    monkeypatch.setattr(backend, "find_accelerator", lambda: None)
    assert backend.xla_scope("float32", 10**6) == "none"
    assert backend.xla_scope("float32", 10**6, convolutions=False) == ("none" if sys.platform == "darwin" else "epoch")
    assert backend.xla_scope("float32", 1000, convolutions=False) == "none"
    assert backend.xla_scope("bfloat16", 10**6, convolutions=False) == "none"
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert [backend.xla_scope("float32", 1, convolutions=each) for each in (True, False)] == ["step", "epoch"]


@needs_tensorflow
def test_kernels_follow_the_processors_instructions(monkeypatch):
    pictures, convolution = ops.zeros((1, 28, 28, 2)), QuickConv2D(4, 3)
    for has_avx512, expected in ((True, None), (False, compiled_gradient)):
        monkeypatch.setattr(backend, "has_avx512", lambda has_avx512=has_avx512: has_avx512)
        assert convolution.quick_gradient(pictures) is expected
    assert convolution.quick_gradient(pictures[..., :1]) is None
    assert convolution.quick_gradient(ops.cast(pictures, "bfloat16")) is None
    assert convolution.quick_gradient(ops.zeros((1, 7, 7, 1), "bfloat16")) is multiplied_gradient


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


def printed(program, **environment):
    """What a program prints in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(files.ROOT / "src")} | environment
    line = [sys.executable, "-c", program]
    return subprocess.run(line, capture_output=True, text=True, check=True, env=environment).stdout


ALLOCATING = """
import resource, threading
from digit_recognizer.training import backend

backend.keep_freed_memory()
size = 12_845_056

def steps():
    for _ in range(5):
        [b"1" * size for _ in range(10)]  # more than one heap of an arena holds; freed at once

before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
thread = threading.Thread(target=steps)
thread.start()
thread.join()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(faults / (10 * size / resource.getpagesize()))
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="of glibc alone")
def test_a_thread_gets_freed_memory_back_without_page_faults():
    assert float(printed(ALLOCATING)) < 2  # times the pages of a step: the first step's, not those of all five


CONVOLVING = """
from digit_recognizer.training import backend
backend.start(1)
import tensorflow as tf
tf.nn.conv2d(tf.zeros((1, 8, 8, 2)), tf.zeros((3, 3, 2, 4)), 1, "SAME")
"""


@needs_tensorflow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="of x86 alone")
@pytest.mark.skipif(sys.platform == "darwin", reason="TensorFlow is built without oneDNN for macOS")
def test_onednn_computes_on_every_processor_unless_it_is_forbidden(monkeypatch):
    for option, computes in ((None, True), ("0", False)):
        monkeypatch.delenv("TF_ENABLE_ONEDNN_OPTS", raising=False)
        option = {"TF_ENABLE_ONEDNN_OPTS": option} if option else {}
        assert ("cpu,convolution" in printed(CONVOLVING, ONEDNN_VERBOSE="1", **option)) == computes
