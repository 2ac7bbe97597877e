"""The project as a Kaggle kernel: packed, run as Kaggle runs it, pushed, followed and fetched."""

import base64
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile

import pytest
from conftest import LIGHT, ROOT, arrays
from kaggle_server import refused

from digit_recognizer.files import read_json
from digit_recognizer.kaggle.kernel import METADATA, NOTEBOOK


@pytest.fixture
def pack(call, tmp_path):
    """Packs a kernel into tmp_path and returns its metadata and the cells of its notebook."""

    def pack(*options):
        outcome = call("kernel", "--pack-only", "--output", tmp_path, *options)
        assert outcome.code == 0, outcome
        return read_json(tmp_path / METADATA), read_json(tmp_path / NOTEBOOK)["cells"]

    return pack


def sources(cells, kind="code") -> list[str]:
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == kind]


def options_of(cells) -> list[str]:
    """The options that the notebook gives to run_all.sh."""
    names = {}
    exec(sources(cells)[1].partition("\n")[0], names)
    return names["OPTIONS"]


def session(folder, notebook, **mounts):
    """Runs a notebook in Jupyter as Kaggle does, beside read-only inputs; returns the outputs of its cells."""
    inputs, working = folder / "input", folder / "working"
    working.mkdir(parents=True)
    for name, source in mounts.items():
        shutil.copytree(source, inputs / name)
    before = {path: path.stat().st_mtime_ns for path in inputs.rglob("*")}
    line = [sys.executable, "-m", "nbconvert", "--execute", "--allow-errors", "--to", "notebook", "--stdout", notebook]
    environment = os.environ | {"DIGITS_KAGGLE_ROOT": str(folder)}
    run = subprocess.run(line, cwd=working, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert {path: path.stat().st_mtime_ns for path in inputs.rglob("*")} == before
    cells = [cell for cell in json.loads(run.stdout)["cells"] if cell["cell_type"] == "code"]
    return [cell["outputs"] for cell in cells]


def printed(outputs) -> str:
    return "".join("".join(output["text"]) for output in outputs if output["output_type"] == "stream")


def test_packed_kernels_run_and_give_the_submission_of_the_checkout(light, call, tmp_path):
    """One session ends with a fold missing; a later one, of the other layout, goes on from its output."""
    csvs, run = light
    for name, options in (("first", ("--fold", "0")), ("later", ("--resume-from", tmp_path / "kaggle/input"))):
        outcome = call("kernel", "--pack-only", "--output", tmp_path / name, "--", *LIGHT, *options)
        assert outcome.code == 0 and f"--execute --to html {tmp_path / name / NOTEBOOK}" in outcome.out
    first, later = (tmp_path / name / NOTEBOOK for name in ("first", "later"))
    unpacked, trained, _ = session(tmp_path / "before", first, **{"competitions/digit-recognizer": csvs})
    assert not unpacked and "fold_01" in printed(trained) and "Installing" not in printed(trained)
    mounts = {"digit-recognizer": csvs, "notebooks/me/before": tmp_path / "before/working"}
    _, trained, [shown] = session(tmp_path / "kaggle", later, **mounts)
    assert printed(trained).count("out-of-fold accuracy 0.") == 1
    assert arrays(tmp_path / "kaggle/working") == arrays(run)
    page = "".join(shown["data"]["text/html"])
    assert page.startswith("<iframe srcdoc=") and page.count("<img src=") == 3
    assert 'sandbox="allow-scripts"' in page and "Content-Security-Policy" in page


def test_a_mistake_ends_the_kernel(csvs, pack, tmp_path):
    """With an exception: SystemExit would not fail a notebook."""
    pack("--", "--epochs", 0)
    _, outputs, _ = session(tmp_path / "kaggle", tmp_path / NOTEBOOK, **{"digit-recognizer": csvs})
    assert "epochs=0: it must be a whole number" in printed(outputs) and outputs[-1]["ename"] == "RuntimeError"


@pytest.mark.parametrize(
    ("accelerator", "shape", "gpu", "tpu"),
    [("none", "", False, False), ("t4x2", "NvidiaTeslaT4", True, False), ("tpu", "TpuV5E8", False, True)],
)
def test_metadata(pack, accelerator, shape, gpu, tpu):
    options = ("--accelerator", accelerator, "--previous", "me/before", "--owner", "me")
    metadata, cells = pack(*options, "--title", "Ziffern für Anna!")
    assert (metadata["machine_shape"], metadata["enable_gpu"], metadata["enable_tpu"]) == (shape, gpu, tpu)
    assert metadata["id"] == "me/ziffern-fur-anna" and metadata["title"] == "Ziffern für Anna!"
    assert metadata["enable_internet"] is False and metadata["is_private"] is True
    assert metadata["competition_sources"] == ["digit-recognizer"]
    assert metadata["kernel_sources"] == ["me/before"]
    assert options_of(cells) == ["--time-budget", "11h", "--resume-from", "/kaggle/input"]
    assert str(ROOT) not in "".join(sources(cells))


def test_options_that_are_given_are_not_overridden(pack):
    given = ["--time-budget=5h", "--resume-from=/kaggle/input/mine"]
    assert options_of(pack("--previous", "me/before", "--", *given)[1]) == given
    assert options_of(pack("--", "--time-budget", "5h")[1]) == ["--time-budget", "5h"]


@pytest.mark.parametrize("title", ["Digits\nprint(1/0)", "Digits OPTIONS = [] TITLE", "Digits <b> \\"])
def test_neither_a_title_nor_an_option_is_code(pack, title):
    metadata, cells = pack("--title", title, "--", "it's\n\U0001f600", "TITLE")
    assert metadata["title"] == title and len(sources(cells, "markdown")[0].splitlines()) == 4
    assert options_of(cells) == ["it's\n\U0001f600", "TITLE", "--time-budget", "11h"]


def test_what_is_packed(pack):
    """The package whole, with its templates, the scripts and the requirements, and nothing else; twice the same."""
    _, cells = pack()
    assert pack()[1] == cells
    names = {}
    exec(next(line for line in sources(cells)[0].splitlines() if line.startswith("PACKAGE")), names)
    with tarfile.open(fileobj=io.BytesIO(base64.b85decode(names["PACKAGE"]))) as archive:
        packed = set(archive.getnames())
    files = [path for path in (ROOT / "src/digit_recognizer").rglob("*") if path.is_file()]
    files = [path for path in files if "__pycache__" not in path.parts and not path.name.startswith(".")]
    files += [ROOT / "requirements.txt", *(ROOT / "scripts").glob("*.py"), *(ROOT / "scripts").glob("*.sh")]
    assert packed == {path.relative_to(ROOT).as_posix() for path in files}
    assert any(name.endswith(".j2") for name in packed)


def test_pushed_followed_and_fetched(server, call, tmp_path):
    outcome = call("kernel", "--output", tmp_path)
    assert (outcome.code, outcome.error) == (0, ""), outcome
    sent, written = json.loads(server.kernel["text"]), read_json(tmp_path / NOTEBOOK)  # the client writes it anew
    assert sources(sent["cells"]) == sources(written["cells"]) and len(sent["cells"]) == len(written["cells"]) == 7
    assert server.kernel["slug"] == "somebody/digit-recognizer-k-fold-ensemble"
    assert server.kernel["machineShape"] == "NvidiaTeslaT4" and server.kernel["enableInternet"] is False
    states = [line.split()[-1] for line in outcome.out.splitlines() if line.startswith("waiting for the kernel, ")]
    assert states == ["queued", "running", "complete"]
    assert {path.name for path in (tmp_path / "output").iterdir()} >= {"submission.csv", "cv_report.json"}


def test_a_pushed_kernel_that_is_fetched_later(server, call, tmp_path):
    outcome = call("kernel", "--output", tmp_path, "--no-wait")
    assert outcome.code == 0 and "kaggle.com/code/somebody/" in outcome.out and "--fetch" in outcome.out
    assert server.kernel["kernelType"] == "notebook" and not server.asked_for("GetKernelSessionStatus")
    outcome = call("kernel", "--output", tmp_path, "--fetch")
    assert outcome.code == 0 and f"its output is in {tmp_path / 'output'}" in outcome.out
    assert len(server.asked_for("SaveKernel")) == 1
    assert refused(call("kernel", "--fetch", "--no-wait"), "leave out --pack-only and --no-wait")


def test_an_output_of_several_pages_is_fetched_whole_or_not_at_all(server, call, tmp_path):
    """Client 2.0 can ask for the first page only."""
    server.statuses, server.files_on_a_page = ["COMPLETE"], 1
    outcome = call("kernel", "--output", tmp_path, "--fetch")
    names = sorted(path.name for path in tmp_path.glob("output/*.*"))
    if outcome.code == 0:
        assert names == ["cv_report.json", "digit-recognizer-k-fold-ensemble.log", "submission.csv"]
    else:
        assert refused(outcome, "failed with TypeError: pip install --upgrade kaggle") and not names


def test_the_outputs_of_two_kernels_stay_apart(server, call, tmp_path):
    (tmp_path / "output/fold_09").mkdir(parents=True)
    (tmp_path / "output/fold_09/metrics.json").write_text("{}")
    for number in (2, 3):
        server.statuses = ["COMPLETE"]
        outcome = call("kernel", "--output", tmp_path, "--fetch")
        assert outcome.code == 0 and f"its output is in {tmp_path / f'output_{number}'};" in outcome.out
        assert {path.name for path in (tmp_path / f"output_{number}").iterdir()} >= {"submission.csv"}
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["fold_09"]


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
