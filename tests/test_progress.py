"""What a training shows while it goes on: lines in a log, bars on a terminal, and when it ends."""

import re
from datetime import datetime, timedelta

import pytest

from digit_recognizer.training import progress
from digit_recognizer.training.fold import FoldTrainer
from digit_recognizer.training.progress import ExpectedEnd, Progress


@pytest.fixture
def trained(small_recipe, dataset, folds, tmp_path):
    """Trains both members with a `Progress` and returns nothing: what is printed counts."""

    def train():
        shown, trainer = Progress(small_recipe, folds), FoldTrainer(small_recipe, len(folds[0].train_rows))
        for member in folds:
            metrics = trainer.train(
                member, dataset, tmp_path / member.name, callbacks=shown.callbacks(member)
            )
            shown.end_member(member, metrics)
        shown.close()

    return train


def test_lines_where_there_is_no_terminal(trained, small_recipe, capsys):
    trained()
    lines = capsys.readouterr().out.splitlines()
    scores = (
        r"loss [\d.]+, accuracy [\d.]+, val_loss [\d.]+, val_accuracy [\d.]+, learning rate 0.001, [\d.]+ s"
    )
    for fold in (0, 1):
        for epoch in (1, 2):
            assert any(
                re.match(rf"fold_0{fold} epoch {epoch}/2: {scores}, at most 00:\d\d left", line)
                for line in lines
            )
    assert (
        sum(bool(re.match(r"fold_0\d: accuracy 0\.\d+, \d+ of 40 rows wrong, epoch", x)) for x in lines) == 2
    )
    assert sum("the training ends at about" in line for line in lines) == 1


def test_bars_on_a_terminal(trained, monkeypatch, capsys):
    monkeypatch.setattr(places, "on_terminal", lambda: True)
    trained()
    out, error = capsys.readouterr()
    assert "epoch 1/2" not in out and "fold_01: accuracy" in out
    bars = error.replace("\r", "\n")
    assert re.search(r"all: +100%.* 2/2", bars)
    for fold in ("fold_00", "fold_01"):  # a bar that goes again need not show its last step
        assert re.search(rf"{fold}: +\d+%.* [012]/2 .*epoch", bars)


@pytest.mark.parametrize(("seconds", "advice"), [(10, False), (3600, True), (100_000, True)])
def test_the_expected_end_is_a_time_of_day(small_recipe, folds, monkeypatch, capsys, seconds, advice):
    """Of four epochs of two folds three are left after the first."""
    clock = iter([0.0, float(seconds)])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    shown = ExpectedEnd(small_recipe, folds)
    shown.on_epoch_begin(0)
    shown.on_epoch_end(0)
    shown.on_epoch_end(1)  # which says nothing more
    (line,) = capsys.readouterr().out.splitlines()
    end = datetime.now() + timedelta(seconds=3 * seconds)
    assert any(f"{moment:%H:%M} at the latest" in line for moment in (end, end - timedelta(minutes=1)))
    assert ("--time-budget 30m" in line) == advice
    assert (f"{end:%B}" in line) == (seconds == 100_000)
