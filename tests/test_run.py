"""The run directory: whole files, one owner, one identity."""

import errno
import fcntl
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

from digit_recognizer import recipes
from digit_recognizer.files import UserError, atomic, read_json, write_array, write_json
from digit_recognizer.named_recipes import named
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.plan import identity, refuse_another_run, refuse_other_members

SETTINGS = recipes.to_json(named("bn_cnn")) | {"data": "competition", "fingerprint": "a" * 64, "split": "c" * 64}


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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "fast"}, "holds a run with name bn_cnn, not fast"),
        ({"seed": 1}, "with seed 42, not 1"),
        ({"fingerprint": "b" * 64}, "with fingerprint aaaaaaaaaaaa, not bbbbbbbbbbbb"),
        ({"epochs": 3}, "with epochs 50, not 3"),
        ({"split": "d" * 64}, "with split cccccccccccc, not dddddddddddd"),
        ({"filters": [64, 128, 256]}, "with filters 64,128,192, not 64,128,256: take another"),
    ],
)
def test_another_run_is_refused_by_its_difference(tmp_path, change, message):
    write_json(tmp_path / "recipe.json", SETTINGS)
    run = Run(tmp_path)
    with pytest.raises(UserError, match=message):
        refuse_another_run(run, run.settings(), SETTINGS | change)
    refuse_another_run(run, run.settings(), SETTINGS | {"precision": "float32", "threads": 8, "citation": ""})


def test_the_identity_follows_from_recipe_data_and_split():
    own = identity(SETTINGS)
    for name, value in (("seed", 1), ("data", "mnist"), ("fingerprint", "b"), ("split", "b"), ("hidden", [9])):
        assert identity(SETTINGS | {name: value}) != own
    assert identity(SETTINGS | {"threads": 4, "precision": "float16", "citation": "me"}) == own


def test_members_of_another_run_are_refused(tmp_path):
    """However they came there: recipe.json may be gone."""
    run, own = Run(tmp_path), identity(SETTINGS)
    (tmp_path / "fold_00").mkdir()
    write_json(tmp_path / "fold_00/metrics.json", {"identity": own})
    refuse_other_members(run, own)
    with pytest.raises(UserError, match="fold_00 was trained with another recipe, split or data"):
        refuse_other_members(run, identity(SETTINGS | {"seed": 1}))
    (tmp_path / "fold_00/metrics.json").unlink()
    write_array(tmp_path / "fold_00/state.npz", facts='{"identity": "x"}')
    with pytest.raises(UserError, match="fold_00 was trained with another recipe"):
        refuse_other_members(run, own)


def test_two_processes_do_not_share_a_run(tmp_path):
    hold = f"""
import sys
from pathlib import Path
sys.path.insert(0, {str(ROOT / "src")!r})
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.plan import identity, refuse_another_run, refuse_other_members
with Run({str(tmp_path / "run")!r}).lock():
    print("locked", flush=True)
    sys.stdin.read()
"""
    other = subprocess.Popen([sys.executable, "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "locked\n"
    with pytest.raises(UserError, match="another process is writing this run"), Run(tmp_path / "run").lock():
        pass
    other.kill()  # however it ends, the lock ends with it
    other.communicate()
    with Run(tmp_path / "run").lock():
        pass


def test_the_lock_is_taken_on_a_file_that_is_open_for_writing(tmp_path, monkeypatch):
    """NFS grants an exclusive lock to a writable descriptor only."""
    flock, modes = fcntl.flock, []

    def watched(handle, operation):
        modes.append(fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE)
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", watched)
    with Run(tmp_path / "run").lock():
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
    assert modes == [os.O_RDWR] and not list((tmp_path / "run").iterdir())


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match=r"cannot be written \(Not a directory\)"),
        Run(tmp_path / "file" / "run").lock(),
    ):
        pass


def test_a_refused_run_leaves_no_folder(tmp_path):
    with pytest.raises(UserError), Run(tmp_path / "a/b").lock():
        raise UserError("refused")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError), Run(tmp_path / "a/b").lock():
        (tmp_path / "a/b/mine.txt").write_text("")
        raise UserError("refused")
    assert (tmp_path / "a/b/mine.txt").exists()


def test_a_name_is_on_the_disk_when_it_is_there(tmp_path, monkeypatch):
    """The file's contents, then the folder that names it."""
    synced = []
    monkeypatch.setattr(os, "fsync", lambda handle: synced.append(str(Path(f"/proc/self/fd/{handle}").readlink())))
    write_json(tmp_path / "a.json", {})
    assert synced == [str(tmp_path / ".a.json"), str(tmp_path)]


@pytest.mark.parametrize("stop", range(1, 6))
def test_an_overwrite_that_is_killed_leaves_no_finished_member(tmp_path, monkeypatch, stop):
    """What is left is this run's until recipe.json, the last, is gone."""
    for name in ("recipe.json", "folds.csv", "fold_00/metrics.json", "fold_00/model.keras", "fold_01/metrics.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("{}")
    unlink, removed = type(tmp_path).unlink, []

    def die_after(path):
        if len(removed) == stop - 1:
            raise KeyboardInterrupt
        removed.append(path)
        unlink(path)

    monkeypatch.setattr(type(tmp_path), "unlink", die_after)
    with pytest.raises(KeyboardInterrupt):
        Run(tmp_path).clear()
    there = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")}
    assert "recipe.json" in there
    assert stop < 3 or not [name for name in there if name.endswith("metrics.json")]


def state(epochs):
    """The bytes of a state.npz after that many epochs, as far as a run directory looks at it."""
    buffer = io.BytesIO()
    np.savez(buffer, facts=json.dumps({"history": [{}] * epochs}))
    return buffer.getvalue()


@pytest.mark.parametrize(("here", "there", "taken"), [(1, 2, True), (2, 2, False), (2, 1, False)])
def test_take_over_takes_the_member_with_more_epochs(tmp_path, here, there, taken):
    earlier, run = Run(tmp_path / "earlier"), Run(tmp_path / "run")
    for each, epochs in ((earlier, there), (run, here)):
        (each.folder / "fold_00").mkdir(parents=True)
        (each.folder / "fold_00/state.npz").write_bytes(state(epochs))
        (each.folder / "fold_00/history.csv").write_text(each.folder.name)
    run.take_over(earlier)
    assert (run.folder / "fold_00/state.npz").read_bytes() == state(there if taken else here)
    assert (run.folder / "fold_00/history.csv").read_text() == ("earlier" if taken else "run")


def test_take_over_copies_a_finished_member_whole(tmp_path):
    """It replaces one that is in progress: the history here has one epoch of three."""
    earlier, run = Run(tmp_path / "earlier"), Run(tmp_path / "run")
    for folder, files in (
        (earlier.folder, {"recipe.json": "{}", "fold_00/history.csv": "3", "fold_00/metrics.json": "{}"}),
        (earlier.folder, {"submissions.json": "[]"}),  # else the same bytes would be sent again without asking
        (earlier.folder, {"fold_01/notes.txt": "", "fold_01/state.npz": "damaged"}),
        (run.folder, {"fold_00/history.csv": "1", "fold_00/state.npz": "ours"}),
    ):
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
    run.take_over(earlier)
    found = {str(path.relative_to(run.folder)): path.read_text() for path in run.folder.rglob("*.*")}
    assert found == {
        **{"recipe.json": "{}", "fold_00/history.csv": "3", "fold_00/metrics.json": "{}"},
        "submissions.json": "[]",
    }


def test_clear_removes_a_run_and_nothing_else(tmp_path):
    run = Run(tmp_path)
    ours = ["recipe.json", "folds.csv", "fold_00/model.keras", "fold_01/state.npz", "report/curves.png"]
    theirs = ["notes.txt", "fold_01/mine.txt", "report/mine.md"]
    for name in ours + theirs:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    run.clear()
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == set(theirs)
    assert not (tmp_path / "fold_00").exists()
