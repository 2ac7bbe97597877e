"""export.py as a person runs it, on runs whose networks have random weights."""

import importlib.util
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from conftest import finish, start
from faults import file_size_limit
from kaggle_server import refused

from digit_recognizer import named_recipes, recipes
from digit_recognizer.data import digits
from digit_recognizer.files import write_json
from digit_recognizer.inference import export
from digit_recognizer.results import ensemble
from digit_recognizer.runs.directory import Run
from digit_recognizer.training import backend, networks
from digit_recognizer.training.predict import CERTAIN, Ensemble, load_model

VIEWS = {"filters": (4, 8, 8, 8, 8), "hidden": (8,), "tta_views": 3}
HAS_ONNX = all(importlib.util.find_spec(package) for package in export.FORMATS[".onnx"].packages)
FILES = ["digits.keras", "digits", "digits.tflite", *["digits.onnx"] * HAS_ONNX]
# A process without this package: runs a printed line on the pictures in images.npy.
PROGRAM = """
import sys, numpy as np
images = np.load("images.npy")
for number, line in enumerate(sys.argv[1:]):
    exec(line)
    np.save(f"{number}.npy", probabilities)
assert not [name for name in sys.modules if "digit_recognizer" in name]
"""


def make_run(folder, name, options, members):
    """A run whose networks are certain of some pictures of the sample, and uncertain of others."""
    recipe = recipes.change(named_recipes.named(name), options)
    for number in range(members):
        fold = folder / f"fold_{number:02d}"
        fold.mkdir(parents=True)
        keras.utils.set_random_seed(number)
        network = networks.build(recipe)
        kernel = network.layers[-1].kernel
        kernel.assign(kernel * 40 / np.std(keras.Model(network.input, network.layers[-2].output)(images())))
        network.save(fold / "model.keras")
        (fold / "metrics.json").write_text("{}")
    write_json(folder / "recipe.json", recipes.to_json(recipe) | {"threads": 2, "data": "competition"})
    return Run(folder)


def images():
    return digits.sample().test_images[:40]


@pytest.fixture(scope="module")
def blend(tmp_path_factory):
    """Of a network without views and two that share their views, with weights."""
    folder = tmp_path_factory.mktemp("blend")
    make_run(folder / "plain", "bn_cnn", {"filters": (4, 8, 8), "hidden": (8,)}, 1)
    make_run(folder / "views", "fast", VIEWS, 2)
    run = Run(folder / "blend")
    run.folder.mkdir()
    write_json(run.recipe_json, {"name": "blend", "data": "competition", "fingerprint": "", "runs": []})
    weights = {"../plain/fold_00": 0.5, "../views/fold_00": 0.3, "../views/fold_01": 0.2}
    members = [{"member": member, "weight": weight} for member, weight in weights.items()]
    write_json(run.ensemble_json, {"members": members, "missing": []})
    return run


def test_each_format_predicts_what_the_members_do(call, blend, tmp_path):
    """By the printed line, in a process that does not know this package."""
    models = ensemble.trained_models(blend)
    expected, lines = Ensemble(models).predict(images())[0], []
    (tmp_path / "digits.keras").write_text("is replaced")
    for name in FILES:
        outcome = call("export", tmp_path / name, "--output", blend.folder)
        assert (outcome.code, outcome.error) == (0, ""), outcome
        size, difference, shapes, views, line = outcome.out.splitlines()
        assert size.startswith(f"{tmp_path / name}: 3 networks as one, 0.") and "MB" in size
        assert float(difference.rpartition(" ")[2]) < 1e-4
        assert "uint8 (n, 28, 28)" in shapes and "a picture and 3 views of it" in views
        lines.append(line)
    np.save(tmp_path / "images.npy", images())
    done = subprocess.run([sys.executable, "-c", PROGRAM, *lines], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for number, name in enumerate(FILES):
        assert np.load(tmp_path / f"{number}.npy") == pytest.approx(expected, abs=1e-4), name
    path = list(models)[1]
    recipe = recipes.from_json(Run(path.parents[1]).require_settings())
    is_certain = load_model(path, recipe).predict(images(), verbose=0).max(axis=1) >= CERTAIN
    assert is_certain.any() and not is_certain.all()  # both kinds were compared
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()


def test_one_network_without_views_on_jax(blend, tmp_path):
    """TensorFlow loads it."""
    folder = blend.folder.parent / "plain"
    outcome = finish(start("export", tmp_path / "digits.keras", "--output", folder, KERAS_BACKEND="jax"))
    assert (outcome.code, outcome.error) == (0, "")
    assert "1 network, 0.1 MB" in outcome.out and "views of it" not in outcome.out
    found = keras.saving.load_model(tmp_path / "digits.keras").predict(images(), verbose=0)
    assert found == pytest.approx(Ensemble(ensemble.trained_models(Run(folder))).predict(images())[0], abs=1e-4)


def test_refusals_come_first_and_write_nothing(call, blend, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "start", lambda threads: pytest.fail("Keras is started"))
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    (tmp_path / "folder.keras").mkdir()
    (tmp_path / "saved").mkdir()
    write_json(tmp_path / "saved" / "recipe.json", json.loads((blend.folder / "../plain/recipe.json").read_text()))
    here, before = tmp_path.joinpath, sorted(tmp_path.rglob("*"))
    for file, run, words in (
        (here("digits.h5"), blend.folder, "its name has to end in .keras, .tflite, .onnx, or to have no ending"),
        (here("folder.keras"), blend.folder, "that is a folder"),
        (here("saved"), blend.folder, "a SavedModel is a new folder: remove it or take another name"),
        (here("no/digits.keras"), blend.folder, f"there is no folder {here('no')}: make it first"),
        ("/proc/digits.keras", blend.folder, "/proc/digits.keras cannot be written ("),
        (here("digits.onnx"), blend.folder, "pip install tf2onnx"),
        (here("digits.keras"), here("nowhere"), "holds no run (no recipe.json)"),
        (here("digits.keras"), here("saved"), "has no finished fold yet: run scripts/train.py"),
    ):
        assert refused(call("export", file, "--output", run), words)
    assert refused(call("export"), "the following arguments are required: FILE")
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    for name in FILES[1:]:
        words = "TensorFlow writes this format, not jax: set KERAS_BACKEND=tensorflow"
        assert refused(call("export", here(f"other_{name}"), "--output", blend.folder), words)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", FILES[:2])
def test_a_file_that_predicts_otherwise_or_finds_no_room_is_not_there(call, blend, tmp_path, monkeypatch, name):
    file, kept = tmp_path / name, b"an earlier file" if "." in name else None
    if kept:
        file.write_bytes(kept)
    line = ("export", file, "--output", blend.folder.parent / "plain")
    with file_size_limit(4000):
        assert refused(call(*line), name)
    monkeypatch.setattr(export, "_TOLERANCE", -1)
    assert refused(call(*line), f"{name} cannot be written (its predictions differ from the members' by ")
    assert [path.name for path in tmp_path.iterdir()] == [name] * bool(kept)
    assert not kept or file.read_bytes() == kept
