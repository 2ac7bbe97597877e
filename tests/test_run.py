"""The run directory: whole files, one owner, one identity."""

import errno
import subprocess
import sys

import pytest
from conftest import ROOT

from digit_recognizer.errors import UserError
from digit_recognizer.files import atomic, read_json, write_json
from digit_recognizer.run import Run

SETTINGS = {
    "name": "bn_cnn",
    "epochs": 50,
    "seed": 42,
    "fingerprint": "a" * 64,
    "threads": 2,
    "versions": {"keras": "3"},
}


def test_a_failed_write_leaves_what_was_there(tmp_path):
    path = tmp_path / "cv_report.json"
    write_json(path, {"old": 1})
    with pytest.raises(OSError, match=r"No space.*cv_report.json"), atomic(path) as file:
        file.write_text("half of it")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert read_json(path) == {"old": 1} and [*tmp_path.iterdir()] == [path]


def test_a_damaged_json_is_refused(tmp_path):
    (tmp_path / "recipe.json").write_text("{")
    with pytest.raises(UserError, match=r"recipe.json is damaged"):
        Run(tmp_path).settings()


def test_claim_keeps_the_first_settings(tmp_path):
    run = Run(tmp_path)
    run.claim(SETTINGS)
    assert run.claim(SETTINGS) == []
    assert run.claim(SETTINGS | {"threads": 8, "versions": {}}) == ["threads", "versions"]
    assert run.settings() == SETTINGS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "fast"}, "holds a run with name bn_cnn, not fast"),
        ({"seed": 1}, "with seed 42, not 1"),
        ({"fingerprint": "b" * 64}, "with fingerprint aaaaaaaaaaaa, not bbbbbbbbbbbb"),
        ({"epochs": 3}, "with epochs 50, not 3"),
    ],
)
def test_another_run_is_refused_by_its_difference(tmp_path, change, message):
    run = Run(tmp_path)
    run.claim(SETTINGS)
    with pytest.raises(UserError, match=message):
        run.claim(SETTINGS | change)
    assert run.settings() == SETTINGS


def test_two_processes_do_not_share_a_run(tmp_path):
    hold = f"""
import sys
sys.path.insert(0, {str(ROOT / "src")!r})
from digit_recognizer.run import Run
with Run({str(tmp_path / "run")!r}).lock():
    print("locked", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen(
        [sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match="another process is writing this run"), Run(tmp_path / "run").lock():
        pass
    other.kill()  # however it ends, the lock ends with it
    other.communicate()
    with Run(tmp_path / "run").lock():
        pass


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"can't be written \(Not a directory\)"),
        Run(tmp_path / "file" / "run").lock(),
    ):
        pass


def test_clear_removes_a_run_and_nothing_else(tmp_path):
    run = Run(tmp_path)
    ours = [
        "recipe.json",
        "folds.csv",
        "fold_00/model.keras",
        "fold_01/state.npz",
        "report/curves.png",
        "cache/digits.npz",
    ]
    theirs = ["notes.txt", "fold_01/mine.txt", "report/mine.md"]
    for name in ours + theirs:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    run.clear()
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(theirs)
    assert not (tmp_path / "fold_00").exists() and not (tmp_path / "cache").exists()
