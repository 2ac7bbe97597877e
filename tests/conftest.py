"""Small data, and the scripts as a person runs them."""

import dataclasses
import os
import runpy
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from kaggle_server import KEY, KaggleServer, forget_client, packed
from sklearn.datasets import load_digits

from digit_recognizer import named_recipes, recipes
from digit_recognizer.data import digits
from digit_recognizer.data.digits import Dataset
from digit_recognizer.data.folds import split
from digit_recognizer.results import ensemble
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.plan import make_members
from digit_recognizer.training import backend, session
from digit_recognizer.training.session import TrainingOptions

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"

# One thread count for every training in this process: a backend takes it once.
THREADS = 2

# A run of the real recipe, shrunk to seconds.
TINY = ("--folds", "2", "--epochs", "2", "--batch-size", "16", "--threads", str(THREADS))

# The same of a network that is built and traced in a quarter of the time, for what is not about training.
LIGHT = ("--recipe", "dropout_mlp", *TINY)


backend.start(THREADS)  # before any test module imports Keras


def pytest_collection_modifyitems(items):
    for item in items:
        if item.get_closest_marker("accelerator") and not backend.find_accelerator():
            item.add_marker(pytest.mark.skip(reason="no accelerator is found"))


def pytest_addoption(parser):
    parser.addoption("--campaign", action="store_true", help="faults and damage by the thousand: about an hour")


def write_csvs(folder: Path, dataset: Dataset, test_ids=False, eol="\n") -> Path:
    """The three CSVs of a competition that holds `dataset`."""
    pixels = [f"pixel{number}" for number in range(digits.PIXELS)]

    def rows(names, first, images):
        table = np.column_stack([*first, images.reshape(len(images), -1).astype(str)])
        return [",".join(line) for line in ([*names, *pixels], *table)]

    ids = [dataset.ids] if test_ids else []
    files = {
        "train.csv": rows(["label"], [dataset.train_labels.astype(str)], dataset.train_images),
        "test.csv": rows(dataset.columns[: len(ids)], ids, dataset.test_images),
        "sample_submission.csv": [",".join(dataset.columns), *(f"{id},0" for id in dataset.ids)],
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, lines in files.items():
        (folder / name).write_text(eol.join(lines) + eol, newline="")
    return folder


@pytest.fixture(scope="session")
def dataset() -> Dataset:
    """80 labelled digits, 8 of each class, and 20 to predict."""
    whole = digits.sample()
    rows = np.sort(np.concatenate([np.flatnonzero(whole.train_labels == label)[:8] for label in range(10)]))
    ids = np.arange(1, 21).astype(str)
    return Dataset(whole.train_images[rows], whole.train_labels[rows], whole.test_images[:20], None, ids)


@pytest.fixture(scope="session")
def labelled(dataset) -> Dataset:
    """The same, as MNIST's own files have it: with labels in the test rows too."""
    labels = load_digits().target[1300:1320].astype(np.uint8)
    return dataclasses.replace(dataset, test_labels=labels, kind="mnist")


def write_npz(folder: Path, dataset: Dataset, **others) -> Path:
    """mnist.npz with that data, but for `others`."""
    arrays = {"x_train": dataset.train_images, "y_train": dataset.train_labels}
    arrays |= {"x_test": dataset.test_images, "y_test": dataset.test_labels}
    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "mnist.npz", **(arrays | others))
    return folder


@pytest.fixture
def csvs(dataset, tmp_path) -> Path:
    return write_csvs(tmp_path / "csvs", dataset)


@pytest.fixture(scope="session")
def recipe():
    return recipes.change(named_recipes.named("bn_cnn"), {"folds": 2, "epochs": 2, "batch_size": 16})


@pytest.fixture(scope="session")
def small_recipe(recipe):
    """The same with a network that is traced in half the time."""
    from keras import layers

    from digit_recognizer.training import networks

    def small_bn_cnn(recipe, layer_set):
        """All that makes a state of bn_cnn's: augmentation, normalisation and dropout."""
        pixels, x = networks.scaled_pixels(recipe, layer_set)
        x = layers.Conv2D(4, 3, strides=2)(x)
        x = layer_set.normalisation(momentum=recipe.batchnorm_momentum)(x)
        return networks.classifier(recipe, layer_set, pixels, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(networks.NETWORKS, "small_bn_cnn", small_bn_cnn)
        yield recipes.change(dataclasses.replace(recipe, network="small_bn_cnn", filters=()), {"hidden": (16,)})


@pytest.fixture(scope="session")
def folds(recipe, dataset):
    return members_in(Path("of no run"), split(dataset.train_labels, recipe))


def members_in(folder, table):
    """The members that a table of folds makes, with their folders in `folder`."""
    return list(make_members(table, folder))


@dataclass
class Outcome:
    code: int
    out: str
    error: str


@pytest.fixture(scope="session")
def whole_way(dataset, tmp_path_factory) -> tuple[Path, Path, Outcome]:
    """The CSVs, and what run_all.sh made of them with the options TINY: the run directory, and what was printed.

    It is started as a notebook starts it, with a MPLBACKEND that only the notebook's own Python has.
    """
    folder = tmp_path_factory.mktemp("whole_way")
    csvs = write_csvs(folder / "csvs", dataset)
    environment = {"VIRTUAL_ENV": sys.prefix, "MPLBACKEND": "module://of_a_notebook"}
    outcome = finish(start("run_all.sh", f"--input={csvs}", "--output", "run", *TINY, cwd=folder, **environment))
    assert (outcome.code, outcome.error) == (0, ""), outcome
    return csvs, folder / "run", outcome


@pytest.fixture(scope="session")
def finished(whole_way) -> tuple[Path, Path]:
    """The CSVs, and the directory of an undisturbed run on them."""
    return whole_way[:2]


@pytest.fixture(scope="session")
def light(dataset, tmp_path_factory) -> tuple[Path, Path]:
    """The CSVs, and the directory of an undisturbed run with the options LIGHT."""
    folder = tmp_path_factory.mktemp("light")
    csvs, run = write_csvs(folder / "csvs", dataset), Run(folder / "run")
    options = {"folds": 2, "epochs": 2, "batch_size": 16}
    session.train(run.folder, dataset, ["dropout_mlp"], options, TrainingOptions(threads=THREADS))
    ensemble.blend(run, [run], dataset, "equal")
    return csvs, run.folder


def train_member(recipe, dataset, member, folder, callbacks=(), identity="", **options):
    """Trains a member in `folder`, as the first of its process."""
    from digit_recognizer.training.fold import FoldTrainer

    trainer = FoldTrainer(recipe, len(member.train_rows))
    return trainer.train(at(member, folder), dataset, identity, callbacks, **options)


def at(member, folder):
    """The member with another folder."""
    return dataclasses.replace(member, folder=folder)


@pytest.fixture(scope="session", autouse=True)
def no_credentials(tmp_path_factory):
    """No test finds the Kaggle credentials, or the session, of whoever runs it."""
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "KAGGLE_API_TOKEN",
            "KAGGLE_API_V1_TOKEN",
            "KAGGLE_USERNAME",
            "KAGGLE_KEY",
            "KAGGLE_CONFIG_DIR",
            "KAGGLE_KERNEL_RUN_TYPE",
            "XDG_CONFIG_HOME",
            "DIGITS_KAGGLE_ROOT",
            "JPY_PARENT_PID",
        ):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest.fixture(autouse=True)
def own_home(monkeypatch, tmp_path):
    """Each test has a home of its own."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def server(monkeypatch, csvs, tmp_path):
    """The stand-in, to which this process's client goes, with credentials and without its long pauses."""
    server = KaggleServer()
    server.archive = packed(csvs)
    for name in ("NO_PROXY", "no_proxy", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    environment = {"KAGGLE_API_ENVIRONMENT": "LOCALHOST", "HTTP_PROXY": server.proxy}
    for name, value in (environment | {"KAGGLE_USERNAME": "somebody", "KAGGLE_KEY": KEY}).items():
        monkeypatch.setenv(name, value)
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    forget_client()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def call(monkeypatch, capsys):
    """Runs a script in this process: call("train", "--epochs", 2) -> Outcome."""

    def run(name, *arguments) -> Outcome:
        path = SCRIPTS / f"{name}.py"
        monkeypatch.setattr(sys, "argv", [str(path), *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as exit:
            runpy.run_path(str(path), run_name="__main__")
        return Outcome(exit.value.code, *capsys.readouterr())

    return run


def attend_to_ctrl_c() -> None:
    """Undoes in a new process what a suite in the background inherits and hands on: Ctrl-C is ignored there."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(name, *arguments, cwd=None, **environment) -> subprocess.Popen:
    """Starts a script as a process of its own: start("train", ...), or one of bash, start("run_all.sh", ...)."""
    is_bash = str(name).endswith(".sh")
    line = ["bash", SCRIPTS / name] if is_bash else [sys.executable, SCRIPTS / f"{name}.py"]
    return subprocess.Popen(
        [*line, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        env=os.environ | environment,
        preexec_fn=attend_to_ctrl_c,
    )


def finish(process: subprocess.Popen, timeout=900) -> Outcome:
    """Waits for a process, on a busy machine too: this many seconds are for one that hangs."""
    out, error = process.communicate(timeout=timeout)
    return Outcome(process.returncode, out, error)


def read_until(process: subprocess.Popen, text: str) -> None:
    """Reads what a process says up to a line with that text; fails where the process ends before it."""
    while text not in (line := process.stdout.readline()):
        assert line, finish(process)


def arrays(run: Path) -> dict[str, bytes]:
    """The bytes that must not depend on when a run was interrupted."""
    files = sorted([*run.rglob("*.npy"), run / "submission.csv"])
    return {str(path.relative_to(run)): path.read_bytes() for path in files}


@pytest.fixture(scope="session")
def campaign(pytestconfig) -> bool:
    """Whether the tests of faults and damage take place at full length."""
    return pytestconfig.getoption("--campaign")


def tell(text: str) -> None:
    """Prints what a part of a campaign came to; pytest's -rP shows it."""
    print(text)
