"""Reading the CSVs: what is accepted, what is refused and how, and the cache."""

import os
import re

import numpy as np
import pandas as pd
import pytest
from conftest import write_csvs

from digit_recognizer.data import digits
from digit_recognizer.data.digits import Dataset, Digits
from digit_recognizer.data.places import FILES
from digit_recognizer.errors import UserError


def same(one: Dataset, other: Dataset) -> bool:
    return one.fingerprint() == other.fingerprint() and one.columns == other.columns


def read(folder):
    return digits.read(folder, folder / "no cache")


def test_reads_what_pandas_reads(tmp_path):
    random = np.random.default_rng(0)
    # every value, so that every number of digits stands beside every other
    images = random.integers(0, 256, (3000, 28, 28), dtype=np.uint8)
    labels = random.integers(0, 10, 3000, dtype=np.uint8)
    ids = np.arange(1, 3001).astype(str)
    folder = write_csvs(
        tmp_path, Dataset(Digits(images, labels, ids), Digits(images[::-1], None, ids), ("I", "Label"), "")
    )
    result = read(folder)
    table = pd.read_csv(folder / "train.csv").to_numpy()
    assert (result.train.labels == table[:, 0]).all()
    assert (result.train.images.reshape(3000, -1) == table[:, 1:]).all()
    assert (result.test.images.reshape(3000, -1) == pd.read_csv(folder / "test.csv").to_numpy()).all()
    assert result.train.images.dtype == result.train.labels.dtype == np.uint8
    assert (result.test.ids == ids).all() and result.columns == ("I", "Label")


@pytest.mark.parametrize("eol", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["", "eol", "eol eol"])
def test_line_endings_and_bom_do_not_count(dataset, tmp_path, eol, bom, end):
    write_csvs(tmp_path, dataset, eol=eol)
    for name in FILES:
        whole = (tmp_path / name).read_bytes().decode().removesuffix(eol)
        (tmp_path / name).write_bytes((bom + whole + eol * len(end.split())).encode())
    assert same(read(tmp_path), dataset)


def test_another_competition_of_this_shape(dataset, tmp_path):
    """Kannada-MNIST: `id,label`, and the ids, from 0, are in test.csv too."""
    ids = np.arange(1000, 1020).astype(str)
    kannada = Dataset(dataset.train, Digits(dataset.test_images, None, ids), ("id", "label"), "competition")
    result = read(write_csvs(tmp_path, kannada, test_ids=True))
    assert result.columns == ("id", "label")
    assert (result.test.ids == ids).all() and (result.test.images == dataset.test_images).all()


def cell(file, row, column, value):
    """A fault: that cell (row from 1, column from 0) of that file is `value`."""

    def spoil(folder):
        lines = (folder / file).read_text().split("\n")
        cells = lines[row].split(",")
        cells[column] = value
        lines[row] = ",".join(cells)
        (folder / file).write_text("\n".join(lines))

    return spoil


def text(file, change):
    """A fault: the text of that file is changed."""

    def spoil(folder):
        (folder / file).write_text(change((folder / file).read_text()))

    return spoil


def pixels(count):
    return lambda whole: "\n".join(
        ",".join((line + ",0,0").split(",")[: count + 1]) for line in whole.split("\n") if line
    )


FAULTS = {
    "missing": (lambda folder: (folder / "train.csv").unlink(), "train.csv is missing"),
    "one without the other": (lambda folder: (folder / "test.csv").unlink(), "test.csv is missing"),
    "no sample submission": (
        lambda folder: (folder / "sample_submission.csv").unlink(),
        "sample_submission.csv is missing",
    ),
    "empty": (text("train.csv", lambda whole: ""), "train.csv is empty"),
    "blank": (text("test.csv", lambda whole: "\n\n"), "test.csv is empty"),
    "empty sample": (text("sample_submission.csv", lambda whole: ""), "sample_submission.csv: it is empty"),
    "header alone": (
        text("train.csv", lambda whole: whole.split("\n")[0] + "\n"),
        "train.csv has a header and no rows",
    ),
    "not CSV": (
        lambda folder: (folder / "train.csv").write_bytes(b"PK\x03\x04\xff\xfe\x00" * 90),
        "train.csv: its first line",
    ),
    "HTML": (text("test.csv", lambda whole: "<!DOCTYPE html>\n<html>"), "test.csv: its first line"),
    "not CSV sample": (
        lambda folder: (folder / "sample_submission.csv").write_bytes(b"PK\x03\x04\xff"),
        "not a CSV",
    ),
    "no header": (
        text("train.csv", lambda whole: whole.split("\n", 1)[1]),
        "train.csv: its first line is '.*not the header",
    ),
    "wrong name": (
        text("train.csv", lambda whole: whole.replace("pixel5,", "pixle5,")),
        "'pixle5' where pixel5 belongs",
    ),
    "783 pixels": (text("train.csv", pixels(783)), "783 pixel columns, not 784"),
    "785 pixels": (
        text("train.csv", lambda whole: pixels(785)(whole).replace("pixel783,0", "pixel783,pixel784")),
        "785 pixel",
    ),
    "a letter": (cell("train.csv", 4, 18, "x"), r"train.csv: row 4 \(line 5\), column pixel17: 'x'"),
    "a negative": (cell("test.csv", 7, 1, "-1"), r"test.csv: row 7 \(line 8\), column pixel1: '-1'"),
    "256": (cell("train.csv", 1, 784, "256"), "row 1 .*column pixel783: '256'.* from 0 to 255"),
    "1000": (cell("train.csv", 80, 1, "1000"), "row 80 .*column pixel0: '1000'"),
    "12.5": (cell("train.csv", 2, 3, "12.5"), "row 2 .*column pixel2: '12.5'"),
    "hexadecimal": (cell("train.csv", 2, 3, "0x1f"), "row 2 .*column pixel2: '0x1f'"),
    "empty cell": (cell("train.csv", 3, 2, ""), "row 3 .*column pixel1: empty"),
    "empty first cell": (cell("test.csv", 1, 0, ""), "row 1 .*column pixel0: empty"),
    "label 10": (
        cell("train.csv", 9, 0, "10"),
        r"row 9 \(line 10\), column label: '10', not a whole number from 0 to 9",
    ),
    "label -1": (cell("train.csv", 9, 0, "-1"), "row 9 .*column label: '-1'"),
    "no label": (cell("train.csv", 9, 0, ""), "row 9 .*column label: empty"),
    "a long row": (
        text("train.csv", lambda whole: whole.rstrip("\n") + ",1\n"),
        r"row 80 \(line 81\) has 786 columns, not 785",
    ),
    "truncated": (
        text("train.csv", lambda whole: whole[:-100]),
        "row 80 .* columns, not 785: is the file cut off",
    ),
    "truncated behind a comma": (
        text("test.csv", lambda whole: whole[:-2]),
        "row 20 .*column pixel783: empty",
    ),
    "train as test": (
        lambda folder: (folder / "test.csv").write_bytes((folder / "train.csv").read_bytes()),
        "is it train.csv",
    ),
    "test as train": (
        lambda folder: (folder / "train.csv").write_bytes((folder / "test.csv").read_bytes()),
        "is it test.csv",
    ),
    "another column": (
        text("train.csv", lambda whole: whole.replace("label", "digit")),
        "first column is 'digit', not 'Label'",
    ),
    "an unknown id": (
        text("test.csv", lambda whole: whole.replace("pixel0", "name,pixel0", 1)),
        "first column is 'name'",
    ),
    "fewer test rows": (
        text("test.csv", lambda whole: whole[: whole.rstrip("\n").rindex("\n") + 1]),
        "19 rows.*has 20",
    ),
    "three columns": (
        text("sample_submission.csv", lambda whole: whole.replace(",", ",a,")),
        "its first line",
    ),
    "a cut sample": (
        text("sample_submission.csv", lambda whole: whole[:-4] + "\n"),
        "row 20 .* has 1 columns, not 2",
    ),
    "an id twice": (
        text("sample_submission.csv", lambda whole: whole.replace("\n5,", "\n4,")),
        "an id is there twice",
    ),
    "no ids": (text("sample_submission.csv", lambda whole: "ImageId,Label\n"), "no rows"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_refuses(csvs, fault):
    spoil, message = FAULTS[fault]
    spoil(csvs)
    with pytest.raises(UserError, match=message) as refusal:
        read(csvs)
    assert "\n" not in str(refusal.value)


def test_refuses_ids_that_differ(dataset, tmp_path):
    write_csvs(tmp_path, dataset, test_ids=True)
    cell("sample_submission.csv", 3, 0, "77")(tmp_path)
    with pytest.raises(
        UserError, match=r"test.csv: row 3, column ImageId: '3', but sample_submission.csv has '77'"
    ):
        read(tmp_path)


def test_unusual_numbers_are_read_too(csvs, dataset):
    cell("train.csv", 2, 1, " 007 ")(csvs)
    assert read(csvs).train.images[1, 0, 0] == 7


def test_cache(csvs, dataset, tmp_path, monkeypatch):
    cache = tmp_path / "run" / "cache" / "digits.npz"
    digits.keep(digits.read(csvs, cache), csvs, cache)
    with monkeypatch.context() as patch:
        patch.setattr(digits, "_parse", None)  # would fail if it were needed
        assert same(digits.read(csvs, cache), dataset)
        os.utime(csvs / "train.csv")  # another time, the same contents
        assert same(digits.read(csvs, cache), dataset)

    old = (csvs / "train.csv").read_text()
    first = old.index("\n") + 1
    changed = old[:first] + ("1" if old[first] == "0" else "0") + old[first + 1 :]  # of the same size
    (csvs / "train.csv").write_text(changed)
    os.utime(csvs / "train.csv", ns=(1, 1))
    assert not same(digits.read(csvs, cache), dataset)

    (csvs / "train.csv").write_text(old)
    cache.write_bytes(cache.read_bytes()[:-500])
    assert same(digits.read(csvs, cache), dataset)


def test_sample_looks_like_the_competition():
    sample = digits.sample()
    assert sample.is_sample and not re.search("competition", sample.source)
    assert sample.train.images.shape[1:] == (28, 28) and sample.train.images.dtype == np.uint8
    assert np.bincount(sample.train.labels).min() > 100
    assert len(sample.test.images) == len(sample.test.ids) == 497 and sample.test.labels is None
    border = sample.train.images.copy()
    border[:, 4:24, 4:24] = 0
    assert sample.train.images.max() == 255 and border.max() == 0


def test_overlap_counts_test_rows_that_are_training_rows(dataset):
    assert dataset.overlap() == 0
    images = np.concatenate([dataset.test_images, dataset.train_images[[3, 3, 7]]])
    twice = Dataset(
        dataset.train, Digits(images, None, np.arange(23).astype(str)), dataset.labels.columns, "competition"
    )
    assert twice.overlap() == 3
