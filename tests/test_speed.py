"""The fast ways to train compute what plain Keras in float32 computes; so do the backend's choices."""

import importlib
import sys

import keras
import numpy as np
import pytest
from keras import ops

from digit_recognizer.recipes import change, named
from digit_recognizer.training import backend, batches, fold, networks
from digit_recognizer.training.fold import train_fold
from digit_recognizer.training.layers import (
    FusedBatchNormalization,
    MaxOfFour,
    PhiloxDropout,
    filters_gradient,
)
from digit_recognizer.training.networks import COMPILED, PUBLISHED, UNCOMPILED

ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
needs_tensorflow = pytest.mark.skipif(not ON_TENSORFLOW, reason="of TensorFlow alone")


def plain(name, **options):
    """A recipe without randomness in training."""
    drawn = ("rotation", "zoom", "shift", "shear", "dropout")
    return change(named(name), dict.fromkeys(drawn, 0.0) | options)


def step(recipe, layout, precision, by_xla, weights, images, labels):
    """Outputs before, gradients and all weights after one step of plain gradient descent."""
    model = networks.build(recipe, layout, precision)
    model.set_weights(weights)
    rate = 1.0
    optimizer = keras.optimizers.SGD(rate)
    if precision == "float16":  # with the usual scale the first steps overflow and are left out
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=256)
    model.compile(optimizer, "sparse_categorical_crossentropy", jit_compile=by_xla)
    outputs = ops.convert_to_numpy(model(images, training=False))
    model.train_on_batch(images, labels)
    trainable = {id(each) for each in model.trainable_weights}
    moves = {True: [], False: []}
    for before, after in zip(weights, model.weights, strict=True):
        moves[id(after) in trainable].append(np.ravel(before - ops.convert_to_numpy(after)))
    return outputs, np.concatenate(moves[True]) / rate, np.concatenate(moves[False])


@pytest.fixture(scope="module", params=["bn_cnn", "fast"])
def published(request):
    recipe = plain(request.param)
    keras.utils.set_random_seed(3)
    weights = networks.build(recipe).get_weights()
    # noise, and several: where two of four pixels are as high, rounding picks the one that learns, always
    # somewhere in the even parts of a digit and now and then in noise
    generator = np.random.default_rng(0)
    batches = [
        (generator.integers(0, 256, (20, 28, 28), dtype=np.uint8), np.arange(20, dtype=np.uint8) % 10)
        for _ in range(3)
    ]
    return (
        recipe,
        weights,
        batches,
        [step(recipe, PUBLISHED, "float32", False, weights, *batch) for batch in batches],
    )


@pytest.mark.parametrize(
    ("layout", "by_xla", "precision", "tolerance"),
    [
        (COMPILED, True, "float32", 1e-3),
        (UNCOMPILED, False, "float32", 1e-3),
        (UNCOMPILED, False, "bfloat16", 0.5),  # eight bits: 0.4 % in each number
        (UNCOMPILED, False, "float16", 0.1),
    ],
    ids=["compiled", "uncompiled", "bfloat16", "float16"],
)
def test_one_step_is_that_of_plain_keras(published, layout, by_xla, precision, tolerance):
    recipe, weights, batches, expected = published
    errors = []
    for batch, right in zip(batches, expected, strict=True):
        found = step(recipe, layout, precision, by_xla, weights, *batch)
        pairs = zip(found, right, strict=True)
        errors.append([np.linalg.norm(mine - theirs) / np.linalg.norm(theirs) for mine, theirs in pairs])
    outputs, gradients, statistics = np.transpose(errors)
    exact = precision == "float32"
    assert max(outputs) < (1e-5 if exact else tolerance)
    assert min(gradients) < tolerance
    assert max(statistics) < (1e-4 if exact else tolerance)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_what_stays_float32_in_half_precision(precision):
    model = networks.build(named("bn_cnn"), UNCOMPILED, precision)
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert model.output.dtype == "float32"
    computed = {type(layer).__name__: layer.compute_dtype for layer in model.layers}
    assert computed["RandomAffine"] == computed["Rescaling"] == "float32"
    assert computed["QuickConv2D"] == precision
    assert networks.build(named("bn_cnn")).layers[-2].compute_dtype == "float32"  # the next is its own


@pytest.mark.parametrize(("height", "width"), [(28, 28), (7, 5)])
def test_max_of_four_is_max_pooling(height, width):
    pictures = np.random.default_rng(0).normal(size=(3, height, width, 4)).astype("float32")
    expected = ops.convert_to_numpy(keras.layers.MaxPooling2D(2)(pictures))
    assert (ops.convert_to_numpy(MaxOfFour()(pictures)) == expected).all()


@needs_tensorflow
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(("height", "width", "channels"), [(7, 5, 6), (28, 28, 1)])
def test_filters_gradient_is_tensorflows_own(padding, height, width, channels):
    tf = importlib.import_module("tensorflow")
    generator, shape = np.random.default_rng(0), (3, 3, channels, 4)
    pictures = tf.constant(generator.normal(size=(8, height, width, channels)), "float32")
    filters = tf.constant(generator.normal(size=shape), "float32")
    with tf.GradientTape() as tape:
        tape.watch(filters)
        convolved = tf.nn.conv2d(pictures, filters, 1, padding)
    slopes = tf.constant(generator.normal(size=convolved.shape), "float32")
    expected = tape.gradient(convolved, filters, slopes).numpy()
    assert filters_gradient(pictures, slopes, shape, padding).numpy() == pytest.approx(expected, abs=1e-3)


@needs_tensorflow
def test_fused_normalisation_is_keras_own():
    pictures = np.random.default_rng(0).normal(3, 2, size=(8, 6, 6, 5)).astype("float32")
    ours, keras_own = FusedBatchNormalization(momentum=0.9), keras.layers.BatchNormalization(momentum=0.9)
    for training_ in (True, False):
        found, expected = (ops.convert_to_numpy(x(pictures, training=training_)) for x in (ours, keras_own))
        assert found == pytest.approx(expected, abs=1e-5)
    for mine, theirs in zip(ours.get_weights(), keras_own.get_weights(), strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)


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
        ours, published = networks.build(recipe, UNCOMPILED), networks.build(recipe)
        ours.set_weights(published.get_weights())
        images = dataset.test_images
        expected = published.predict(images, verbose=0)
        assert ours.predict(images, verbose=0) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("part", ["step", "epoch", pytest.param(None, marks=needs_tensorflow)])
def test_a_training_resumes_with_the_same_bytes(part, dataset, folds, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "compiled", lambda *_: part)
    recipe = change(named("dropout_mlp"), {"epochs": 2, "batch_size": 16, "folds": 2, "rotation": 10.0})
    train_fold(recipe, dataset, folds[0], tmp_path / "whole")

    class Death(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_fold(recipe, dataset, folds[0], tmp_path / "parts", [Death()])
    train_fold(recipe, dataset, folds[0], tmp_path / "parts")
    for name in ("validation_probabilities.npy", "test_probabilities.npy"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@needs_tensorflow
def test_batches_in_a_loop_are_the_same_training(small_recipe, dataset, folds, tmp_path, monkeypatch):
    recipe = change(small_recipe, {"batch_size": 8, "precision": "float32"})
    monkeypatch.setattr(backend, "compiled", lambda *_: None)
    found = []
    for count in (1, 3, 5):  # of the 5 of an epoch
        monkeypatch.setattr(fold, "batches_at_once", lambda *_, count=count: count)
        train_fold(recipe, dataset, folds[0], tmp_path / str(count))
        found.append((tmp_path / str(count) / "test_probabilities.npy").read_bytes())
    assert found[0] == found[1] == found[2]


def test_batches_at_once():
    assert [batches.batches_at_once(part, 100) for part in ("epoch", "step", None)] == [100, 1, 32]
    assert batches.batches_at_once(None, 5) == 5


@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-3), ("bfloat16", 0.02)])
def test_an_epoch_in_one_call_is_the_same_training(
    precision, tolerance, small_recipe, dataset, folds, tmp_path, monkeypatch
):
    recipe = change(small_recipe, {"precision": precision, "schedule": "one_cycle"})
    found = {}
    for part in ("step", "epoch"):
        monkeypatch.setattr(backend, "compiled", lambda *_, part=part: part)
        train_fold(recipe, dataset, folds[0], tmp_path / part)
        table = np.loadtxt(tmp_path / part / "history.csv", delimiter=",", skiprows=1)[
            :, :-1
        ]  # without seconds
        found[part] = table, np.load(tmp_path / part / "test_probabilities.npy")
    for one, other in zip(found["epoch"], found["step"], strict=True):
        assert one == pytest.approx(other, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("name", ["fast", "dropout_mlp"])
def test_compiled_prediction_is_that_of_the_saved_network(name, dataset, monkeypatch):
    monkeypatch.setattr(backend, "compiled", lambda *_: "step")
    recipe, images = named(name), dataset.test_images
    network = fold.predictor(recipe, 100)
    assert network.jit_compile
    for seed in (0, 1):  # of members that share it
        keras.utils.set_random_seed(seed)
        saved = networks.build(recipe)
        network.set_weights(saved.get_weights())
        assert fold.predict(network, images) == pytest.approx(fold.predict(saved, images), abs=1e-6)


def test_prediction_over_shifts():
    class Corner(keras.Model):  # stands for a network: how bright the upper left pixel is
        def call(self, images, training=False):
            first = ops.cast(images[:, 0, 0], "float32") / 255
            return ops.stack([first, 1 - first, *[ops.zeros_like(first)] * 8], axis=-1)

    images = np.zeros((2, 28, 28), np.uint8)
    images[0, :3, :3] = np.arange(90, 180, 10).reshape(3, 3)
    found = fold.predict(Corner(), images)
    assert found[:, 0] == pytest.approx([90 / 255, 0])
    # of the first's nine, itself, its right and lower neighbours are inside; of the second it is sure
    images[1, :2, 1] = 255
    found = fold.predict(Corner(), images, 1)
    assert found[:, 0] == pytest.approx([(90 + 100 + 120 + 130) / 255 / 9, 0])
    assert found.sum(axis=1) == pytest.approx(1)


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
    monkeypatch.setattr(backend, "_cpuinfo", lambda name: set(flags.split()))
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    if isa is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    assert backend.precision("auto") == expected
    assert backend.precision("float16") == "float16"


@pytest.mark.parametrize(
    ("accelerator", "expected"),
    [
        ({"compute_capability": (7, 5)}, "float16"),  # T4
        ({"compute_capability": (9, 0)}, "bfloat16"),
        ({"device_name": "TPU v5 lite"}, "bfloat16"),
    ],
)
def test_precision_follows_the_accelerator(monkeypatch, accelerator, expected):
    monkeypatch.setattr(backend, "_accelerator", lambda: accelerator)
    assert backend.precision("auto") == expected
    assert backend.compiled(expected, 1) == "epoch"


def test_an_epoch_is_one_call_where_steps_are_short(monkeypatch):
    monkeypatch.setattr(backend, "compiled", lambda *_: "step")
    compiled = {name: fold.means(named(name), 10**6)[0] for name in ("softmax_mlp", "mlp", "lenet", "fast")}
    assert compiled == {"softmax_mlp": "epoch", "mlp": "epoch", "lenet": "step", "fast": "step"}
    monkeypatch.setattr(backend, "compiled", lambda *_: None)
    assert fold.means(named("mlp"), 1)[0] is None


@needs_tensorflow
def test_xla_compiles_where_it_pays(monkeypatch):
    flags = {"avx2", "avx512f"}
    monkeypatch.setattr(backend, "_cpuinfo", lambda name: flags)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    assert not backend.compiled("float32", 10**6)  # TensorFlow's own convolutions are faster
    by_xla = None if sys.platform == "darwin" else "step"
    assert backend.compiled("float32", 10**6, False) == by_xla
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    assert backend.compiled("float32", 10**6) == (None if sys.platform == "darwin" else "step")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")
    flags.remove("avx512f")
    assert backend.compiled("float32", 10**6) == (None if sys.platform == "darwin" else "step")
    assert not backend.compiled("float32", 1000)
    assert not backend.compiled("bfloat16", 10**6)
