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
from digit_recognizer.kaggle import packing
from digit_recognizer.kaggle.packing import METADATA, NOTEBOOK, SCRIPT
from digit_recognizer.training import backend


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
    first, later = (tmp_path / name / SCRIPT for name in ("first", "later"))
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
    run = subprocess.run([sys.executable, tmp_path / SCRIPT], env=environment, capture_output=True, text=True)
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
    told = read_json(tmp_path / METADATA)
    assert (told["machine_shape"], told["enable_gpu"], told["enable_tpu"]) == (shape, gpu, tpu)
    assert told["id"] == "me/my-digits" and told["enable_internet"] is False and told["is_private"] is True
    assert told["competition_sources"] == ["digit-recognizer"] and told["kernel_sources"] == ["me/before"]
    code = (tmp_path / SCRIPT).read_text()
    assert "['--time-budget', '11h', '--resume-from', '/kaggle/input']" in code
    assert str(ROOT) not in code


def test_packing_twice_gives_the_same_bytes(call, tmp_path):
    for name in ("one", "two"):
        call("kernel", "--pack-only", "--output", tmp_path / name)
    one, two = ((tmp_path / name / SCRIPT).read_bytes() for name in ("one", "two"))
    assert one == two


def test_pushed_followed_and_fetched(server, call, tmp_path):
    outcome = call("kernel", "--output", tmp_path)
    assert (outcome.code, outcome.error) == (0, ""), outcome
    assert server.kernel["text"] == (tmp_path / SCRIPT).read_text()
    assert server.kernel["slug"] == "somebody/digit-recognizer-k-fold-ensemble"
    assert server.kernel["machineShape"] == "NvidiaTeslaT4" and server.kernel["enableInternet"] is False
    waits = [line for line in outcome.out.splitlines() if line.startswith("waiting for the kernel, 00:00: ")]
    assert [line.split()[-1] for line in waits] == ["queued", "running", "complete"]
    assert {path.name for path in (tmp_path / "output").iterdir()} >= {"submission.csv", "cv_report.json"}


def test_pushed_once_and_fetched_later(server, call, tmp_path):
    outcome = call("kernel", "--output", tmp_path, "--no-wait")
    assert outcome.code == 0 and "kaggle.com/code/somebody/" in outcome.out and "--fetch" in outcome.out
    assert not server.asked_for("GetKernelSessionStatus")
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
        assert outcome.code == 0 and f"of before is {tmp_path / f'output_{number}'} now" in outcome.out
    assert (tmp_path / "output_1/fold_09/metrics.json").exists() and (
        tmp_path / "output_2/submission.csv"
    ).exists()
    assert not (tmp_path / "output/fold_09").exists()


def test_an_output_that_breaks_off_starts_no_second_kernel(server, call, tmp_path):
    server.statuses = ["COMPLETE"] * 2
    server.output["lost.csv"] = None  # its address answers 404
    outcome = call("kernel", "--output", tmp_path)
    assert refused(
        outcome, "answers 404", "with --fetch the same command goes on, and starts no second kernel"
    )
    assert not [path for path in tmp_path.iterdir() if "output" in path.name]
    del server.output["lost.csv"]
    assert call("kernel", "--output", tmp_path, "--fetch").code == 0
    assert len(server.asked_for("SaveKernel")) == 1


def test_a_kernel_that_is_not_ones_own(server, call, tmp_path):
    """The client has words of its own for it, which name another cause."""
    for method in ("GetKernelSessionStatus", "ListKernelSessionOutput"):
        server.faults, server.statuses = {method: (403, "")}, ["COMPLETE"]
        assert refused(
            call("kernel", "--output", tmp_path, "--fetch"), "(403)", "is --owner your name there?"
        )


def test_what_goes_wrong_at_kaggle(server, call, tmp_path):
    server.statuses = ["RUNNING", {"status": "ERROR", "failureMessage": "out of memory"}]
    assert refused(call("kernel", "--output", tmp_path), "ended with error: out of memory", "its log is at")
    server.saved = {"error": "Maximum batch GPU session count reached"}
    assert refused(call("kernel", "--output", tmp_path), "does not take the kernel", "Maximum batch GPU")
    server.saved = {"invalidCompetitionSources": ["digit-recognizer"]}
    assert refused(call("kernel", "--output", tmp_path), "without digit-recognizer: accept the rules")
    assert refused(call("kernel", "--output", tmp_path, "--title", "!!"), "at least five letters")


def test_a_kernel_is_followed_though_some_looks_fail(server, call, tmp_path):
    """A session lasts hours; Kaggle or the network may be away for a minute."""
    server.statuses = ["RUNNING"] * 3 + ["COMPLETE"]
    faults = iter([None, (503, ""), (503, ""), None, None, None])

    class Faults(dict):
        def __contains__(self, name):
            if name != "GetKernelSessionStatus":
                return False
            self.next = next(faults)
            return self.next is not None

        def __getitem__(self, name):
            return self.next

    server.faults = Faults()
    outcome = call("kernel", "--output", tmp_path)
    assert outcome.code == 0 and "answers 503" in outcome.out and "its output is in" in outcome.out
    server.faults = {"GetKernelSessionStatus": (503, "")}
    assert refused(call("kernel", "--output", tmp_path), "answers 503", "with --fetch")


def test_what_the_user_gives_is_not_overridden(call, tmp_path):
    given = ["--time-budget=5h", "--resume-from=/kaggle/input/mine"]
    assert packing.training_options(given, previous=True) == given
    assert packing.training_options(["--time-budget", "5h"], previous=False) == ["--time-budget", "5h"]
    call("kernel", "--pack-only", "--output", tmp_path, "--", "--time-budget=5h")
    code = (tmp_path / SCRIPT).read_text()
    assert "OPTIONS = ['--time-budget=5h']" in code and "'11h'" not in code


@pytest.mark.parametrize(
    "title", ['Digits """ + print(1/0) + """ yes', "Digits\nprint(1/0)", "Digits {package} \\"]
)
@pytest.mark.parametrize("form", [[], ["--notebook"]])
def test_a_title_is_no_code(call, tmp_path, title, form):
    outcome = call(
        "kernel", "--pack-only", "--output", tmp_path, "--title", title, *form, "--", "it's\n\U0001f600"
    )
    assert outcome.code == 0 and read_json(tmp_path / METADATA)["title"] == title
    code = program(tmp_path / NOTEBOOK) if form else (tmp_path / SCRIPT).read_text()
    options, names = code[: code.index("PACKAGE")], {}
    exec(options, names)  # the title, the imports and OPTIONS
    assert names["OPTIONS"] == ["it's\n\U0001f600", "--time-budget", "11h"]
    compile(code, "kernel", "exec")


def program(notebook):
    """The code cells of a notebook, in order, as one program."""
    cells = json.loads(notebook.read_text())["cells"]
    return "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "code")


def test_a_packed_notebook_runs_and_ends_with_the_report(light, call, tmp_path):
    csvs, run = light
    outcome = call("kernel", "--pack-only", "--notebook", "--output", tmp_path, "--", "--resume-from", run)
    assert outcome.code == 0 and NOTEBOOK in outcome.out
    metadata = read_json(tmp_path / METADATA)
    assert (metadata["kernel_type"], metadata["code_file"]) == ("notebook", NOTEBOOK)
    display = tmp_path / "modules/IPython/display.py"  # stands for a notebook's own
    display.parent.mkdir(parents=True)
    (display.parent / "__init__.py").write_text("")
    display.write_text(
        "def shown(*parts, **options):\n    print('displayed')\n\ndisplay = HTML = Image = shown\n"
    )
    code = f"import sys\nsys.path.insert(0, {str(display.parents[1])!r})\n" + program(tmp_path / NOTEBOOK)
    (tmp_path / "cells.py").write_text(code)
    said = session(tmp_path / "kaggle", tmp_path / "cells.py", **{"digit-recognizer": csvs})
    assert "out-of-fold accuracy" in said and said.rstrip().endswith("displayed")
    assert arrays(tmp_path / "kaggle/working") == arrays(run)


def test_a_pushed_notebook(server, call, tmp_path):
    assert call("kernel", "--notebook", "--no-wait", "--output", tmp_path).code == 0
    assert server.kernel["kernelType"] == "notebook"
    sent, written = json.loads(server.kernel["text"]), json.loads((tmp_path / NOTEBOOK).read_text())
    assert sent == written and (written["nbformat"], len(written["cells"])) == (4, 4)


def test_what_is_packed(call, tmp_path):
    """The package whole, with its templates, the scripts and the requirements, and nothing else."""
    call("kernel", "--pack-only", "--output", tmp_path)
    names = {}
    code = (tmp_path / SCRIPT).read_text()
    exec(code[: code.index("with tempfile")], names)
    with zipfile.ZipFile(io.BytesIO(base64.b64decode(names["PACKAGE"]))) as file:
        packed = set(file.namelist())
    package = ROOT / "src/digit_recognizer"
    there = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    there = [path for path in there if not path.name.startswith(".")]
    there += [ROOT / "requirements.txt", *(ROOT / "scripts").glob("*.py"), *(ROOT / "scripts").glob("*.sh")]
    assert packed == {path.relative_to(ROOT).as_posix() for path in there}
    assert any(name.endswith(".j2") for name in packed)


def test_the_address_of_a_title_with_accents(call, tmp_path):
    call("kernel", "--pack-only", "--output", tmp_path, "--title", "Ziffern für Anna")
    assert read_json(tmp_path / METADATA)["id"] == "OWNER/ziffern-fur-anna"


def test_a_tpu_session_takes_jax(monkeypatch):
    """TensorFlow is there too, but built for the CPU alone; JAX brings libtpu."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    assert backend.choose() == "jax"
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "libtpu" else name)
    assert backend.choose() == "tensorflow"
