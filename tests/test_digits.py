"""Reading the competition's CSVs: what is accepted, what is refused and how; labels without pixels."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from conftest import write_csvs

from digit_recognizer.data import digits
from digit_recognizer.data.digits import Dataset, Labels
from digit_recognizer.data.paths import FILES
from digit_recognizer.files import UserError


def same(one: Dataset, other: Dataset) -> bool:
    return one.fingerprint() == other.fingerprint() and one.kind == other.kind


def test_reads_what_pandas_reads(tmp_path):
    random = np.random.default_rng(0)
    # every value, so that every number of digits stands beside every other
    images = random.integers(0, 256, (3000, 28, 28), dtype=np.uint8)
    labels = random.integers(0, 10, 3000, dtype=np.uint8)
    ids = np.arange(1, 3001).astype(str)
    folder = write_csvs(
        tmp_path, Dataset(images, images[::-1], Labels(labels, None, ids, ("I", "Label"), "competition"))
    )
    result = digits.load(folder)
    table = pd.read_csv(folder / "train.csv").to_numpy()
    assert (result.train_labels == table[:, 0]).all()
    assert (result.train_images.reshape(3000, -1) == table[:, 1:]).all()
    assert (result.test_images.reshape(3000, -1) == pd.read_csv(folder / "test.csv").to_numpy()).all()
    assert result.train_images.dtype == result.train_labels.dtype == np.uint8
    assert (result.ids == ids).all() and result.columns == ("I", "Label")


@pytest.mark.parametrize("eol", ["\n", "\r\n"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["", "eol", "eol eol"])
def test_line_endings_and_bom_do_not_count(dataset, tmp_path, eol, bom, end):
    write_csvs(tmp_path, dataset, eol=eol)
    for name in FILES:
        whole = (tmp_path / name).read_bytes().decode().removesuffix(eol)
        (tmp_path / name).write_bytes((bom + whole + eol * len(end.split())).encode())
    assert same(digits.load(tmp_path), dataset)


def test_another_competition_of_this_shape(dataset, tmp_path):
    """Kannada-MNIST: `id,label`, and the ids, from 0, are in test.csv too."""
    ids = np.arange(1000, 1020).astype(str)
    labels = dataclasses.replace(dataset, ids=ids, columns=("id", "label"))
    folder = write_csvs(tmp_path, dataclasses.replace(dataset, labels=labels), test_ids=True)
    assert same(digits.load(folder), dataclasses.replace(dataset, labels=labels))
    assert digits.load_labels(folder).fingerprint() == labels.fingerprint()


def cell(file, row, column, value):
    """A fault: that cell (row from 1, column from 0) of that file is `value`."""

    def spoil(folder):
        lines = (folder / file).read_text().split("\n")
        cells = lines[row].split(",")
        cells[column] = value
        lines[row] = ",".join(cells)
        (folder / file).write_bytes("\n".join(lines).encode())

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
    "a sign": (cell("train.csv", 2, 3, "+5"), r"row 2 .*column pixel2: '\+5'"),
    "minus nothing": (cell("train.csv", 2, 3, "-0"), "row 2 .*column pixel2: '-0'"),
    "12.0": (cell("train.csv", 2, 3, "12.0"), "row 2 .*column pixel2: '12.0'"),
    "1e2": (cell("train.csv", 2, 3, "1e2"), "row 2 .*column pixel2: '1e2'"),
    "a quoted number": (cell("train.csv", 2, 3, '"5"'), "row 2 .*column pixel2: '\"5\"'"),
    "a quote that is not closed": (cell("train.csv", 2, 3, '"5'), "row 2 .*column pixel2: '\"5'"),
    "a zero byte": (cell("train.csv", 2, 3, "5\0"), r"row 2 .*column pixel2: '5\\x00'"),
    "True": (cell("train.csv", 2, 3, "True"), "row 2 .*column pixel2: 'True'"),
    "NaN": (cell("test.csv", 2, 3, "NaN"), "row 2 .*column pixel3: 'NaN'"),
    "two numbers": (cell("train.csv", 2, 3, "1 2"), "row 2 .*column pixel2: '1 2'"),
    "a carriage return": (cell("train.csv", 2, 3, "1\r2"), r"row 2 .*column pixel2: '1\\r2'"),
    "other digits": (cell("train.csv", 2, 3, "\u0665"), "row 2 .*column pixel2"),
    "beyond int64": (cell("train.csv", 2, 3, "9" * 20), "row 2 .*column pixel2: '9{20}'"),
    "beyond uint64": (
        cell("train.csv", 2, 3, str(2**64 + 1)),
        "row 2 .*column pixel2: '18446744073709551617'",
    ),
    "more digits than Python converts": (
        cell("train.csv", 2, 3, "1" * 5000),
        r"row 2 .*column pixel2: '1{40}\.\.\.'",
    ),
    "spaces alone": (cell("train.csv", 3, 2, "   "), "row 3 .*column pixel1: empty"),
    "a byte order mark inside": (cell("train.csv", 2, 0, "\ufeff1"), "row 2 .*column label"),
    "a blank line": (
        text("train.csv", lambda whole: whole.replace("\n", "\n\n", 2).replace("\n\n", "\n", 1)),
        r"row 2 \(line 3\) has 1 columns, not 785",
    ),
    "a long first row": (
        text("train.csv", lambda whole: whole.replace("\n", ",1\n", 2).replace(",1\n", "\n", 1)),
        r"row 1 \(line 2\) has 786 columns, not 785",
    ),
    "a comma after the first row": (
        text("train.csv", lambda whole: whole.replace("\n", ",\n", 2).replace(",\n", "\n", 1)),
        r"row 1 \(line 2\) has 786 columns, not 785",
    ),
    "a comma after every row": (
        text("test.csv", lambda whole: whole.replace("\n", ",\n").replace(",\n", "\n", 1)),
        r"row 1 \(line 2\) has 785 columns, not 784",
    ),
    "one more column in every row": (
        text("test.csv", lambda whole: whole.replace("\n", "\n1,").removesuffix("1,")),
        r"row 1 \(line 2\) has 785 columns, not 784",
    ),
    "one column less in every row": (
        text("test.csv", lambda whole: whole.replace(",0\n", "\n")),
        r"row 1 \(line 2\) has 783 columns, not 784",
    ),
    "a short row and a long one": (
        text("test.csv", lambda whole: ",1\n".join(whole.replace(",0\n", "\n", 1).rsplit("\n", 1))),
        r"row 1 \(line 2\) has 783 columns, not 784",
    ),
    "one label": (
        text("train.csv", lambda whole: "\n".join([*whole.split("\n")[:1], *["3" + ",0" * 784] * 9, ""])),
        r"train.csv: all rows \(9\) have the label 3: nothing can be learned",
    ),
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
        digits.load(csvs)
    assert "\n" not in str(refusal.value)


def test_refuses_ids_that_differ(dataset, tmp_path):
    write_csvs(tmp_path, dataset, test_ids=True)
    cell("sample_submission.csv", 3, 0, "77")(tmp_path)
    with pytest.raises(
        UserError, match=r"test.csv: row 3, column ImageId: '3', but sample_submission.csv has '77'"
    ):
        digits.load(tmp_path)


def test_unusual_numbers_are_read_too(csvs, dataset):
    cell("train.csv", 2, 1, " 007 ")(csvs)
    cell("train.csv", 3, 0, "0" * 5000 + "4")(csvs)
    cell("test.csv", 2, 1, "\t9")(csvs)
    result = digits.load(csvs)
    assert (
        result.train_images[1, 0, 0] == 7 and result.train_labels[2] == 4 and result.test_images[1, 0, 1] == 9
    )


def test_labels_are_read_without_pixels(csvs, dataset):
    """What is wrong with a pixel does not matter to the labels; what is wrong with a label does."""
    cell("train.csv", 4, 18, "x")(csvs)
    (csvs / "test.csv").write_text("no pixels\n")
    labels = digits.load_labels(csvs)
    assert labels.fingerprint() == dataset.fingerprint() and labels.kind == "competition"
    assert labels.train.dtype == np.uint8 and labels.train.shape == (80,) and labels.test is None
    text("train.csv", lambda whole: whole[: whole.rstrip("\n").rindex("\n") + 1])(csvs)
    assert len(digits.load_labels(csvs).train) == 79
    text("sample_submission.csv", lambda whole: whole + "99,0\n")(csvs)
    assert len(digits.load_labels(csvs).ids) == 21


LABEL_FAULTS = (
    *(
        "missing",
        "one without the other",
        "no sample submission",
        "empty",
        "header alone",
        "not CSV",
        "no header",
    ),
    *(
        "wrong name",
        "783 pixels",
        "label 10",
        "label -1",
        "no label",
        "one label",
        "a byte order mark inside",
    ),
    *(
        "test as train",
        "another column",
        "three columns",
        "a cut sample",
        "an id twice",
        "no ids",
        "not CSV sample",
    ),
)


@pytest.mark.parametrize("fault", LABEL_FAULTS)
def test_labels_are_refused_as_the_whole_is(csvs, fault):
    spoil, message = FAULTS[fault]
    spoil(csvs)
    with pytest.raises(UserError, match=message):
        digits.load_labels(csvs)


def test_sample_looks_like_the_competition():
    sample = digits.load(None)
    assert sample.is_sample and sample.kind == "sample"
    assert sample.train_images.shape[1:] == (28, 28) and sample.train_images.dtype == np.uint8
    assert np.bincount(sample.train_labels).min() > 100
    assert len(sample.test_images) == len(sample.ids) == 497 and sample.test_labels is None
    border = sample.train_images.copy()
    border[:, 4:24, 4:24] = 0
    assert sample.train_images.max() == 255 and border.max() == 0
    assert digits.load_labels(None).fingerprint() == sample.labels.fingerprint()


def test_overlap_counts_test_rows_that_are_training_rows(dataset):
    assert dataset.overlap == []
    images = np.concatenate([dataset.test_images, dataset.train_images[[3, 3, 7]]])
    assert len(dataclasses.replace(dataset, test_images=images).overlap()) == 3
