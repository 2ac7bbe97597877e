"""Faults of the machine at any moment: each stage ends in one line or dies, and goes on to the same bytes.

--campaign tries every write of every stage, and 20 kills of each.
"""

import errno
import io
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import SCRIPTS, tell
from damage import contents
from faults import Writes, file_size_limit, full_disk, install
from kaggle_server import refused
from stages import NAMES, Stage, steady, write_picture

from digit_recognizer.files import write_array

SLOW = ("explore", "train", "report", "predict", "export")  # stages of which the suite tries one full disk alone
ONLY_IN_A_CAMPAIGN = ("explore", "report", "predict", "export", "split")
FAULTS = {"full disk": (errno.ENOSPC, False), "permission": (errno.EACCES, True), "once": (errno.EIO, True)}
KILLS = 20  # of a stage in a campaign


@pytest.fixture
def stage(request, light, tmp_path, server, monkeypatch):
    csvs, run = light
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    return Stage(request.param, csvs, run, write_picture(tmp_path / "picture.png"))


@pytest.fixture
def folder(tmp_path):
    """What the stage writes into."""
    return tmp_path / "made" / "here"


@pytest.fixture
def end(call, server, stage, folder):
    """Runs the stage to its end, as a person goes on after a fault, and returns what it leaves."""

    def end():
        server.looks_until_scored = 0
        outcome = call(*stage.line(folder))
        assert "is damaged" not in outcome.out, outcome  # the bytes of a fold that starts over are the same
        if stage.name == "submit":  # what reached Kaggle is not sent again
            assert outcome.code == 0 or refused(outcome, "is not sent, because the same bytes were sent"), outcome
            assert len(server.submissions) == 1
            server.submissions.clear()
        else:
            assert (outcome.code, outcome.error) == (0, ""), outcome
        assert not [*folder.rglob(".*")]
        return steady(folder)

    return end


def assert_whole(folder, before, expected):
    """Nothing in `folder` but what was there before, and what there is in the end, each whole.

    A file with a dot may be left where it can't be removed.
    """
    for name, data in steady(folder).items():
        in_progress = Path(name).name in ("state.npz", "history.csv", "submissions.json")
        hidden = name.startswith(".download/") or Path(name).name.startswith(".")
        if in_progress or hidden:
            continue
        assert data in (before.get(name), expected.get(name)), name


def chosen(campaign, stage, count):
    """The kinds of fault and the numbers of the writes that fail: in the suite some."""
    if not campaign and stage.name in SLOW:
        return [("full disk", 1)]  # a later one may be a move, which a full disk allows
    steps = {"full disk": 1, "permission": 1, "once": 5}
    every = [(kind, number) for kind, step in steps.items() for number in range(1, count + 1, step)]
    return every if campaign else random.Random(stage.name).sample(every, min(6, len(every)))


@pytest.mark.parametrize("stage", NAMES, indirect=True)
def test_a_write_that_fails(stage, end, folder, call, campaign):
    """The number of a write: that of all that is opened to write, made, moved, removed or synced."""
    stage.prepare(folder)
    before = steady(folder)
    with full_disk(folder, None, 0) as writes:
        expected = end()
    tried = 0
    for kind, number in chosen(campaign, stage, writes.count):
        error, everything = FAULTS[kind]
        stage.prepare(folder)
        with full_disk(folder, number, error, everything, once=kind == "once") as failing:
            outcome = call(*stage.line(folder))
        if failing.failed:
            tried += 1
            # one that passes may meet nothing but what is tidied up
            is_refused = outcome.code == 2 and outcome.error.count("\n") == 1
            assert is_refused or (kind == "once" and outcome.code == 0), (kind, number, outcome)
        assert_whole(folder, before, expected)
        if kind == "full disk":
            assert not [path for path in folder.rglob(".*") if path.name != ".download"]
        assert end() == expected, (kind, number)
    assert tried
    tell(f"{stage.name}: {tried} failures of its {writes.count} writes")


@pytest.mark.parametrize("stage", NAMES, indirect=True)
def test_a_disk_with_little_room(stage, end, folder, call, campaign):
    """A limit on the size of files, which the C libraries meet too."""
    if not campaign and stage.name in ONLY_IN_A_CAMPAIGN:
        pytest.skip("--campaign")
    stage.prepare(folder)
    before, old = steady(folder), contents(folder)
    expected = end()
    sizes = {len(data) for name, data in contents(folder).items() if name not in old}
    limits = {0, 1, 4096, *(size - 1 for size in sizes), *(size // 2 for size in sizes)}
    if not campaign:
        limits = {0, max(sizes) // 2}
    for limit in limits:
        stage.prepare(folder)
        with file_size_limit(limit):
            outcome = call(*stage.line(folder))
        # a limit may be more than all that is written
        is_refused = outcome.code == 2 and outcome.error.count("\n") == 1
        assert is_refused or (outcome.code == 0 and limit), (limit, outcome)
        assert_whole(folder, before, expected)
        assert not [path for path in folder.rglob(".*") if path.name != ".download"]
        assert end() == expected, limit
    tell(f"{stage.name}: {len(limits)} limits of its files' sizes")


def test_a_small_array_that_finds_no_room(tmp_path):
    """NumPy itself says nothing: the last part of a file waits in a buffer of C's until it is closed."""
    with pytest.raises(OSError, match="File too large"), file_size_limit(100):
        write_array(tmp_path / "array.npy", np.zeros(50))
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("stage", NAMES, indirect=True)
def test_killed_at_any_moment(stage, end, folder, campaign):
    """SIGKILL at a write; every fourth one at a random moment, which may come after the end."""
    if not campaign and stage.name in ONLY_IN_A_CAMPAIGN:
        pytest.skip("--campaign")
    stage.prepare(folder)
    install()
    with Writes(folder).watched() as writes:
        expected = end()
    moments = random.Random(time.time_ns() if campaign else stage.name)
    wanted, seconds = KILLS if campaign else 2 if stage.name == "train" else 1, 0.0
    for number in range(wanted):
        name, *arguments = stage.line(folder)
        at_write = number % 4 != 3
        write = moments.randint(1, writes.count) if at_write else 10**9
        program = [sys.executable, Path(__file__).with_name("faults.py"), str(write), folder, SCRIPTS / f"{name}.py"]
        stage.prepare(folder)
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
        began, process = time.monotonic(), subprocess.Popen([*program, *arguments], **streams)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=300 if at_write else moments.uniform(0.3, 1) * seconds)
        process.kill()
        _, error = process.communicate()
        seconds = max(seconds, time.monotonic() - began)
        assert process.returncode in ([-signal.SIGKILL] if at_write else [-signal.SIGKILL, 0]), (write, error)
        assert end() == expected, write
    tell(f"{stage.name}: {wanted} killed")
