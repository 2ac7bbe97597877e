"""The project as a Kaggle kernel: packed, run as Kaggle runs it, pushed, followed and fetched."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT, TINY, arrays, finish, start
from kaggle_server import refused

from digit_recognizer import backend, kernel
from digit_recognizer.run import read_json


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(kernel, "FIRST_PAUSE", 0.01)


def test_packed_kernel_runs_as_it_is_and_gives_the_same_submission(call, csvs, tmp_path):
    outcome = call("kernel", "--pack-only", "--output", tmp_path / "packed", "--", *TINY)
    assert outcome.code == 0 and "digit_recognizer_kernel.py" in outcome.out
    session = tmp_path / "kaggle"
    (session / "working").mkdir(parents=True)
    (session / "input/competitions").mkdir(parents=True)
    csvs.rename(session / "input/competitions/digit-recognizer")
    code = tmp_path / "packed" / kernel.CODE_FILE
    environment = os.environ | {"DIGITS_KAGGLE_ROOT": str(session)}
    run = subprocess.run(
        [sys.executable, code], cwd=session / "working", env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "out-of-fold accuracy" in run.stdout and "Installing" not in run.stdout

    places = ("--input", session / "input/competitions/digit-recognizer", "--output", tmp_path / "run")
    for name, options in (("train", TINY), ("ensemble", ())):
        assert finish(start(name, *places, *options)).code == 0
    assert arrays(session / "working") == arrays(tmp_path / "run")


def test_a_mistake_ends_the_kernel_with_its_code(call, tmp_path):
    call("kernel", "--pack-only", "--output", tmp_path, "--", "--epochs", 0)
    environment = os.environ | {"DIGITS_KAGGLE_ROOT": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, tmp_path / kernel.CODE_FILE], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 2 and "epochs=0: it must be at least 1" in run.stdout


@pytest.mark.parametrize(
    ("accelerator", "shape", "gpu", "tpu"),
    [("none", "", False, False), ("t4x2", "NvidiaTeslaT4", True, False), ("tpu", "TpuV5E8", False, True)],
)
def test_what_kaggle_is_told(call, tmp_path, accelerator, shape, gpu, tpu):
    options = (
        "--accelerator",
        accelerator,
        "--previous",
        "me/before",
        "--owner",
        "me",
        "--title",
        "My Digits!",
    )
    assert call("kernel", "--pack-only", "--output", tmp_path, *options).code == 0
    told = read_json(tmp_path / kernel.METADATA)
    assert (told["machine_shape"], told["enable_gpu"], told["enable_tpu"]) == (shape, gpu, tpu)
    assert told["id"] == "me/my-digits" and told["enable_internet"] is False and told["is_private"] is True
    assert told["competition_sources"] == ["digit-recognizer"] and told["kernel_sources"] == ["me/before"]
    code = (tmp_path / kernel.CODE_FILE).read_text()
    assert '["--time-budget", "11h", "--resume-from", "/kaggle/input"]' in code
    assert str(ROOT) not in code


def test_packing_twice_gives_the_same_bytes(call, tmp_path):
    for name in ("one", "two"):
        call("kernel", "--pack-only", "--output", tmp_path / name)
    one, two = ((tmp_path / name / kernel.CODE_FILE).read_bytes() for name in ("one", "two"))
    assert one == two


def test_pushed_followed_and_fetched(server, call, fast, tmp_path):
    outcome = call("kernel", "--output", tmp_path)
    assert (outcome.code, outcome.error) == (0, ""), outcome
    assert server.kernel["text"] == (tmp_path / kernel.CODE_FILE).read_text()
    assert server.kernel["slug"] == "somebody/digit-recognizer-k-fold-ensemble"
    assert server.kernel["machineShape"] == "NvidiaTeslaT4" and server.kernel["enableInternet"] is False
    assert [line.split()[-1] for line in outcome.out.splitlines()[2:5]] == ["queued", "running", "complete"]
    assert {path.name for path in (tmp_path / "output").iterdir()} >= {"submission.csv", "cv_report.json"}


def test_no_wait(server, call, tmp_path):
    outcome = call("kernel", "--output", tmp_path, "--no-wait")
    assert outcome.code == 0 and "kaggle.com/code/somebody/" in outcome.out
    assert not server.asked_for("GetKernelSessionStatus")


def test_what_goes_wrong_at_kaggle(server, call, fast, tmp_path):
    server.statuses = ["RUNNING", {"status": "ERROR", "failureMessage": "out of memory"}]
    assert refused(call("kernel", "--output", tmp_path), "ended with error: out of memory", "its log is at")
    server.saved = {"error": "Maximum batch GPU session count reached"}
    assert refused(call("kernel", "--output", tmp_path), "does not take the kernel", "Maximum batch GPU")
    server.saved = {"invalidCompetitionSources": ["digit-recognizer"]}
    assert refused(call("kernel", "--output", tmp_path), "without digit-recognizer: accept the rules")
    assert refused(call("kernel", "--output", tmp_path, "--title", "!!"), "at least five letters")


def test_a_tpu_session_takes_jax(monkeypatch):
    """TensorFlow is there too, but built for the CPU alone; JAX brings libtpu."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert backend.chosen() == "jax"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "libtpu" else name)
    assert backend.chosen() == "tensorflow"
