"""A run directory or data from a stranger runs no code; credentials are in no argument and no traceback."""

import base64
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
from conftest import THREADS
from kaggle_server import forget_client, refused
from stages import write_picture

from digit_recognizer import recipes
from digit_recognizer.files import UserError, commit, write_json
from digit_recognizer.kaggle import submissions
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


# What a saved network may hold in the place of a layer or of a part of one.
FOREIGN = {
    "a class of a module": {"module": "innocent", "class_name": "Evil", "config": {}, "registered_name": None},
    "a function of Keras": {
        **{"module": "keras.utils", "class_name": "function", "config": "get_file"},
        "registered_name": "get_file",
    },
    "a lambda": {"class_name": "__lambda__", "config": {"value": ["4wAA", None, None]}},
}


def put_into_config(path, part):
    """Puts a part into the config.json of a model.keras: as the second layer, and as an initializer."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    layers = config["config"]["layers"]
    layers[1].update(part)
    next(layer for layer in layers if layer["class_name"] == "Dense")["config"]["kernel_initializer"] = part
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


@pytest.mark.parametrize("part", FOREIGN.values(), ids=FOREIGN)
def test_the_configuration_of_a_saved_network_is_not_built(run, part, call, tmp_path, monkeypatch):
    """The network comes from the recipe, and takes only its weights from the file."""
    (tmp_path / "innocent.py").write_text(f"import os\nos.mkdir({str(tmp_path / 'ran')!r})\n")
    monkeypatch.syspath_prepend(tmp_path)
    line = ("predict", write_picture(tmp_path / "digit.png"), "--output", run.folder)
    expected = call(*line)
    put_into_config(run.folder / "fold_00/model.keras", part)
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
    np.save(run.folder / name, array, allow_pickle=True)
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


TOKEN = "planted-token-0123456789"
ARGUMENTS = []  # of every process that this one has started, while it is listened to


def plant(kind, tmp_path, monkeypatch):
    """Puts the token where the client looks for it."""
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY", "KAGGLE_ENABLE_OAUTH"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "home/.kaggle"
    folder.mkdir(parents=True)
    if kind == "variable":
        monkeypatch.setenv("KAGGLE_API_TOKEN", TOKEN)
    elif kind == "file":
        (folder / "access_token").write_text(f"{TOKEN}\n")
    elif kind == "kaggle.json":
        write_json(folder / "kaggle.json", {"username": "somebody", "key": TOKEN})
    elif kind == "oauth":
        values = {"username": "somebody", "access_token": TOKEN, "refresh_token": "refresh"}
        write_json(folder / "credentials.json", values | {"access_token_expiration": "2099-01-01T00:00:00+00:00"})
    else:
        monkeypatch.setenv("KAGGLE_USERNAME", "somebody")
        monkeypatch.setenv("KAGGLE_KEY", TOKEN)


def listen():
    """Collects the arguments of the processes that are started from now on; `ps` shows them to every user."""

    def hear(event, args):
        if event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.spawn"):
            ARGUMENTS.append(repr(args[:2]))  # not the environment, which only this user sees

    if not getattr(sys, "_arguments_are_heard", False):
        sys._arguments_are_heard = True
        sys.addaudithook(hear)
    ARGUMENTS.clear()


@pytest.fixture
def commands(light, run, server, tmp_path):
    """Every command that has to do with Kaggle; the run has a submission whose answer never came."""
    sent = ("2026-01-01T00:00:00+00:00", "digit-recognizer", "a" * 64, "mine [aaaaaaaa]", None)
    submissions.write_submissions(run, [submissions.Submission(*sent)])
    server.looks_until_scored = 0
    server.statuses *= 2
    places = ("--input", light[0], "--output", run.folder)
    kernel = ("kernel", "--output", tmp_path / "kernel", "--owner", "somebody")
    return [
        ("download", "--input", tmp_path / "downloaded"),
        ("submit", *places, "--yes"),
        ("submit", *places, "--score", "--no-wait"),
        kernel,
        (*kernel, "--fetch"),
        (*kernel, "--pack-only"),
    ]


@pytest.mark.parametrize("fault", ["none", "refused", "broken"])
@pytest.mark.parametrize("kind", ["variable", "file", "kaggle.json", "oauth", "key"])
def test_credentials_stay_out_of_everything(server, call, commands, run, tmp_path, monkeypatch, kind, fault):
    """Kaggle's answers hold the token too, as a careless server's might."""
    plant(kind, tmp_path, monkeypatch)
    monkeypatch.setenv("VERBOSE", "1")
    if fault == "refused":
        methods = ("DownloadDataFiles", "CreateSubmission", "SaveKernel", "GetKernelSessionStatus")
        server.faults = {method: (418, f"no {TOKEN}") for method in methods}
        server.score = {"status": "ERROR", "errorDescription": f"no {TOKEN}"}
        server.submissions = [{"looks": 9, "description": "mine [aaaaaaaa]"}]
    if fault == "broken":
        monkeypatch.setenv("HTTP_PROXY", f"http://somebody:{TOKEN}@127.0.0.1:1")
    basic = base64.b64encode(f"somebody:{TOKEN}".encode()).decode()
    listen()
    for line in commands:
        forget_client()
        outcome = call(*line)
        assert "Traceback" not in outcome.error and outcome.code in (0, 2), outcome
        assert outcome.code == (0 if fault == "none" else 2) or "--score" in line or "--pack-only" in line, outcome
        folders = (run.folder, tmp_path / "downloaded", tmp_path / "kernel")
        files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        texts = [path.read_bytes().decode(errors="replace") for path in files]
        text = "".join([outcome.out, outcome.error, *texts])
        assert TOKEN not in text and basic not in text, line
    commit()
    assert any("git" in each for each in ARGUMENTS)  # it does listen
    assert TOKEN not in "".join(ARGUMENTS)


@pytest.mark.parametrize("error", [RuntimeError, KeyError, OSError, requests.RequestException])
def test_no_error_of_the_client_tells_the_token(server, call, commands, run, tmp_path, monkeypatch, error):
    """Whatever it raises, with whatever message, wherever it sends something."""
    plant("variable", tmp_path, monkeypatch)

    def fail(*arguments, **options):
        raise error(f"Authorization: Bearer {TOKEN}")

    for line in commands:
        forget_client()
        with monkeypatch.context() as patch:
            patch.setattr(requests.Session, "send", fail)
            outcome = call(*line)
        said = outcome.out + outcome.error
        assert outcome.code == 2 or "--score" in line or "--pack-only" in line, outcome
        assert "Traceback" not in said and TOKEN not in said, outcome
    assert TOKEN not in run.submissions_json.read_text()
