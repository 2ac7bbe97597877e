"""The networks and the layers of our own."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from scipy.ndimage import affine_transform

from digit_recognizer import named_recipes, recipes
from digit_recognizer.recipes import change
from digit_recognizer.training import networks
from digit_recognizer.training.layers import RandomDistortion, read_bilinear

MODES = {"eager": {"run_eagerly": True}, "compiled": {"jit_compile": True}, "graph": {"jit_compile": False}}


def picture():
    return np.random.default_rng(0).random((1, 28, 28, 1), np.float32)


@pytest.mark.parametrize(
    ("name", "parameters", "order"),
    [
        ("softmax_mlp", [401_920, 262_656, 5_130], ["Flatten", "Dense", "Dense", "Dense"]),
        ("dropout_mlp", [100_480, 1_290], ["Flatten", "Dense", "Dropout", "Dense"]),
        ("mlp", [100_480, 16_512, 1_290], ["UnitNormalization", "Flatten", "Dense", "Dense", "Dense"]),
        ("shallow_cnn", [280, 2_422_912, 1_290], ["Conv2D", "Flatten", "Dense", "Dense"]),
        (
            "lenet",
            [320, 18_496, 1_179_776, 1_290],
            ["Conv2D", "Conv2D", "MaxPooling2D", "Dropout", "Flatten", "Dense", "Dropout", "Dense"],
        ),
        (
            "bn_cnn",  # 742,858 in all
            [640, 256, 73_856, 512, 221_376, 442_624, 1_024, 2_570],
            [
                *("Conv2D", "BatchNormalization", "Activation", "MaxPooling2D") * 2,
                *("Conv2D", "Activation", "MaxPooling2D", "Flatten"),
                *("Dense", "BatchNormalization", "Activation", "Dropout", "Dense"),
            ],
        ),
    ],
)
def test_the_tutorials_networks(name, parameters, order):
    """Layer by layer as published; before them the pixels are reshaped and scaled."""
    layers = networks.build(named_recipes.named(name)).layers
    assert [layer.count_params() for layer in layers if layer.count_params()] == parameters
    assert [type(layer).__name__ for layer in layers[3:]] == order
    assert [type(layer).__name__ for layer in layers[1:3]] == ["Reshape", "Rescaling"]


@pytest.mark.parametrize("scaling", ["unit", "raw", "columns"])
def test_scaling(scaling, dataset):
    images = dataset.train_images[:20].copy()
    images[:, :, 3] = 0
    model = networks.build(recipes.change(named_recipes.named("dropout_mlp"), {"scaling": scaling}))
    before = [type(layer).__name__ for layer in model.layers].index("Flatten") - 1
    scaled = keras.Model(model.input, model.layers[before].output).predict(images, verbose=0)[..., 0]
    whole = images.astype(np.float64)
    expected = {"unit": whole / 255, "raw": whole, "columns": keras.utils.normalize(whole, axis=1)}
    assert scaled == pytest.approx(expected[scaling], rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("activation", ["sigmoid", "tanh", "relu", "leaky_relu", "elu"])
def test_activations(activation, dataset, tmp_path):
    options = {"activation": activation, "hidden": (), "scaling": "raw"}
    model = networks.build(recipes.change(named_recipes.named("shallow_cnn"), options))
    convolution = model.layers[3]
    convolution.set_weights([np.full((3, 3, 1, 28), -1e-4), np.linspace(-1, 1, 28)])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    images = dataset.test_images[:2]
    found = keras.Model(loaded.input, loaded.layers[3].output).predict(images, verbose=0)
    sums = np.lib.stride_tricks.sliding_window_view(images.astype(float), (3, 3), (1, 2)).sum((-2, -1))
    z = np.linspace(-1, 1, 28) - 1e-4 * sums[..., None]
    expected = {
        "sigmoid": 1 / (1 + np.exp(-z)),
        "tanh": np.tanh(z),
        "relu": np.maximum(0, z),
        "leaky_relu": np.maximum(0.1 * z, z),
        "elu": np.where(z >= 0, z, np.expm1(z)),
    }
    assert found == pytest.approx(expected[activation], abs=1e-5)


def test_augmentation_trains_alike_in_every_mode(dataset):
    """Eagerly and as a graph the same random numbers move the weights alike; XLA has a generator of its own."""
    options = {"rotation": 10.0, "zoom": 0.1, "shift": 0.1, "shear": 0.1, "dropout": 0.0}
    recipe, moves = change(named_recipes.named("dropout_mlp"), options), {}
    for mode, arguments in MODES.items():
        keras.utils.set_random_seed(0)
        model = networks.build(recipe, networks.XLA)
        (augmentation,) = (layer for layer in model.layers if isinstance(layer, RandomDistortion))
        augmentation.seed_generator.state.assign([1, 2])
        model.compile(keras.optimizers.SGD(0.1), "sparse_categorical_crossentropy", **arguments)
        before = model.get_weights()[0]
        model.fit(dataset.train_images[:16], dataset.train_labels[:16], batch_size=8, shuffle=False, verbose=0)
        moves[mode] = model.get_weights()[0] - before
    assert moves["graph"] == pytest.approx(moves["eager"], abs=2e-4)
    lengths = [np.linalg.norm(move) for move in moves.values()]
    assert min(lengths) > 0.05 and max(lengths) < 1.5 * min(lengths)


def test_saved_models_load_in_plain_keras(dataset, tmp_path):
    """Those of every recipe, in a process that has never heard of this package, and predict the same bytes."""
    for name in named_recipes.RECIPES:
        model = networks.build(named_recipes.named(name))
        model.save(tmp_path / f"{name}.keras")
        probabilities = model.predict(dataset.test_images, verbose=0)
        assert probabilities.sum(axis=1) == pytest.approx(np.ones(20), abs=1e-5), name
        np.save(tmp_path / f"{name}.npy", probabilities)
    np.save(tmp_path / "images", dataset.test_images)
    program = (
        "import keras, numpy, sys\n"
        "for name in sys.argv[1:]:\n"
        "    model = keras.saving.load_model(f'{name}.keras', safe_mode=True)\n"
        "    probabilities = model.predict(numpy.load('images.npy'), verbose=0)\n"
        "    assert (probabilities == numpy.load(f'{name}.npy')).all(), name\n"
        "assert not [name for name in sys.modules if 'digit_recognizer' in name]"
    )
    line = [sys.executable, "-c", program, *named_recipes.RECIPES]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def distorted(images, *arguments, training=True, **options):
    return keras.ops.convert_to_numpy(RandomDistortion(*arguments, **options)(images, training=training))


def test_only_training_distorts_and_each_picture_by_itself():
    same = np.repeat(picture(), 8, axis=0)
    assert (distorted(same, 90, 0.5, 0.5, 0.5, training=False) == same).all()
    assert distorted(same) == pytest.approx(same, abs=1e-5)  # by nothing
    assert len({image.tobytes() for image in distorted(same, 10, 0.1, 0.1)}) == 8


def test_draws_stay_in_their_ranges():
    """A dot in the middle is moved by the shift alone, and by no more than it."""
    dot = np.zeros((500, 29, 29, 1), np.float32)
    dot[:, 14, 14] = 1
    out = distorted(dot, shift=0.1)[..., 0]
    y = (out * np.arange(29)[:, None]).sum((1, 2)) - 14
    assert out.sum((1, 2)) == pytest.approx(1, abs=1e-3)
    assert 2.5 < np.abs(y).max() <= 2.9 + 1e-3 and np.abs(y.mean()) < 0.3


def test_shear_slants():
    """Of two dots above each other one goes to the left as far as the other to the right, in its row."""
    dots = np.zeros((500, 29, 29, 1), np.float32)
    dots[:, [4, 24], 14] = 1
    out = distorted(dots, shear=0.3)[..., 0][:, [4, 24]]
    assert out.sum(2) == pytest.approx(1, abs=1e-3)
    above, below = ((out * np.arange(29)).sum(2) - 14).T
    assert above == pytest.approx(-below, abs=1e-3)
    assert 2.7 < np.abs(above).max() <= 3 + 1e-3 and np.abs(above.mean()) < 0.3


@pytest.mark.parametrize(("rotation", "zoom"), [(30, 0), (0, 0.3), (30, 0.3)])
def test_a_disc_stays_a_disc_of_about_its_size(rotation, zoom):
    y, x = np.mgrid[:28, :28] - 13.5
    disc = np.repeat((x**2 + y**2 < 64).astype(np.float32)[None, ..., None], 100, axis=0)
    out = distorted(disc, rotation, zoom)
    area = out.sum((1, 2, 3)) / disc[0].sum()
    assert area.min() > (1 + zoom) ** -2 - 0.02 and area.max() < (1 - zoom) ** -2 + 0.02
    height, width = (np.sqrt((out[..., 0] * each**2).sum((1, 2)) / out.sum((1, 2, 3))) for each in (y, x))
    if zoom:  # of height and width each by itself: they may have up to 1.86 times each other's
        assert area.min() < 0.75 and area.max() > 1.3 and (height / width).max() > 1.3
    middle = (out[..., 0] * y).sum((1, 2)) / out.sum((1, 2, 3))
    assert np.abs(middle).max() < 0.1


def test_reading_is_bilinear_with_zeros_outside():
    """Against SciPy's affine_transform, which pads and interpolates the same way."""
    image = picture()[0, ..., 0]
    angle = np.deg2rad(25)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * 1.3
    offset = np.array([-3.2, 5.7])
    expected = affine_transform(np.pad(image, 1), matrix, offset + 1 - matrix @ [1, 1], order=1)[1:-1, 1:-1]
    y, x = matrix @ np.mgrid[:28, :28].reshape(2, -1) + offset[:, None]
    out = read_bilinear(image[None, ..., None], y[None].astype(np.float32), x[None].astype(np.float32))
    assert keras.ops.convert_to_numpy(out)[0, ..., 0] == pytest.approx(expected, abs=1e-4)


def test_seeds_repeat_the_draw():
    layer, draws = RandomDistortion(10, 0.1, 0.1, 0.1), []
    for seeds in ([1, 2], None, [1, 2]):
        if seeds:
            layer.seed_generator.state.assign(seeds)
        draws.append(keras.ops.convert_to_numpy(layer(picture(), training=True)))
    assert (draws[0] == draws[2]).all() and (draws[0] != draws[1]).any()


def test_recipe_reaches_the_layers(recipe):
    draws = {"rotation": 3.0, "zoom": 0.2, "shift": 0.3, "shear": 0.1}
    model = networks.build(change(recipe, draws | {"dropout": 0.4}), networks.XLA)
    (augmentation,) = (layer for layer in model.layers if isinstance(layer, RandomDistortion))
    (dropout,) = (layer for layer in model.layers if isinstance(layer, keras.layers.Dropout))
    assert draws == {name: getattr(augmentation, name) for name in draws}
    assert dropout.rate == 0.4
