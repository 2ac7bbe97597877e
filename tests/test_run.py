"""The run directory: whole files, one owner, one identity."""

import fcntl
import json
import os
from pathlib import Path

import pytest

from digit_recognizer import recipes
from digit_recognizer.files import UserError, write_array, write_json
from digit_recognizer.named_recipes import named
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.plan import identity, refuse_another_run, refuse_other_members

SETTINGS = recipes.to_json(named("bn_cnn")) | {"data": "competition", "fingerprint": "a" * 64, "split": "c" * 64}


def write(folder, files):
    """Writes the texts of files, by name."""
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def texts(folder):
    """The texts of the files in a folder and below it, by name."""
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "fast"}, "holds a run with name bn_cnn, not fast"),
        ({"seed": 1}, "with seed 42, not 1"),
        ({"fingerprint": "b" * 64}, "with fingerprint aaaaaaaaaaaa, not bbbbbbbbbbbb"),
        ({"epochs": 3}, "with epochs 50, not 3"),
        ({"split": "d" * 64}, "with split cccccccccccc, not dddddddddddd"),
        ({"filters": [64, 128, 256]}, "with filters 64,128,192, not 64,128,256: take another"),
        ({"data": "mnist"}, "with data competition, not mnist"),
    ],
)
def test_another_run_is_refused_by_its_difference(tmp_path, change, message):
    write_json(tmp_path / "recipe.json", SETTINGS)
    run, same = Run(tmp_path), SETTINGS | {"precision": "float32", "threads": 8, "citation": ""}
    with pytest.raises(UserError, match=message):
        refuse_another_run(run, run.settings(), SETTINGS | change)
    refuse_another_run(run, run.settings(), same)
    assert identity(SETTINGS | change) != identity(SETTINGS) == identity(same)


def test_the_progress_of_another_run_is_refused(tmp_path):
    """However it came there: recipe.json may be gone."""
    write(tmp_path, {"fold_00/history.csv": ""})
    write_array(tmp_path / "fold_00/state.npz", facts=json.dumps({"identity": "own"}))
    refuse_other_members(Run(tmp_path), "own")
    with pytest.raises(UserError, match="fold_00 was trained with another recipe, split or data"):
        refuse_other_members(Run(tmp_path), "another")


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


def test_a_refused_run_leaves_no_folder(tmp_path):
    with pytest.raises(UserError), Run(tmp_path / "a/b").lock():
        raise UserError("refused")
    assert not list(tmp_path.iterdir())
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


@pytest.mark.parametrize(("here", "there", "taken"), [(1, 2, True), (2, 2, False), (2, 1, False)])
def test_take_over_takes_the_member_with_more_epochs(tmp_path, here, there, taken):
    earlier, run = Run(tmp_path / "earlier"), Run(tmp_path / "run")
    for folder, epochs in ((earlier.folder, there), (run.folder, here)):
        (folder / "fold_00").mkdir(parents=True)
        write_array(folder / "fold_00/state.npz", facts=json.dumps({"history": [{}] * epochs}))
        (folder / "fold_00/history.csv").write_text(folder.name)
    expected = (earlier if taken else run).folder
    contents = [(expected / "fold_00" / name).read_bytes() for name in ("state.npz", "history.csv")]
    run.take_over(earlier)
    assert [(run.folder / "fold_00" / name).read_bytes() for name in ("state.npz", "history.csv")] == contents


def test_take_over_copies_a_finished_member_whole(tmp_path):
    """It replaces one that is in progress: the history here has one epoch of three."""
    earlier, run = Run(tmp_path / "earlier"), Run(tmp_path / "run")
    expected = {"recipe.json": "{}", "fold_00/history.csv": "3", "fold_00/metrics.json": "{}"}
    expected |= {"submissions.json": "[]"}  # else the same bytes would be sent again without asking
    write(earlier.folder, expected | {"fold_01/notes.txt": "", "fold_01/state.npz": "damaged"})
    write(run.folder, {"fold_00/history.csv": "1", "fold_00/state.npz": "ours"})
    run.take_over(earlier)
    assert texts(run.folder) == expected


def test_clear_removes_a_run_and_nothing_else(tmp_path, monkeypatch):
    """Killed at any moment it leaves no finished member that is not whole, and recipe.json, the last, to the end."""
    ours = ["recipe.json", "folds.csv", "fold_00/model.keras", "fold_00/metrics.json", "fold_01/metrics.json"]
    ours += ["fold_01/model.keras", "fold_02/state.npz", "report/curves.png"]
    theirs = ["notes.txt", "fold_01/mine.txt", "report/mine.md"]
    write(tmp_path, dict.fromkeys(ours + theirs, ""))
    unlink, removed = type(tmp_path).unlink, []
    monkeypatch.setattr(type(tmp_path), "unlink", lambda path: removed.append(path.name) or unlink(path))
    Run(tmp_path).clear()
    assert removed[:2] == ["metrics.json"] * 2 and removed[-1] == "recipe.json"
    assert texts(tmp_path) == dict.fromkeys(theirs, "")
    assert not (tmp_path / "fold_00").exists()
