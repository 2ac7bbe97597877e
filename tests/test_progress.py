"""What a training shows: a line for each epoch in a log, bars on a terminal, and when it ends."""

import re
from datetime import datetime, timedelta

import pandas as pd
import pytest
from conftest import at

from digit_recognizer.data import paths
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.plan import Plan
from digit_recognizer.training.local import LocalExecutor
from digit_recognizer.training.progress import Progress

ROW = {"loss": 0.5, "accuracy": 0.9, "val_loss": 0.4, "val_accuracy": 0.95, "learning_rate": 0.001}


def row(epoch, seconds=1.0, **others):
    return ROW | {"epoch": epoch, "seconds": seconds} | others


@pytest.fixture
def members(folds, tmp_path):
    return [at(member, tmp_path / member.folder.name) for member in folds]


@pytest.fixture
def train(small_recipe, dataset, members, tmp_path):
    """Trains both members as a session does; what is printed counts."""

    def run(*before):
        plan = Plan(Run(tmp_path), small_recipe, None, [*members, *before], {}, None)
        assert LocalExecutor(dataset, 2, float("inf"), False).train(plan, members)

    return run


def test_lines_where_there_is_no_terminal(train, capsys):
    train()
    lines = capsys.readouterr().out.splitlines()
    scores = r"loss [\d.]+, accuracy [\d.]+, val_loss [\d.]+, val_accuracy [\d.]+, learning rate 0.001, [\d.]+ s"
    for fold in (0, 1):
        for epoch in (1, 2):
            line = rf"fold_0{fold} epoch {epoch}/2: {scores}, about 00:\d\d left"
            assert any(re.match(line, text) for text in lines)
    assert sum(bool(re.match(r"fold_0\d: accuracy 0\.\d+, \d+ of 40 rows wrong", line)) for line in lines) == 2
    assert sum("predicts the validation rows and the test rows" in line for line in lines) == 2


def test_bars_on_a_terminal(train, folds, tmp_path, monkeypatch, capsys):
    """The bar of all folds counts the epochs of a member that was finished before."""
    monkeypatch.setattr(paths, "on_terminal", lambda: True)
    (tmp_path / "fold_02").mkdir()
    (tmp_path / "fold_02/metrics.json").write_text("{}")
    train(at(folds[0], tmp_path / "fold_02"))
    out, error = capsys.readouterr()
    assert "epoch 1/2" not in out and "fold_01: accuracy" in out
    bars = error.replace("\r", "\n")
    assert re.search(r"all folds: +33%.* 2/6", bars) and re.search(r"all folds: +100%.* 6/6", bars)
    assert "fold_00=predicts" in bars
    for fold in ("fold_00", "fold_01"):  # batches, whatever one call of the training function takes
        assert re.search(rf"{fold} epoch 2: +\d+%.* \d+/2 .*batch", bars)


@pytest.mark.parametrize(("seconds", "advice"), [(10, False), (3600, True), (100_000, True)])
def test_the_expected_end_is_a_time_of_day(small_recipe, folds, capsys, seconds, advice):
    """Of four epochs of two folds three are left after the first, and two predictions, as long as an epoch."""
    progress = Progress(small_recipe, folds)
    for epoch in (1, 2):
        progress.show(folds[0], row(epoch, float(seconds)))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "the training ends" in line]
    end = datetime.now() + timedelta(seconds=5 * seconds)
    assert any(f"{moment:%H:%M}" in line for moment in (end, end - timedelta(minutes=1)))
    assert ("--time-budget 30m" in line) == advice
    assert (f"{end:%B}" in line) == (seconds == 100_000)


def test_a_resumed_member_says_where_it_continues(small_recipe, members, capsys):
    members[0].folder.mkdir()
    pd.DataFrame([row(1)]).to_csv(members[0].folder / "history.csv")
    Progress(small_recipe, members)
    assert capsys.readouterr().out == "fold_00 continues after epoch 1 of 2\n"


def test_the_time_left_counts_measured_predictions(small_recipe, members, capsys):
    progress, rows = Progress(small_recipe, members), [row(1, 60.0), row(2, 60.0)]
    for each in rows:
        progress.show(members[0], each)
    assert "about 05:00 left" in capsys.readouterr().out.splitlines()[0]
    members[0].folder.mkdir()
    pd.DataFrame(rows).to_csv(members[0].folder / "history.csv")
    metrics = {"accuracy": 0.9, "errors": 4, "rows": 40, "best_epoch": 2, "epochs": 2, "seconds": 130.0}
    progress.end_member(members[0], metrics)
    progress.show(members[1], rows[0])
    assert "about 01:10 left" in capsys.readouterr().out  # an epoch, and a prediction of 10 s


def test_a_training_accuracy_far_above_the_others_is_told_once(small_recipe, folds, capsys):
    progress = Progress(small_recipe, folds)
    for epoch in (1, 2):
        progress.show(folds[0], row(epoch, accuracy=0.95, val_accuracy=0.5))
    line = "fold_00: something is wrong: the accuracy is 0.95 in training and 0.50 in validation: try more --epochs"
    assert capsys.readouterr().out.count(line) == 1
