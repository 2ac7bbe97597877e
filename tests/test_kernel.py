"""The project as a Kaggle kernel: packed, run as Kaggle runs it, pushed, followed and fetched."""

import os
import shutil
import subprocess
import sys

import pytest
from conftest import LIGHT, ROOT, arrays
from kaggle_server import refused

from digit_recognizer.files import read_json
from digit_recognizer.kaggle import kernel
from digit_recognizer.training import backend


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(kernel, "FIRST_PAUSE", 0.01)


def session(folder, code, **mounts):
    """Runs a packed kernel as Kaggle does, in an empty folder beside read-only inputs; returns what it says."""
    inputs, working = folder / "input", folder / "working"
    working.mkdir(parents=True)
    for name, source in mounts.items():
        shutil.copytree(source, inputs / name)
    for path in [inputs, *inputs.rglob("*")]:
        path.chmod(path.stat().st_mode & ~0o222)
    before = {path: path.stat().st_mtime_ns for path in inputs.rglob("*")}  # root can write all the same
    environment = os.environ | {"DIGITS_KAGGLE_ROOT": str(folder)}
    run = subprocess.run([sys.executable, code], cwd=working, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert {path: path.stat().st_mtime_ns for path in inputs.rglob("*")} == before
    return run.stdout


def test_packed_kernels_run_as_they_are_and_give_the_submission_of_the_checkout(light, call, tmp_path):
    """One session that ends with a fold missing, and a later one, of the other layout, that goes on from its output."""
    csvs, run = light
    for name, options in (
        ("first", ("--fold", "0")),
        ("later", ("--resume-from", tmp_path / "kaggle/input")),
    ):
        outcome = call("kernel", "--pack-only", "--output", tmp_path / name, "--", *LIGHT, *options)
        assert outcome.code == 0 and "digit_recognizer_kernel.py" in outcome.out
    first, later = (tmp_path / name / kernel.CODE_FILE for name in ("first", "later"))
    said = session(tmp_path / "before", first, **{"competitions/digit-recognizer": csvs})
    assert "not finished, and not in it: fold_01" in said and "Installing" not in said
    mounts = {"digit-recognizer": csvs, "notebooks/me/before": tmp_path / "before/working"}
    said = session(tmp_path / "kaggle", later, **mounts)
    assert "finished before" in said and "out-of-fold accuracy" in said
    assert arrays(tmp_path / "kaggle/working") == arrays(run)
    assert (tmp_path / "kaggle/working/report/curves.png").exists()


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
