"""Clocks that jump, and a process that died."""

import datetime as datetime_module
import random
import shutil
import signal
import time

import pytest
from conftest import LIGHT, arrays, finish, read_until, start
from kaggle_server import refused

from digit_recognizer.files import read_json
from digit_recognizer.kaggle import submissions
from digit_recognizer.runs.directory import Run

DAY = 86400  # seconds


def jumping(clock, jumps):
    """A clock that jumps by one of `jumps`, in seconds, at about every third look."""
    moments, offset = random.Random(0), 0.0

    def now():
        nonlocal offset
        if moments.random() < 0.3:
            offset += moments.choice(jumps)
        return clock() + offset

    return now


@pytest.fixture
def jumping_clocks(monkeypatch):
    """The time of day goes back and forth; the monotonic clocks leap ahead, as after a machine slept."""
    monkeypatch.setattr(time, "time", jumping(time.time, [-DAY, -3600, 3600, DAY]))
    for name in ("monotonic", "perf_counter"):
        monkeypatch.setattr(time, name, jumping(getattr(time, name), [DAY]))

    today = jumping(lambda: 0, [-400 * DAY, -DAY, 3600, 400 * DAY])

    class Jumping(datetime_module.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime_module.datetime.now(tz) + datetime_module.timedelta(seconds=today())

    monkeypatch.setattr(submissions, "datetime", Jumping)


@pytest.mark.parametrize("wait", ["10m", "0"])
def test_clocks_jump_while_submitting(light, server, call, tmp_path, monkeypatch, jumping_clocks, wait):
    """The submission is sent once, and its score is found in the end."""
    csvs, whole = light
    shutil.copytree(whole, tmp_path / "run")
    places = ("--input", csvs, "--output", tmp_path / "run")
    server.looks_until_scored = 3
    assert call("submit", *places, "--wait", wait, "--yes").code == 0
    assert refused(call("submit", *places), "is not sent", "--yes sends it") and len(server.submissions) == 1
    server.looks_until_scored = 0
    assert "public score 0.99571" in call("submit", "--score", *places).out
    [record] = read_json(Run(tmp_path / "run").submissions_json, kind=list)
    assert (record["status"], record["ref"]) == ("complete", 101)


def test_what_a_dead_process_held_is_free(light, call, tmp_path):
    """The lock ends with the process; what it left half written is written anew."""
    csvs, run = light
    output = tmp_path / "run"
    process = start("train", "--input", csvs, "--output", output, *LIGHT)
    while not (output / ".lock").exists():  # before it imports Keras, which takes seconds
        assert process.poll() is None, finish(process)
    assert refused(call("explore", "--input", csvs, "--output", output), "another process is writing")
    read_until(process, "epoch 1/2")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for name in (".lock", ".recipe.json", ".folds.csv", "fold_00/.state.npz", "fold_01/.metrics.json"):
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_text("half of")
    assert call("train", "--input", csvs, "--output", output).code == 0
    assert call("ensemble", "--input", csvs, "--output", output).code == 0
    assert arrays(output) == arrays(run)
