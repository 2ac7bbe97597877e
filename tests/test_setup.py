"""Setting up, and what is known of the place: Python, credentials, Kaggle's folders, the backend."""

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SCRIPTS

from digit_recognizer.data import places
from digit_recognizer.errors import UserError
from digit_recognizer.training import backend


def sourced(commands, path, **environment):
    """What bash says to `commands` after setup.sh, with only that folder's programs and the system's few."""
    program = f"set -euo pipefail; source {SCRIPTS}/setup.sh; {commands}"
    environment = {"PATH": str(path), "HOME": str(path)} | environment
    return subprocess.run(["/bin/bash", "-c", program], capture_output=True, text=True, env=environment)


@pytest.fixture
def programs(tmp_path):
    """A folder of programs for a PATH of its own."""
    for name in ("dirname", "basename", "sed", "cat"):
        (tmp_path / name).symlink_to(
            next(path for path in (f"/usr/bin/{name}", f"/bin/{name}") if Path(path).exists())
        )

    def add(name, text):
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)

    add.folder = tmp_path
    return add


@pytest.mark.parametrize("version", ["3.10", "3.14"])
def test_a_python_that_is_too_old_or_too_new(programs, version):
    programs("python3", f'case "$2" in *print*) echo {version} ;; *) exit 1 ;; esac')
    outcome = sourced("find_python", programs.folder)
    assert outcome.returncode == 2 and outcome.stderr.count("\n") == 1
    assert f"(found: {version}): apt install python3.12 python3.12-venv" in outcome.stderr


def test_no_python(programs):
    outcome = sourced("find_python", programs.folder)
    assert outcome.returncode == 2 and "(found: none)" in outcome.stderr


def test_another_python_that_fits_is_taken(programs):
    programs("python3", 'case "$2" in *print*) echo 3.14 ;; *) exit 1 ;; esac')
    programs("python3.12", "exit 0")
    assert sourced("find_python; echo $BASE_PYTHON", programs.folder).stdout == "python3.12\n"


def test_python_without_venv(programs):
    programs(
        "python3",
        'case "$2" in *ensurepip*) exit 1 ;; *print*) echo python3.11-venv ;; *packaging*) exit 1 ;; esac',
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
    assert [line.partition("#")[0].strip() for line in lines if line.startswith(("tensorflow", "jax"))] == [
        expected
    ]
    assert any(line.startswith("keras") for line in lines)


def test_requirements_that_are_met_and_that_are_not(programs):
    def has(line):
        return sourced(f"echo '{line}' | has_requirements {sys.executable}", programs.folder).returncode == 0

    assert (
        has("numpy>=2.0 # a comment") and has("") and not has("numpy>=99") and not has("no-such-package>=1")
    )


@pytest.mark.parametrize(
    "where",
    [
        {"KAGGLE_API_TOKEN": "x"},
        {"KAGGLE_USERNAME": "x", "KAGGLE_KEY": "y"},
        ".kaggle/kaggle.json",
        ".kaggle/access_token",
        ".config/kaggle/kaggle.json",
        "elsewhere/kaggle.json",
    ],
)
def test_credentials_are_found_where_the_client_looks(tmp_path, monkeypatch, where):
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(home / "elsewhere"))
    assert not places.has_credentials()
    if isinstance(where, dict):
        for name, value in where.items():
            monkeypatch.setenv(name, value)
    else:
        (home / where).parent.mkdir(parents=True)
        (home / where).write_text("{}")
    assert places.has_credentials()


def test_credentials_are_named_in_the_clients_order(tmp_path, monkeypatch):
    home = tmp_path / "home/.kaggle"
    home.mkdir(parents=True)
    for name in ("credentials.json", "kaggle.json"):
        (home / name).write_text("{}")
        assert places.credentials_place() == str(home / name)
    monkeypatch.setenv("KAGGLE_USERNAME", "x")
    monkeypatch.setenv("KAGGLE_KEY", "y")
    assert places.credentials_place() == "KAGGLE_USERNAME and KAGGLE_KEY"
    (home / "access_token").write_text("z")
    assert places.credentials_place() == str(home / "access_token")
    monkeypatch.setenv("KAGGLE_API_V1_TOKEN", str(tmp_path / "session"))
    (tmp_path / "session").write_text("z")
    assert places.credentials_place() == str(home / "access_token")
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    assert places.credentials_place() == str(tmp_path / "session")
    monkeypatch.setenv("KAGGLE_API_TOKEN", "z")
    assert places.credentials_place() == "KAGGLE_API_TOKEN"


@pytest.mark.parametrize(
    ("csv", "archive", "credentials", "given", "expected"),
    [
        (False, False, False, False, 0),  # the sample
        (False, False, True, False, 3),
        (False, True, False, False, 3),
        (False, True, False, True, 3),
        (False, False, True, True, 2),  # nothing is there
        (True, True, True, False, 2),  # test.csv is missing
    ],
)
def test_when_run_all_downloads(tmp_path, monkeypatch, csv, archive, credentials, given, expected):
    monkeypatch.setattr(places, "_in_checkout", lambda name: tmp_path / name)
    (tmp_path / "input").mkdir()
    for name in ["train.csv"] * csv + ["digit-recognizer.zip"] * archive:
        (tmp_path / "input" / name).write_text("")
    if credentials:
        monkeypatch.setenv("KAGGLE_API_TOKEN", "x")
    options = ["--input", str(tmp_path / "input")] if given else []
    monkeypatch.setattr(sys, "argv", ["source", *options])
    try:
        places._main()
        code = 0
    except SystemExit as exit:
        code = exit.code
    assert code == expected


@pytest.mark.parametrize("folder", ["digit-recognizer", "competitions/digit-recognizer", "some/dataset"])
def test_kaggles_folders(csvs, tmp_path, monkeypatch, folder):
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Batch")
    monkeypatch.setattr(places, "KAGGLE_INPUT", tmp_path / "kaggle")
    (tmp_path / "kaggle" / folder).parent.mkdir(parents=True)
    csvs.rename(tmp_path / "kaggle" / folder)
    assert places.resolve(None, None) == places.Places(tmp_path / "kaggle" / folder, places.KAGGLE_OUTPUT)


def test_a_notebooks_cell_is_no_terminal(monkeypatch):
    """IPython's `!` runs a command on a pseudo-terminal, whose bars would become thousands of lines of output."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert places.on_terminal()
    monkeypatch.setenv("JPY_PARENT_PID", "1")
    assert not places.on_terminal()


def test_backends_that_are_not_there(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(UserError, match="KERAS_BACKEND=torch: this program runs on tensorflow and jax"):
        backend.chosen()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("jax", ""):
        monkeypatch.setenv("KERAS_BACKEND", name)
        with pytest.raises(UserError, match=r"is not installed: pip install -r requirements.txt"):
            backend.chosen()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name in ("jax", "keras") or None)
    assert backend.chosen() == "jax"
