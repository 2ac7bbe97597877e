"""Clocks that jump, two processes in one run, a process that died, and many members one after the other."""

import datetime as datetime_module
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from conftest import LIGHT, THREADS, arrays, finish, read_until, start, tell
from kaggle_server import refused

from digit_recognizer.files import read_json
from digit_recognizer.kaggle import submissions
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.plan import make_plan
from digit_recognizer.training import session
from digit_recognizer.training.fold import FoldTrainer
from digit_recognizer.training.session import TrainingOptions

DAY = 86400  # seconds


def jumping(clock, jumps, seed=0):
    """A clock that jumps by one of `jumps`, in seconds, at about every third look."""
    moments, offset = random.Random(seed), 0.0

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


def test_clocks_jump_while_training(light, call, tmp_path, jumping_clocks):
    csvs, run = light
    places = ("--input", csvs, "--output", tmp_path / "run")
    assert call("train", *places, *LIGHT).code == 0
    assert call("ensemble", *places).code == 0
    assert arrays(tmp_path / "run") == arrays(run)
    assert all(read_json(path)["seconds"] > 0 for path in tmp_path.glob("run/*/metrics.json"))


def test_clocks_jump_over_the_time_budget(light, call, tmp_path, monkeypatch):
    """The time is up at once; the same command goes on when the clocks are right."""
    csvs, run = light
    places = ("--input", csvs, "--output", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", jumping(time.monotonic, [DAY]))
        outcome = call("train", *places, *LIGHT, "--time-budget", "1h")
    assert outcome.code == 0 and "the time budget is used up" in outcome.out
    assert call("train", *places).code == 0
    assert call("ensemble", *places).code == 0
    assert arrays(tmp_path / "run") == arrays(run)


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


def test_two_trainings_in_one_run(light, campaign, call, tmp_path):
    """One of them is refused, in one line, and disturbs nothing."""
    csvs, run = light
    pairs = 5 if campaign else 1
    for number in range(pairs):
        output = tmp_path / str(number)
        line = ("train", "--input", csvs, "--output", output, *LIGHT)
        outcomes = [finish(process) for process in [start(*line), start(*line)]]
        late, done = sorted(outcomes, key=lambda outcome: outcome.code, reverse=True)
        assert refused(late, "another process is writing this run") and done.code == 0, outcomes
        assert call("ensemble", "--input", csvs, "--output", output).code == 0
        assert arrays(output) == arrays(run)
    tell(f"{pairs} pairs of trainings in one run: one refused each time")


def test_what_a_dead_process_held_is_free(light, call, tmp_path):
    """The lock ends with the process; what it left half written is written anew."""
    csvs, run = light
    output = tmp_path / "run"
    process = start("train", "--input", csvs, "--output", output, *LIGHT)
    read_until(process, "epoch 1/2")
    assert refused(call("ensemble", "--input", csvs, "--output", output), "another process is writing")
    process.send_signal(signal.SIGKILL)
    process.communicate()
    for name in (".lock", ".recipe.json", ".folds.csv", "fold_00/.state.npz", "fold_01/.metrics.json"):
        (output / name).parent.mkdir(exist_ok=True)
        (output / name).write_text("half of")
    assert call("train", "--input", csvs, "--output", output).code == 0
    assert call("ensemble", "--input", csvs, "--output", output).code == 0
    assert arrays(output) == arrays(run)


def resident() -> int:
    """The memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_and_file_descriptors_stay_level(dataset, campaign, tmp_path, monkeypatch):
    """50 members in a campaign, 12 in the suite; the first ones fill caches."""
    folds, repeats, warm = (5, 10, 10) if campaign else (4, 3, 4)
    memory, handles = [], []
    train = FoldTrainer.train

    def watched(*arguments, **options):
        metrics = train(*arguments, **options)
        memory.append(resident())
        handles.append(len([*Path("/proc/self/fd").iterdir()]))
        return metrics

    monkeypatch.setattr(FoldTrainer, "train", watched)
    options = {"folds": folds, "repeats": repeats, "epochs": 2, "batch_size": 16}
    session.train(tmp_path, dataset, ["dropout_mlp"], options, TrainingOptions(threads=THREADS))
    assert len(memory) == folds * repeats == len(make_plan(Run(tmp_path), dataset, None, {}).members)
    growth = (memory[-1] - memory[warm]) / 1e6 / (len(memory) - warm)
    tell(f"{len(memory)} members: {growth:.2f} MB more for each, {handles[warm]} to {handles[-1]} descriptors")
    assert growth < 2, memory  # MB a member
    assert max(handles[warm:]) == handles[warm], handles
