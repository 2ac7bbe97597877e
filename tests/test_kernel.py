"""The project as a Kaggle kernel: packed, run as Kaggle runs it, pushed, followed and fetched."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile

import pytest
from conftest import LIGHT, ROOT, arrays
from kaggle_server import refused

from digit_recognizer.files import read_json
from digit_recognizer.training import backend

METADATA = "kernel-metadata.json"
SCRIPT, NOTEBOOK = "digit_recognizer_kernel.py", "digit_recognizer_kernel.ipynb"


@pytest.fixture
def pack(call, tmp_path):
    """Packs a kernel into tmp_path and returns its metadata and its code, of a notebook as one program."""

    def pack(*options):
        outcome = call("kernel", "--pack-only", "--output", tmp_path, *options)
        assert outcome.code == 0, outcome
        metadata = read_json(tmp_path / METADATA)
        code = (tmp_path / metadata["code_file"]).read_text()
        if metadata["kernel_type"] == "notebook":
            cells = json.loads(code)["cells"]
            code = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "code")
        return metadata, code

    return pack


def session(folder, code, **mounts):
    """Runs a packed kernel as Kaggle does, in an empty folder beside read-only inputs; returns what it prints."""
    inputs, working = folder / "input", folder / "working"
    working.mkdir(parents=True)
    for name, source in mounts.items():
        shutil.copytree(source, inputs / name)
    before = {path: path.stat().st_mtime_ns for path in inputs.rglob("*")}
    environment = os.environ | {"DIGITS_KAGGLE_ROOT": str(folder)}
    run = subprocess.run([sys.executable, code], cwd=working, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert {path: path.stat().st_mtime_ns for path in inputs.rglob("*")} == before
    return run.stdout


def test_packed_kernels_run_and_give_the_submission_of_the_checkout(light, call, tmp_path):
    """One session ends with a fold missing; a later one, of the other layout, goes on from its output."""
    csvs, run = light
    for name, options in (("first", ("--fold", "0")), ("later", ("--resume-from", tmp_path / "kaggle/input"))):
        assert call("kernel", "--pack-only", "--output", tmp_path / name, "--", *LIGHT, *options).code == 0
    first, later = (tmp_path / name / SCRIPT for name in ("first", "later"))
    said = session(tmp_path / "before", first, **{"competitions/digit-recognizer": csvs})
    assert "fold_01" in said and "Installing" not in said
    mounts = {"digit-recognizer": csvs, "notebooks/me/before": tmp_path / "before/working"}
    said = session(tmp_path / "kaggle", later, **mounts)
    assert "out-of-fold accuracy" in said
    assert arrays(tmp_path / "kaggle/working") == arrays(run)
    assert (tmp_path / "kaggle/working/report/curves.png").exists()


def test_a_packed_notebook_runs_and_ends_with_the_report(light, pack, tmp_path):
    csvs, run = light
    metadata, code = pack("--notebook", "--", "--resume-from", run)
    assert (metadata["kernel_type"], metadata["code_file"]) == ("notebook", NOTEBOOK)
    display = tmp_path / "modules/IPython/display.py"  # stands for a notebook's own
    display.parent.mkdir(parents=True)
    (display.parent / "__init__.py").write_text("")
    display.write_text("def shown(*parts, **options):\n    print('displayed')\n\ndisplay = HTML = Image = shown\n")
    (tmp_path / "cells.py").write_text(f"import sys\nsys.path.insert(0, {str(display.parents[1])!r})\n{code}")
    said = session(tmp_path / "kaggle", tmp_path / "cells.py", **{"digit-recognizer": csvs})
    assert "out-of-fold accuracy" in said and said.rstrip().endswith("displayed")
    assert arrays(tmp_path / "kaggle/working") == arrays(run)


@pytest.mark.parametrize("form", [[], ["--notebook"]])
def test_a_mistake_ends_the_kernel(pack, csvs, tmp_path, form):
    """A script with the exit code, a notebook with an exception: SystemExit would not fail it."""
    _, code = pack(*form, "--", "--epochs", 0)
    (tmp_path / "code.py").write_text(code)
    csvs.rename(tmp_path / "input")
    environment = os.environ | {"DIGITS_KAGGLE_ROOT": str(tmp_path)}
    run = subprocess.run([sys.executable, tmp_path / "code.py"], env=environment, capture_output=True, text=True)
    assert "epochs=0: it must be at least 1" in run.stdout
    assert "RuntimeError: run_all.sh failed" in run.stderr if form else run.returncode == 2


@pytest.mark.parametrize(
    ("accelerator", "shape", "gpu", "tpu"),
    [("none", "", False, False), ("t4x2", "NvidiaTeslaT4", True, False), ("tpu", "TpuV5E8", False, True)],
)
def test_metadata(pack, accelerator, shape, gpu, tpu):
    options = ("--accelerator", accelerator, "--previous", "me/before", "--owner", "me")
    metadata, code = pack(*options, "--title", "Ziffern für Anna!")
    assert (metadata["machine_shape"], metadata["enable_gpu"], metadata["enable_tpu"]) == (shape, gpu, tpu)
    assert metadata["id"] == "me/ziffern-fur-anna" and metadata["title"] == "Ziffern für Anna!"
    assert metadata["enable_internet"] is False and metadata["is_private"] is True
    assert metadata["competition_sources"] == ["digit-recognizer"]
    assert metadata["kernel_sources"] == ["me/before"]
    assert "['--time-budget', '11h', '--resume-from', '/kaggle/input']" in code
    assert str(ROOT) not in code


def test_options_that_are_given_are_not_overridden(pack):
    given = ["--time-budget=5h", "--resume-from=/kaggle/input/mine"]
    assert f"OPTIONS = {given}\n" in pack("--previous", "me/before", "--", *given)[1]
    assert "OPTIONS = ['--time-budget', '5h']\n" in pack("--", "--time-budget", "5h")[1]


@pytest.mark.parametrize("title", ['Digits """ + print(1/0) + """ yes', "Digits\nprint(1/0)", "Digits {package} \\"])
@pytest.mark.parametrize("form", [[], ["--notebook"]])
def test_a_title_is_no_code(pack, title, form):
    metadata, code = pack("--title", title, *form, "--", "it's\n\U0001f600")
    names = {}
    exec(code[: code.index("PACKAGE")], names)  # the title, the imports and OPTIONS
    assert metadata["title"] == title
    assert names["OPTIONS"] == ["it's\n\U0001f600", "--time-budget", "11h"]
    compile(code, "kernel", "exec")


def test_what_is_packed(pack):
    """The package whole, with its templates, the scripts and the requirements, and nothing else; twice the same."""
    _, code = pack()
    assert pack()[1] == code
    names = {}
    exec(code[: code.index("temporary =")], names)
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(names["PACKAGE"]))) as file:
        packed = set(file.namelist())
    files = [path for path in (ROOT / "src/digit_recognizer").rglob("*") if path.is_file()]
    files = [path for path in files if "__pycache__" not in path.parts and not path.name.startswith(".")]
    files += [ROOT / "requirements.txt", *(ROOT / "scripts").glob("*.py"), *(ROOT / "scripts").glob("*.sh")]
    assert packed == {path.relative_to(ROOT).as_posix() for path in files}
    assert any(name.endswith(".j2") for name in packed)


def test_pushed_followed_and_fetched(server, call, tmp_path):
    outcome = call("kernel", "--output", tmp_path)
    assert (outcome.code, outcome.error) == (0, ""), outcome
    assert server.kernel["text"] == (tmp_path / SCRIPT).read_text()
    assert server.kernel["slug"] == "somebody/digit-recognizer-k-fold-ensemble"
    assert server.kernel["machineShape"] == "NvidiaTeslaT4" and server.kernel["enableInternet"] is False
    states = [line.split()[-1] for line in outcome.out.splitlines() if line.startswith("waiting for the kernel, ")]
    assert states == ["queued", "running", "complete"]
    assert {path.name for path in (tmp_path / "output").iterdir()} >= {"submission.csv", "cv_report.json"}


def test_a_pushed_notebook_that_is_fetched_later(server, call, tmp_path):
    outcome = call("kernel", "--notebook", "--output", tmp_path, "--no-wait")
    assert outcome.code == 0 and "kaggle.com/code/somebody/" in outcome.out and "--fetch" in outcome.out
    assert server.kernel["kernelType"] == "notebook" and not server.asked_for("GetKernelSessionStatus")
    sent, written = json.loads(server.kernel["text"]), json.loads((tmp_path / NOTEBOOK).read_text())
    assert sent == written and (written["nbformat"], len(written["cells"])) == (4, 4)
    outcome = call("kernel", "--output", tmp_path, "--fetch")
    assert outcome.code == 0 and f"its output is in {tmp_path / 'output'}" in outcome.out
    assert len(server.asked_for("SaveKernel")) == 1
    assert refused(call("kernel", "--fetch", "--no-wait"), "leave out --pack-only and --no-wait")


def test_the_outputs_of_two_kernels_stay_apart(server, call, tmp_path):
    (tmp_path / "output/fold_09").mkdir(parents=True)
    (tmp_path / "output/fold_09/metrics.json").write_text("{}")
    for number in (1, 2):
        server.statuses = ["COMPLETE"]
        outcome = call("kernel", "--output", tmp_path, "--fetch")
        assert outcome.code == 0 and f"an earlier kernel is {tmp_path / f'output_{number}'} now" in outcome.out
    assert (tmp_path / "output_1/fold_09/metrics.json").exists()
    assert (tmp_path / "output_2/submission.csv").exists() and not (tmp_path / "output/fold_09").exists()


def test_an_output_that_breaks_off_starts_no_second_kernel(server, call, tmp_path):
    server.statuses = ["COMPLETE"] * 2
    server.output["lost.csv"] = None  # its address answers 404
    outcome = call("kernel", "--output", tmp_path)
    assert refused(outcome, "answers 404", "with --fetch the same command goes on and starts no second kernel")
    assert not [path for path in tmp_path.iterdir() if "output" in path.name]
    del server.output["lost.csv"]
    assert call("kernel", "--output", tmp_path, "--fetch").code == 0
    assert len(server.asked_for("SaveKernel")) == 1


def test_a_kernel_of_somebody_else(server, call, tmp_path):
    """The client names another cause."""
    for method in ("GetKernelSessionStatus", "ListKernelSessionOutput"):
        server.faults, server.statuses = {method: (403, "")}, ["COMPLETE"]
        words = ("(403)", "is --owner your name at Kaggle?", "with --fetch")
        assert refused(call("kernel", "--output", tmp_path, "--fetch"), *words)


def test_what_goes_wrong_at_kaggle(server, call, tmp_path):
    server.statuses = ["RUNNING", {"status": "ERROR", "failureMessage": "out of memory"}]
    assert refused(call("kernel", "--output", tmp_path), "ended: error out of memory", "its log is at")
    server.saved = {"error": "Maximum batch GPU session count reached"}
    assert refused(call("kernel", "--output", tmp_path), "does not take the kernel", "Maximum batch GPU")
    server.saved = {"invalidCompetitionSources": ["digit-recognizer"]}
    assert refused(call("kernel", "--output", tmp_path), "without digit-recognizer: accept the rules")
    assert refused(call("kernel", "--output", tmp_path, "--title", "!!"), "at least five letters")


def test_a_kernel_is_followed_though_some_requests_fail(server, call, tmp_path):
    """A session lasts hours; Kaggle or the network may be away for a while."""
    server.statuses = ["RUNNING"] * 3 + ["COMPLETE"]
    server.passing_faults = {"GetKernelSessionStatus": [None, (503, ""), (503, "")]}
    outcome = call("kernel", "--output", tmp_path)
    assert outcome.code == 0 and "answers 503" in outcome.out and "its output is in" in outcome.out


def test_a_tpu_session_takes_jax(monkeypatch):
    """TensorFlow is there too, but built for the CPU alone; JAX brings libtpu."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert backend.choose() == "jax"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "libtpu" else name)
    assert backend.choose() == "tensorflow"
