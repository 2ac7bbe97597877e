"""Faults of the machine at any moment: each stage ends in one line or dies, and goes on to the same bytes.

--campaign tries every write of every stage, and 200 kills.
"""

import errno
import io
import random
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
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
FAULTS = {"full disk": (errno.ENOSPC, False), "permission": (errno.EACCES, True), "once": (errno.EIO, True)}


def chosen(campaign, stage, kind, numbers):
    """Those of the numbers that are tried: all in a campaign, two in the suite, and fewer where a stage is slow."""
    some = 10 if campaign else 0 if stage.name in SLOW else 2
    if campaign and kind != "once":
        return numbers
    if kind == "full disk" and not some:
        return numbers[:1]  # a later one may be a move, which a full disk allows
    return random.Random(stage.name + kind).sample(numbers, min(some, len(numbers)))


class Failures(list):
    """What went wrong in the cases of a test, told at its end."""

    @contextmanager
    def case(self, name):
        try:
            yield
        except AssertionError as error:
            self.append(f"{name}: {str(error)[:2000]}")


@pytest.fixture
def stage(request, light, tmp_path, server):
    csvs, run = light
    return Stage(request.param, csvs, run, write_picture(tmp_path / "picture.png"))


def ends(call, server, stage, folder):
    """Runs the stage to its end, as a person goes on after a fault, and returns what it leaves."""
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


def undisturbed(call, server, stage, folder):
    """What the stage comes to."""
    stage.prepare(folder)
    return ends(call, server, stage, folder)


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


@pytest.mark.parametrize("stage", NAMES, indirect=True)
def test_a_write_that_fails(stage, call, server, tmp_path, campaign, monkeypatch):
    """The number of a write: that of all that is opened to write, made, moved, removed or synced."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    folder = tmp_path / "made" / "here"
    expected = undisturbed(call, server, stage, folder)
    stage.prepare(folder)
    before = steady(folder)
    with full_disk(folder, None, 0) as writes:
        ends(call, server, stage, folder)
    assert writes.count
    tried, failures = 0, Failures()
    for kind, (error, everything) in FAULTS.items():
        for number in chosen(campaign, stage, kind, range(1, writes.count + 1)):
            stage.prepare(folder)
            with failures.case((kind, number)):
                with full_disk(folder, number, error, everything, once=kind == "once") as failing:
                    outcome = call(*stage.line(folder))
                if failing.failed:
                    tried += 1
                    # one that passes may meet nothing but what is tidied up
                    assert (outcome.code == 2 and outcome.error.count("\n") == 1) or kind == "once", outcome
                    assert outcome.code in (0, 2) and "Traceback" not in outcome.error, outcome
                assert_whole(folder, before, expected)
                if kind == "full disk":
                    assert not [path for path in folder.rglob(".*") if path.name != ".download"]
                assert ends(call, server, stage, folder) == expected
    assert not failures, "\n".join(failures)
    assert tried
    tell(f"{stage.name}: {tried} failures of its {writes.count} writes")


@pytest.mark.parametrize("stage", NAMES, indirect=True)
def test_a_disk_with_little_room(stage, call, server, tmp_path, campaign, monkeypatch):
    """A limit on the size of files, which the C libraries meet too."""
    if not campaign and stage.name in ("explore", "report", "predict", "export"):
        pytest.skip("--campaign")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    folder = tmp_path / "made"
    expected = undisturbed(call, server, stage, folder)
    stage.prepare(folder)
    before, old = steady(folder), contents(folder)
    ends(call, server, stage, folder)
    sizes = {len(data) for name, data in contents(folder).items() if name not in old}
    limits = sorted({1, 4096, *(size - 1 for size in sizes), *(size // 2 for size in sizes)})
    failures = Failures()
    limits = [0, *chosen(campaign, stage, "full disk", limits)[: None if campaign else -1]]
    for limit in limits:
        stage.prepare(folder)
        with failures.case(limit):
            with file_size_limit(limit):
                outcome = call(*stage.line(folder))
            # a limit may be more than all that is written
            assert (outcome.code == 0 and limit) or (outcome.code == 2 and outcome.error.count("\n") == 1), outcome
            assert_whole(folder, before, expected)
            assert not [path for path in folder.rglob(".*") if path.name != ".download"]
            assert ends(call, server, stage, folder) == expected
    assert not failures, "\n".join(failures)
    tell(f"{stage.name}: {len(limits)} limits of its files' sizes")


def test_a_small_array_that_finds_no_room(tmp_path):
    """NumPy itself says nothing: the last part of a file waits in a buffer of C's until it is closed."""
    with pytest.raises(OSError, match="File too large"), file_size_limit(100):
        write_array(tmp_path / "array.npy", np.zeros(50))
    assert not [*tmp_path.iterdir()]


# In a campaign, 200 in all; in the suite one of each stage that starts fast, and of training.
KILLS = {"train": 56} | dict.fromkeys(
    ("download", "split", "explore", "ensemble", "report", "predict", "export", "kernel", "submit"), 18
)


@pytest.mark.parametrize("stage", NAMES, indirect=True)
def test_killed_at_any_moment(stage, call, server, tmp_path, campaign, monkeypatch):
    """SIGKILL at a write, or at a random moment."""
    if not campaign and stage.name in ("explore", "report", "predict", "export", "split"):
        pytest.skip("--campaign")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    folder = tmp_path / "made"
    stage.prepare(folder)
    install()
    with Writes(folder).watched() as writes:
        expected = ends(call, server, stage, folder)
    failures = Failures()
    length, moments, killed, tries = None, random.Random(time.time_ns()), 0, 0
    wanted = KILLS[stage.name] if campaign else 1
    while killed < wanted and tries < 2 * wanted:  # some have ended before
        name, *arguments = stage.line(folder)
        write = moments.randint(1, writes.count) if tries % 4 or length is None else 10**6
        tries += 1
        line = [sys.executable, Path(__file__).with_name("faults.py"), str(write), folder, SCRIPTS / f"{name}.py"]
        stage.prepare(folder)
        server.looks_until_scored = 0
        began = time.monotonic()
        process = subprocess.Popen(
            [*line, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        with suppress(subprocess.TimeoutExpired):
            process.wait(moments.uniform(0.3, 1) * length if write == 10**6 else 300)
        process.kill()
        _, error = process.communicate()
        length = length or time.monotonic() - began
        killed += process.returncode == -9
        with failures.case((write, process.returncode)):
            assert process.returncode in (0, -9), error
            assert ends(call, server, stage, folder) == expected
    assert not failures, "\n".join(failures)
    assert killed == wanted, f"{killed} of {tries} killed"
    tell(f"{stage.name}: {killed} killed")
