"""A run directory or data from a stranger runs no code; credentials are in no argument and no traceback."""

import ast
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import requests
from conftest import ROOT, THREADS
from kaggle_server import forget_client, refused
from stages import write_picture
from test_competition import TOKEN, plant

from digit_recognizer import files, recipes
from digit_recognizer.data import digits
from digit_recognizer.files import UserError, write_array
from digit_recognizer.kaggle import submissions
from digit_recognizer.results import ensemble
from digit_recognizer.runs import plan
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.plan import refuse_other_members
from digit_recognizer.training import session
from digit_recognizer.training.predict import load_model
from digit_recognizer.training.session import TrainingOptions


class Payload:
    """What runs a command when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.fixture
def run(light, tmp_path):
    """A stranger's run."""
    shutil.copytree(light[1], tmp_path / "run")
    return Run(tmp_path / "run")


def rewrite(path, change):
    """Changes the config.json of a model.keras."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def foreign(module, name, config, registered=None):
    """Puts another class or function in the place of the network's second layer."""

    def change(whole):
        layer = whole["config"]["layers"][1]
        part = {"module": module, "class_name": name, "config": config, "registered_name": registered}
        layer.update(part)

    return change


def nested(part):
    """Hides something else where a layer has an initializer."""

    def change(whole):
        layers = whole["config"]["layers"]
        dense = next(layer for layer in layers if layer["class_name"] == "Dense")
        dense["config"]["kernel_initializer"] = part

    return change


FOREIGN = {
    "a module": foreign("innocent", "Evil", {}),
    "a function of Keras": foreign("keras.utils", "function", "get_file", "get_file"),
    "a part of a layer": nested({"module": "innocent", "class_name": "Evil", "config": {}, "registered_name": None}),
    "a lambda": nested({"class_name": "__lambda__", "config": {"value": ["4wAA", None, None]}}),
}


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_the_configuration_of_a_saved_network_is_not_built(run, change, call, tmp_path, monkeypatch):
    """The network comes from the recipe, and takes only its weights from the file."""
    (tmp_path / "innocent.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    line = ("predict", write_picture(tmp_path / "digit.png"), "--output", run.folder)
    expected = call(*line)
    rewrite(run.folder / "fold_00/model.keras", change)
    assert call(*line).out == expected.out
    assert not (tmp_path / "ran").exists() and "innocent" not in sys.modules


def test_another_network_is_refused(run, tmp_path):
    """A layer with code in it, and weights that are not the recipe's."""
    path, mark = run.folder / "fold_00/model.keras", str(tmp_path / "ran")
    lambda_layer = keras.layers.Lambda(lambda x: (exec(f"import os; os.mkdir({mark!r})"), x)[1])
    model = keras.Sequential([keras.Input((3,)), lambda_layer, keras.layers.Dense(2)])
    shutil.rmtree(mark, ignore_errors=True)
    model.save(path)
    recipe = recipes.from_json(run.require_settings())
    with pytest.raises(UserError, match=r"model.keras is damaged \(.*\): delete .*metrics.json and train again"):
        load_model(path, recipe)
    assert not Path(mark).exists()


@pytest.fixture
def pickled(tmp_path):
    """An array that makes a folder when it is unpickled, and that folder."""
    return np.array([Payload(tmp_path / "ran")], dtype=object), tmp_path / "ran"


def save_pickled(path, array):
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=True)


@pytest.mark.parametrize(
    ("name", "stage"),
    [
        ("fold_00/validation_probabilities.npy", "ensemble"),
        ("fold_01/test_probabilities.npy", "ensemble"),
        ("fold_00/validation_probabilities.npy", "report"),
        ("oof_probabilities.npy", "report"),
        ("oof_probabilities.npy", "submit"),
    ],
)
def test_a_pickled_array_is_not_loaded(run, light, call, pickled, name, stage):
    array, ran = pickled
    save_pickled(run.folder / name, array)
    options = ["--dry-run"] if stage == "submit" else []
    assert refused(call(stage, "--input", light[0], "--output", run.folder, *options), name, "damaged")
    assert not ran.exists()


def test_a_pickled_state_is_not_loaded(run, dataset, pickled, capsys):
    """The member starts over."""
    array, ran = pickled
    own = plan.open_plan(run, dataset)
    for path in (run.folder / "fold_00").iterdir():
        path.unlink()
    facts = json.dumps({"identity": own.identity, "counts": {"weight": 1, "optimizer": 0, "best": 0}})
    np.savez(run.folder / "fold_00/state.npz", facts=np.array(facts), weight_0=array)
    session.train(run.folder, dataset, [None], {}, TrainingOptions(fold_indices=[0], threads=THREADS))
    assert "state.npz is damaged (" in capsys.readouterr().out
    np.savez(run.folder / "fold_00/state.npz", facts=array)
    refuse_other_members(run, own.identity)
    assert not ran.exists()


def test_pickled_data_is_not_loaded(tmp_path, pickled):
    array, ran = pickled
    np.savez(tmp_path / "mnist.npz", x_train=array, y_train=array, x_test=array, y_test=array)
    with pytest.raises(UserError, match="pickled, which could run any program"):
        digits.load(tmp_path)
    assert not ran.exists()


def test_a_pickle_is_no_array_of_ours(tmp_path, pickled):
    """Reading refuses what writing never makes."""
    with pytest.raises(ValueError, match=r"[Oo]bject"):
        write_array(tmp_path / "array.npy", pickled[0])


def test_no_array_is_read_with_pickles():
    """Each call says so itself, whatever NumPy's default is, and nothing unpickles in another way."""
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("np.load", "numpy.load"):
                assert "allow_pickle=False" in ast.unparse(node), f"{path}:{node.lineno}"
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("eval", "exec", "pickle.load", "pickle.loads", "joblib.load"), (
                    f"{path}:{node.lineno}"
                )


ARGUMENTS = []  # of every process that this one has started, while it is listened to


def _listen(event, args):
    if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.spawn"):
        ARGUMENTS.append(repr(args[:2]))  # not the environment, which only this user sees


@pytest.fixture
def commands(light, run, server, tmp_path):
    """Every command that has to do with Kaggle."""
    places = ("--input", light[0], "--output", run.folder)
    return [
        ("download", "--input", tmp_path / "downloaded"),
        ("submit", *places, "--yes"),
        ("submit", *places, "--score", "--no-wait"),
        ("kernel", "--output", tmp_path / "kernel", "--owner", "somebody"),
    ]


@pytest.mark.parametrize("kind", ["variable", "file", "kaggle.json", "key"])
def test_no_process_has_a_token_among_its_arguments(server, call, commands, tmp_path, monkeypatch, kind):
    """`ps` shows the arguments of every process to every user."""
    plant(kind, tmp_path, monkeypatch)
    if not getattr(sys, "_arguments_are_heard", False):
        sys._arguments_are_heard = True
        sys.addaudithook(_listen)
    ARGUMENTS.clear()
    server.looks_until_scored = 0
    for line in commands:
        forget_client()
        assert call(*line).code == 0
    files.commit()
    assert any("git" in each for each in ARGUMENTS)  # it does listen
    assert TOKEN not in "".join(ARGUMENTS) and TOKEN not in " ".join(sys.orig_argv)


ERRORS = (RuntimeError, KeyError, OSError, requests.RequestException)


@pytest.mark.parametrize("error", ERRORS)
def test_no_error_of_the_client_tells_the_token(server, call, commands, run, tmp_path, monkeypatch, error):
    """Whatever it raises, with whatever message, wherever it sends something."""
    plant("variable", tmp_path, monkeypatch)
    sent = ("2026-01-01T00:00:00+00:00", "digit-recognizer", "a" * 64, "mine [aaaaaaaa]", None)
    submissions.write_submissions(run, [submissions.Submission(*sent)])

    def fail(*arguments, **options):
        raise error(f"Authorization: Bearer {TOKEN}")

    for line in commands:
        forget_client()
        with monkeypatch.context() as patch:
            patch.setattr(requests.Session, "send", fail)
            outcome = call(*line)
        said = outcome.out + outcome.error
        assert outcome.code == 2 or "--score" in line, outcome
        assert "Traceback" not in said and TOKEN not in said, outcome
    assert TOKEN not in run.submissions_json.read_text()


def test_weights_of_a_stranger_are_those_of_an_ensemble(run):
    run.ensemble_json.write_text('{"members": [{"member": "fold_00", "weight": 1e999}], "missing": []}')
    with pytest.raises(UserError, match=r"ensemble.json is damaged \(.*\): run scripts/ensemble.py again"):
        ensemble.trained_models(run)
