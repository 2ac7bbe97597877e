"""Setting up, and what is known of the place: Python, credentials, Kaggle's folders, the backend."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SCRIPTS, attend_to_ctrl_c, finish, start, write_npz

from digit_recognizer.data import paths
from digit_recognizer.files import UserError
from digit_recognizer.training import backend


def sourced(commands, path, **environment):
    """What bash says to `commands` after setup.sh, with only that folder's programs and the system's few."""
    program = f"set -euo pipefail; source {SCRIPTS}/setup.sh; {commands}"
    environment = {"PATH": str(path), "HOME": str(path)} | environment
    line = ["/bin/bash", "-c", program]
    return subprocess.run(line, capture_output=True, text=True, env=environment, preexec_fn=attend_to_ctrl_c)


@pytest.fixture
def programs(tmp_path):
    """A folder of programs for a PATH of its own."""
    for name in ("dirname", "basename", "sed", "cat"):
        (tmp_path / name).symlink_to(next(path for path in (f"/usr/bin/{name}", f"/bin/{name}") if Path(path).exists()))

    def add(name, text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)

    add.folder = tmp_path
    return add


@pytest.mark.parametrize("version", ["3.10", "3.14", None])
def test_a_python_that_fits_is_looked_for(programs, version):
    if version:
        programs("python3", f'case "$2" in *print*) echo {version} ;; *) exit 1 ;; esac')
    outcome = sourced("find_python", programs.folder)
    assert outcome.returncode == 2 and outcome.stderr.count("\n") == 1
    assert f"(found: {version or 'none'}): apt install python3.12 python3.12-venv" in outcome.stderr
    programs("python3.12", "exit 0")
    assert sourced("find_python; echo $BASE_PYTHON", programs.folder).stdout == "python3.12\n"


def test_python_without_venv(programs):
    programs(
        "python3", 'case "$2" in *ensurepip*) exit 1 ;; *print*) echo python3.11-venv ;; *packaging*) exit 1 ;; esac'
    )
    outcome = sourced(f"ROOT={programs.folder}; requirements() {{ :; }}; set_up", programs.folder)
    assert outcome.returncode == 2 and "has no venv: apt install python3.11-venv" in outcome.stderr


def test_kaggle_installs_nothing(programs):
    programs("python3", "exit 0")
    outcome = sourced("set_up; echo $PYTHON", programs.folder, KAGGLE_KERNEL_RUN_TYPE="Batch")
    assert outcome.stdout == "python3\n"


@pytest.mark.parametrize(
    ("chosen", "gpu", "expected"),
    [
        ("", False, "tensorflow>=2.20"),
        ("", True, "tensorflow[and-cuda]>=2.20"),
        ("jax", False, "jax>=0.7"),
        ("jax", True, "jax[cuda12]>=0.7"),
    ],
)
def test_requirements_follow_backend_and_gpu(programs, chosen, gpu, expected):
    if gpu:
        programs("nvidia-smi", "exit 0")
    lines = sourced("requirements", programs.folder, KERAS_BACKEND=chosen).stdout.splitlines()
    assert [line.partition("#")[0].strip() for line in lines if line.startswith(("tensorflow", "jax"))] == [expected]
    assert any(line.startswith("keras") for line in lines)


def installed(folder, **distributions):
    """A folder for PYTHONPATH with distributions: for each its version and what it requires."""
    for name, (version, *requires) in distributions.items():
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}", "Provides-Extra: and-cuda"]
        (folder / f"{name}-{version}.dist-info").mkdir(parents=True)
        (folder / f"{name}-{version}.dist-info/METADATA").write_text(
            "\n".join([*lines, *(f"Requires-Dist: {line}" for line in requires)]) + "\n"
        )
    return str(folder)


@pytest.mark.parametrize(
    ("wheels", "plain", "with_extra"),
    [
        ({}, True, False),  # TensorFlow without its CUDA wheels
        ({"some_cublas": ("12.9",)}, True, False),  # one of two
        ({"some_cublas": ("12.9",), "some_cudnn": ("8.0", 'deep; extra == "x"')}, True, False),  # too old
        ({"some_cublas": ("12.9",), "some_cudnn": ("9.5", 'deep; extra == "x"')}, True, False),
        ({"some_cublas": ("12.9",), "some_cudnn": ("9.5",)}, True, True),
        ({"some_cublas": ("12.9",), "some_cudnn": ("9.5", 'deep; extra == "x"'), "deep": ("1",)}, True, True),
    ],
)
def test_which_requirements_are_met(programs, tmp_path, wheels, plain, with_extra):
    """tensorflow[and-cuda] is not there before its CUDA wheels are."""
    requires = (
        'some-cublas<13,>=12.5; extra == "and-cuda"',
        'some-cudnn[x]>=9; extra == "and-cuda"',
        "not-looked-at>=1",
        'not-looked-at-either; python_version > "3"',
    )
    path = installed(tmp_path / "site", some_flow=("2.21", *requires), **wheels)

    def has(line):
        command = f"echo '{line}' | has_requirements {sys.executable}"
        return sourced(command, programs.folder, PYTHONPATH=path).returncode == 0

    assert has("numpy>=2.0 # a comment") and has("") and not has("numpy>=99") and not has("no-such-package>=1")
    assert has("some-flow>=2.20") == plain and not has("some-flow>=3")
    assert has("some-flow[and-cuda]>=2.20") == with_extra and not has("some-flow[and-cuda]>=3")


def test_a_gpu_machine_with_plain_tensorflow_installs_the_wheels(programs, tmp_path):
    programs("nvidia-smi", "exit 0")
    (tmp_path / "requirements.txt").write_text("tensorflow>=2.20\n")
    site = installed(tmp_path / "site", tensorflow=("2.21", 'some-cublas>=12; extra == "and-cuda"'))
    is_pip = '[ "$2" != pip ]'
    programs("venv/bin/python", f'{is_pip} || {{ echo "$@"; cat /dev/stdin; exit; }}\nexec {sys.executable} "$@"')
    programs("python3", "exit 0")

    def set_up():
        places = {"VIRTUAL_ENV": str(tmp_path / "venv"), "PYTHONPATH": site}
        return sourced(f"ROOT={tmp_path}; set_up", programs.folder, **places)

    outcome = set_up()
    assert outcome.returncode == 0 and "tensorflow[and-cuda]>=2.20" in outcome.stderr, outcome
    installed(tmp_path / "site", some_cublas=("12.9",))
    assert (set_up().returncode, set_up().stderr) == (0, "")


def test_credentials_are_found_in_the_clients_order(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home / "elsewhere"))

    def add(name):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text("{}")
        return str(home / name)

    assert paths.credentials_place() is None
    files = (".kaggle/credentials.json", ".config/kaggle/kaggle.json", ".kaggle/kaggle.json", "elsewhere/kaggle.json")
    for name in files:
        assert add(name) == paths.credentials_place()
    monkeypatch.setenv("KAGGLE_USERNAME", "x")
    monkeypatch.setenv("KAGGLE_KEY", "y")
    assert paths.credentials_place() == "KAGGLE_USERNAME and KAGGLE_KEY"
    token = add(".kaggle/access_token")
    assert paths.credentials_place() == token
    monkeypatch.setenv("KAGGLE_API_V1_TOKEN", add("session"))
    assert paths.credentials_place() == token
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert paths.credentials_place() == str(home / "session")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "z")
    assert paths.credentials_place() == "KAGGLE_API_TOKEN"


@pytest.mark.parametrize(
    ("files", "credentials", "given", "expected"),
    [
        ([], False, False, "sample"),
        ([], True, False, "download"),
        ([], True, True, "holds no data"),
        (["digit-recognizer.zip"], False, False, "digit-recognizer.zip is not a complete zip archive"),
        (["digit-recognizer.zip"], True, True, "digit-recognizer.zip is not a complete zip archive"),
        (["train.csv"], True, False, "test.csv is missing"),
    ],
)
def test_when_run_all_downloads(tmp_path, monkeypatch, capsys, files, credentials, given, expected):
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    folder = tmp_path / "input"
    folder.mkdir()
    for name in files:
        (folder / name).write_text("")
    if credentials:
        monkeypatch.setenv("KAGGLE_API_TOKEN", "x")
    chosen = folder if given else None
    assert paths.needs_download(chosen) == (expected == "download")
    if expected in ("sample", "download"):
        paths.check(chosen, None)
        assert capsys.readouterr().out == (f"{paths.SAMPLE_NOTICE}\n" if expected == "sample" else "")
    else:
        with pytest.raises(UserError, match=expected):
            paths.check(chosen, None)


def test_mistakes_are_answered_before_anything_is_installed(labelled, csvs, programs, tmp_path):
    """By run_all.sh with a Python that has no package, and whose environment cannot be made."""
    folder = write_npz(tmp_path / "input", labelled)
    (csvs / "test.csv").unlink()
    programs("python3", f'case "$*" in *ensurepip*) exit 1 ;; esac; exec {sys.executable} -S "$@"')
    environment = {"PATH": str(programs.folder), "HOME": str(tmp_path)}

    def run(*options):
        line = ["/bin/bash", SCRIPTS / "run_all.sh", *options, "--output", tmp_path / "run"]
        outcome = subprocess.run(line, capture_output=True, text=True, env=environment)
        assert (outcome.returncode, outcome.stdout, outcome.stderr.count("\n")) == (2, "", 1), outcome
        assert not (tmp_path / "run").exists()
        return outcome.stderr.partition(": error: ")[2]

    assert run(f"--input={csvs}").startswith(f"{csvs / 'test.csv'} is missing: ")
    good = ("--input", folder)
    assert run(*good, "--recipe", "fats") == "unknown recipe 'fats': did you mean fast?\n"
    assert run(*good, "--set", "rotaton=10").endswith("unknown field 'rotaton': did you mean rotation?\n")
    assert run(*good, "--tresholds", "1").startswith("unrecognized arguments: --tresholds 1: did you mean --threads?")
    assert run(*good, "--folds", "1").startswith("folds=1 leaves nothing to validate on")
    if not (SCRIPTS.parent / ".venv/bin/python").exists():
        assert "has no venv" in run(*good, "--recipe", "mlp")


def test_ctrl_c_while_installing(programs, tmp_path):
    """Ctrl-C reaches every process of the terminal; pip then fails."""
    (tmp_path / "requirements.txt").write_text("no-such-package\n")
    programs("venv/bin/python", '[ "$2" != pip ] || kill -INT $PPID\nexit 1')
    programs("python3", "exit 0")
    outcome = sourced(f"ROOT={tmp_path}; set_up; echo on", programs.folder, VIRTUAL_ENV=str(tmp_path / "venv"))
    assert (outcome.returncode, outcome.stdout) == (130, "")
    assert outcome.stderr.endswith("interrupted while installing; the same command installs the rest\n")


@pytest.mark.parametrize("option", ["--list", "--help", "-h"])
def test_run_all_lists_and_stops(csvs, tmp_path, option):
    """Whatever run is there: nothing is ensembled or reported anew."""
    outcome = finish(start("run_all.sh", option, "--input", csvs, "--output", tmp_path / "run", VIRTUAL_ENV=sys.prefix))
    assert (outcome.code, outcome.error) == (0, "")
    assert ("dropout_mlp" if option == "--list" else "--time-budget") in outcome.out
    assert not (tmp_path / "run").exists()


def test_a_notebooks_cell_is_no_terminal(monkeypatch):
    """IPython's `!` runs a command on a pseudo-terminal, whose bars would become thousands of lines of output."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert paths.on_terminal()
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert not paths.on_terminal()


def test_which_backend_is_taken(monkeypatch):
    def choose(name, *packages):
        monkeypatch.setenv("KERAS_BACKEND", name)
        monkeypatch.setattr("importlib.util.find_spec", lambda package: package if package in packages else None)
        return backend.choose()

    assert choose("", "keras", "jax", "tensorflow") == "tensorflow"
    assert choose("", "keras", "jax") == choose("jax", "keras", "jax", "tensorflow") == "jax"
    # a TPU session has TensorFlow too, but built for the CPU alone; JAX brings libtpu
    assert choose("", "keras", "jax", "tensorflow", "libtpu") == "jax"
    with pytest.raises(UserError, match="KERAS_BACKEND=torch: this program runs on tensorflow and jax"):
        choose("torch", "keras", "jax", "tensorflow")
    for name in ("jax", ""):
        with pytest.raises(UserError, match=r"is not installed: pip install -r requirements.txt"):
            choose(name)
