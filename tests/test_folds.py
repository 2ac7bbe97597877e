"""Splits: who validates what."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest

from digit_recognizer import named_recipes, recipes
from digit_recognizer.data import folds
from digit_recognizer.files import UserError
from digit_recognizer.runs.plan import make_members

LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), 40 + np.arange(10))).astype(np.uint8)


def recipe(**options):
    return recipes.change(named_recipes.named("mlp"), options)


def members(table):
    return make_members(table, Path("run"))


def test_each_row_validates_once_a_repeat():
    every = members(folds.split(LABELS, recipe(folds=5, repeats=3)))
    for member in every:
        assert not set(member.train_rows) & set(member.validation_rows)
        assert len(member.train_rows) + len(member.validation_rows) == len(LABELS)
        share = np.bincount(LABELS[member.validation_rows]) / np.bincount(LABELS)
        assert np.abs(share - 0.2).max() < 0.025  # stratified: one row of forty
    assert [member.index for member in every] == list(range(15))
    assert (every[7].repeat, every[7].fold, every[7].folder.name) == (1, 2, "fold_07")
    for repeat in range(3):
        rows = np.concatenate([member.validation_rows for member in every if member.repeat == repeat])
        assert (np.sort(rows) == np.arange(len(LABELS))).all()
    assert (every[0].validation_rows[:20] != every[5].validation_rows[:20]).any()
    assert (folds.split(LABELS, recipe(seed=1)) != folds.split(LABELS, recipe())).any()


def test_holdout():
    table = folds.split(LABELS, recipe(folds=1, holdout=0.15, repeats=2))
    assert set(np.unique(table)) == {-1, 0}
    first, second = members(table)
    assert len(first.validation_rows) == int(np.ceil(0.15 * len(LABELS)))
    assert set(first.train_rows) | set(first.validation_rows) == set(range(len(LABELS)))
    assert set(first.validation_rows) != set(second.validation_rows)


def test_a_holdout_of_the_first_rows():
    table = folds.split(np.arange(60_000) % 10, recipe(holdout=1 / 6, holdout_rows="first", repeats=2))
    assert table.shape == (60_000, 2) and (table == table[:, :1]).all()
    (member, _) = members(table)
    assert (member.validation_rows == np.arange(10_000)).all()
    assert (member.train_rows == np.arange(10_000, 60_000)).all()


def test_a_class_with_fewer_rows_than_folds():
    with pytest.raises(UserError, match=r"label 3 has 4 row\(s\), fewer than the 5"):
        folds.split(np.repeat(np.arange(10), [9, 9, 9, 4, 9, 9, 9, 9, 9, 9]), recipe(folds=5))
    with pytest.raises(UserError, match="too few rows for one of each of the 10 classes"):
        folds.split(np.repeat(np.arange(10), 2), recipe(holdout=0.15))


def test_a_label_without_rows_is_said(capsys):
    labels = LABELS[(LABELS != 3) & (LABELS != 8)]
    assert (folds.split(labels, recipe(folds=2)) >= 0).all()
    assert capsys.readouterr().out == "no training row has the label 3, 8: no network will predict it\n"
    folds.split(LABELS, recipe(folds=2))
    assert capsys.readouterr().out == ""


SPLITS = [{"folds": 3, "repeats": 2}, {"holdout": 0.15}, {"holdout": 0.15, "holdout_rows": "first"}]


@pytest.mark.parametrize("options", SPLITS)
def test_csv_keeps_the_split(tmp_path, options):
    wanted = recipe(**options)
    table = folds.split(LABELS, wanted)
    folds.to_csv(tmp_path / "folds.csv", table, LABELS)
    assert (tmp_path / "folds.csv").read_text().startswith("row,label,repeat_0")
    again = folds.from_csv(tmp_path / "folds.csv", LABELS)
    assert folds.fingerprint(again) == folds.fingerprint(table)
    assert folds.adopt(wanted, again, {*options}) == wanted
    # what was not given is as folds.csv has it; a holdout is known to a row
    adopted = folds.adopt(recipe(), again, set())
    assert (adopted.folds, adopted.repeats) == (wanted.folds, wanted.repeats)
    assert adopted.holdout_rows == wanted.holdout_rows
    assert adopted.holdout == pytest.approx(wanted.holdout, abs=1 / len(LABELS))
    with pytest.raises(UserError, match=r"folds.csv has folds="):
        folds.adopt(recipe(folds=7), again, {"folds"})
    if wanted.holdout:
        other = "random" if wanted.holdout_rows == "first" else "first"
        with pytest.raises(UserError, match=f"holdout_rows={wanted.holdout_rows}, not {other}"):
            folds.adopt(dataclasses.replace(wanted, holdout_rows=other), again, {"holdout_rows"})


def test_rounding_is_no_other_holdout():
    wanted = recipe(holdout=0.55)  # of 100 rows, in floating point, a hair more than 55
    table = folds.split(np.repeat(np.arange(10), 10), wanted)
    assert (table >= 0).sum() == 56 and folds.adopt(wanted, table, {"holdout"}) == wanted


CELLS = ("x", "", "1.5", "-2", "257", "1e400", "9" * 20, str(2**63), str(-(2**63)))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda text: "", "No columns"),
        (lambda text: text.replace("repeat_0", "fold"), "its columns are not"),
        (lambda text: "\n".join(text.split("\n")[:-9]), "made for other training rows, its labels differ"),
        (lambda text: text.replace("\n0,", "\n0,1", 1), "its labels differ: delete it and run"),
        (lambda text: text.replace(",1\n", ",7\n"), "repeat_0 has no row of fold 1"),
        (lambda text: re.sub(r",\d\n", ",-1\n", text), "repeat_0 has no row of fold 0"),
        (lambda text: re.sub(r",\d\n", ",0\n", text), "repeat_0 leaves no row to train on"),
        *((lambda text, cell=cell: text.replace(",1\n", f",{cell}\n", 1), "is not a whole num") for cell in CELLS),
    ],
)
def test_a_damaged_csv_is_refused(tmp_path, spoil, message):
    folds.to_csv(tmp_path / "folds.csv", folds.split(LABELS, recipe(folds=3)), LABELS)
    (tmp_path / "folds.csv").write_text(spoil((tmp_path / "folds.csv").read_text()))
    with pytest.raises(UserError, match=message):
        folds.from_csv(tmp_path / "folds.csv", LABELS)


def test_rows_of_ones_own_folds_may_never_be_validated():
    """Each member learns from them; no holdout comes of it."""
    table = folds.split(LABELS, recipe(folds=5))
    table[::2] = -1
    adopted = folds.adopt(recipe(), table, set())
    assert (adopted.folds, adopted.holdout, adopted.holdout_rows) == (5, 0, "random")
    for member in members(table):
        assert set(range(0, len(LABELS), 2)) <= set(member.train_rows.tolist())


def test_folds_that_cannot_be_trained_are_refused(tmp_path):
    path = tmp_path / "folds.csv"
    with pytest.raises(UserError, match=r"folds.csv is missing"):
        folds.from_csv(path, LABELS)
    table = folds.split(LABELS, recipe(folds=3, repeats=2))
    table[table[:, 1] == 2, 1] = 0
    folds.to_csv(path, table, LABELS)
    with pytest.raises(UserError, match="repeat_1 has no row of fold 2"):
        folds.from_csv(path, LABELS)
