"""Reading the competition's CSVs: what is accepted, what is refused and how; the sample."""

import dataclasses
import re

import numpy as np
import pandas as pd
import pytest
from conftest import write_csvs

from digit_recognizer.data import digits
from digit_recognizer.data.digits import Dataset
from digit_recognizer.data.paths import FILES
from digit_recognizer.files import UserError


def same(one: Dataset, other: Dataset) -> bool:
    return one.fingerprint == other.fingerprint and one.kind == other.kind


def test_reads_what_pandas_reads(tmp_path):
    random = np.random.default_rng(0)
    # every value, so that every number of digits stands beside every other
    images = random.integers(0, 256, (3000, 28, 28), dtype=np.uint8)
    labels = random.integers(0, 10, 3000, dtype=np.uint8)
    ids = np.arange(1, 3001).astype(str)
    folder = write_csvs(tmp_path, Dataset(images, labels, images[::-1], None, ids, ("I", "Label")))
    result = digits.load(folder)
    table = pd.read_csv(folder / "train.csv").to_numpy()
    assert (result.train_labels == table[:, 0]).all()
    assert (result.train_images.reshape(3000, -1) == table[:, 1:]).all()
    assert (result.test_images.reshape(3000, -1) == pd.read_csv(folder / "test.csv").to_numpy()).all()
    for array in (result.train_images, result.train_labels, result.test_images):
        assert array.dtype == np.uint8 and array.flags.c_contiguous
    assert (result.ids == ids).all() and result.columns == ("I", "Label")


@pytest.mark.parametrize("eol", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("end", [0, 1, 2])
def test_encoding_and_line_endings_do_not_count(dataset, tmp_path, eol, encoding, end):
    write_csvs(tmp_path, dataset, eol=eol)
    for name in FILES:
        whole = (tmp_path / name).read_bytes().decode().removesuffix(eol)
        (tmp_path / name).write_bytes((whole + eol * end).encode(encoding))
    assert same(digits.load(tmp_path), dataset)


def test_another_competition_of_this_shape(dataset, tmp_path):
    """Kannada-MNIST: `id,label`, and the ids, from 0, are in test.csv too."""
    kannada = dataclasses.replace(dataset, ids=np.arange(1000, 1020).astype(str), columns=("id", "label"))
    assert same(digits.load(write_csvs(tmp_path, kannada, test_ids=True)), kannada)


def cell(file, row, column, value):
    """A change: that cell (row from 1, column from 0) of that file is `value`."""

    def change(folder):
        lines = (folder / file).read_text().split("\n")
        cells = lines[row].split(",")
        cells[column] = value
        lines[row] = ",".join(cells)
        (folder / file).write_bytes("\n".join(lines).encode())

    return change


def text(file, replace):
    """A change of the text of a file."""

    def change(folder):
        (folder / file).write_text(replace((folder / file).read_text()))

    return change


def rows(change_row, *files, header=None):
    """A change of each line of the files: of its cells; `header` changes those of the first line instead."""

    def change(folder):
        for file in files or FILES:
            lines = [line.split(",") for line in (folder / file).read_text().splitlines()]
            changed = [(header or change_row)(lines[0]), *map(change_row, lines[1:])]
            (folder / file).write_text("\n".join(map(",".join, changed)) + "\n")

    return change


def renamed(name):
    """The header of pixels that are called as the function `name` of their number says."""
    return lambda cells: [c if not c.startswith("pixel") else name(int(c[5:])) for c in cells]


CSVS = ("train.csv", "test.csv")

READ = {
    "semicolons": text("train.csv", lambda whole: whole.replace(",", ";")),
    "tabs": text("sample_submission.csv", lambda whole: whole.replace(",", "\t")),
    "spaces": rows(lambda cells: [f" {cell} " for cell in cells]),
    "quoted": rows(lambda cells: [f'"{cell}"' for cell in cells]),
    "quoted after spaces": rows(lambda cells: [f' "{cell}"' for cell in cells]),
    "trailing commas": rows(lambda cells: [*cells, ""]),
    "whole numbers with a point": rows(lambda cells: [f"{c}.0" for c in cells], *CSVS, header=list),
    "row numbers of pandas": rows(lambda cells: ["7", *cells], header=lambda cells: ["", *cells]),
    "row numbers of pandas, twice": rows(lambda c: ["0", *c], header=lambda cells: ["Unnamed: 0", *cells]),
    "row names of R": rows(lambda cells: ['"a"', *cells], *CSVS, header=lambda cells: ['""', *cells]),
    "no header": text("train.csv", lambda whole: whole.split("\n", 1)[1]),
    "label after the pixels": rows(lambda cells: [*cells[1:], cells[0]], "train.csv"),
    "pixels from 1": rows(list, *CSVS, header=renamed(lambda i: f"pixel{i + 1}")),
    "other names of pixels": rows(list, *CSVS, header=renamed("Px_{}".format)),
    "numbers as names": rows(list, *CSVS, header=renamed(str)),
    "MNIST's names": rows(list, *CSVS, header=renamed(lambda i: f"{i // 28 + 1}x{i % 28 + 1}")),
    "capital letters": rows(list, "train.csv", header=lambda cells: [cell.upper() for cell in cells]),
    "leading zeros": rows(lambda cells: ["0" * 5000 + cells[0], *cells[1:]], "train.csv", header=list),
    "ids called id": text(
        "test.csv",
        lambda whole: "\n".join(f"{i or 'id'},{line}" for i, line in enumerate(whole.splitlines())),
    ),
}


@pytest.mark.parametrize("kind", READ)
def test_reads_as_people_write(csvs, dataset, kind):
    READ[kind](csvs)
    assert same(digits.load(csvs), dataset)


def unlink(file):
    return lambda folder: (folder / file).unlink()


def overwrite(file, content):
    return lambda folder: (folder / file).write_bytes(content)


def pixels(count):
    return rows(
        lambda cells: cells[: count + 1], "train.csv", header=lambda cells: [*cells, "pixel784"][: count + 1]
    )


def copy(source, target):
    return lambda folder: (folder / target).write_bytes((folder / source).read_bytes())


IN_ORDER = ": they have to be in order"

FAULTS = {
    "missing": (unlink("train.csv"), "train.csv is missing: .*found sample_submission.csv, test.csv"),
    "no sample submission": (unlink("sample_submission.csv"), "sample_submission.csv is missing"),
    "empty": (overwrite("train.csv", b""), "train.csv is empty"),
    "blank": (overwrite("test.csv", b"\n\n"), "test.csv is empty"),
    "header alone": (text("train.csv", lambda t: t.split("\n")[0] + "\n"), "has a header and no rows"),
    "a zip archive": (overwrite("train.csv", b"PK\x03\x04\xff\0"), "train.csv is a zip archive or an Excel"),
    "a web page": (overwrite("test.csv", b"\n <!DOCTYPE html>\n<html>"), "test.csv is a web page"),
    "a pointer": (
        overwrite("test.csv", b"version https://git-lfs.github\n"),
        "pointer of Git LFS .*: run git lfs",
    ),
    "a picture": (
        overwrite("sample_submission.csv", b"\x89PNG\n\xff"),
        "first line is .*, not two names such as",
    ),
    "a comment first": (
        text("train.csv", lambda t: "# of 2026, mine\n" + t),
        "its first line is '# of 2026,mine', not the header label,pixel0,...,pixel783: column 1 is '# of 2026'",
    ),
    "a sample without header": (
        text("sample_submission.csv", lambda t: t.split("\n", 1)[1]),
        "'1,0', not a header",
    ),
    "a wrong name": (
        text("train.csv", lambda t: t.replace("pixel5,", "pixle5,")),
        "'pixle5' as pixel 6" + IN_ORDER,
    ),
    "another order": (
        rows(list, "train.csv", header=renamed(lambda i: f"pixel{783 - i}")),
        "'pixel783' as pixel 1:",
    ),
    "a name too long": (
        text("train.csv", lambda t: t.replace("pixel5,", "p" + "5" * 5000 + ",")),
        "column 7 is 'p5",
    ),
    "783 pixels": (pixels(783), "0 id, 1 label, 783 pixel columns, not 784 pixel columns"),
    "785 pixels": (pixels(785), "785 pixel columns, not 784"),
    "pixels of 0 and 1": (
        rows(lambda cells: [str(int(cell != "0")) for cell in cells], "test.csv", header=list),
        "test.csv: its greatest pixel is 1: pixels of 0 to 1 have to be multiplied by 255",
    ),
    "two open quotes": (
        lambda folder: [cell("train.csv", row, 3, '"5')(folder) for row in (2, 5)],
        "row 2 .*column pixel2: '\"5'",
    ),
    "a zero byte": (cell("train.csv", 2, 3, "5\0"), r"row 2 \(line 3\) holds a zero byte"),
    "a blank line": (
        text("train.csv", lambda t: t.replace("\n3,", "\n\n3,", 1)),
        r"is blank: remove that line",
    ),
    "a long row": (
        text("train.csv", lambda t: t[:-1] + ",1\n"),
        r"row 80 \(line 81\) has 786 columns, not 785$",
    ),
    "a comma after every row": (
        rows(lambda cells: [*cells, ""], "test.csv", header=list),
        r"row 1 \(line 2\) has 785 columns, not 784",
    ),
    "a short row and a long one": (
        text("test.csv", lambda t: ",1\n".join(t.replace(",0\n", "\n", 1).rsplit("\n", 1))),
        r"row 1 \(line 2\) has 783 columns, not 784",
    ),
    "truncated": (text("train.csv", lambda t: t[:-100]), "row 80 .* columns, not 785: is the file cut off"),
    "one label": (
        text("train.csv", lambda t: "\n".join([*t.split("\n")[:1], *["3" + ",0" * 784] * 9, ""])),
        r"train.csv: all rows \(9\) have the label 3: nothing can be learned",
    ),
    "train as test": (
        copy("train.csv", "test.csv"),
        "test.csv has labels: is it train.csv, or MNIST's test file",
    ),
    "test as train": (
        copy("test.csv", "train.csv"),
        "train.csv: no column is called 'Label': is it test.csv",
    ),
    "another column": (text("train.csv", lambda t: t.replace("label", "digit")), "column 1 is 'digit'"),
    "fewer test rows": (text("test.csv", lambda t: t[: t[:-1].rindex("\n") + 1]), "19 rows.*has 20"),
    "three columns": (text("sample_submission.csv", lambda t: t.replace(",", ",a,")), "its first line"),
    "a cut sample": (
        text("sample_submission.csv", lambda t: t[:-4] + "\n"),
        "row 20 .* has 1 columns, not 2",
    ),
    "an id twice": (
        text("sample_submission.csv", lambda t: t.replace("\n5,", "\n4,")),
        "an id is there twice",
    ),
    "no ids": (overwrite("sample_submission.csv", b"ImageId,Label\n"), "no rows"),
}


def check_refusal(folder, message):
    with pytest.raises(UserError, match=message) as refusal:
        digits.load(folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("fault", FAULTS)
def test_refuses(csvs, fault):
    spoil, message = FAULTS[fault]
    spoil(csvs)
    check_refusal(csvs, message)


BAD = ["x", "-1", "-0", "+5", "256", "1000", "12.5", "1e2", "0x1f", "True", "NaN", '"5', "1 2", "1\r2"]
BAD += ["\ufeff1", "\u0665", "9" * 20, str(2**64 - 1), "1" * 40]


@pytest.mark.parametrize("value", BAD)
def test_refuses_a_pixel(csvs, value):
    cell("test.csv", 7, 3, value)(csvs)
    shown = re.escape(repr(value))
    check_refusal(
        csvs, rf"test.csv: row 7 \(line 8\), column pixel3: {shown}, not a whole number from 0 to 255$"
    )


@pytest.mark.parametrize(
    ("file", "column", "value", "message"),
    [
        ("train.csv", 784, "", "column pixel783: empty, not"),
        ("test.csv", 0, "", "column pixel0: empty, not"),
        ("train.csv", 2, "   ", "column pixel1: empty, not"),
        ("train.csv", 2, "1" * 5000, r"column pixel1: '1{40}\.\.\.', not"),
        (
            "test.csv",
            2,
            "0.5",
            "'0.5', not a whole number from 0 to 255: pixels of 0 to 1 have to be multiplied by 255",
        ),
        ("train.csv", 0, "10", "column label: '10', not a whole number from 0 to 9$"),
        ("train.csv", 0, "0.5", "column label: '0.5', not a whole number from 0 to 9$"),
        ("train.csv", 0, "one", "column label: 'one', not"),
        ("train.csv", 0, "", "column label: empty, not"),
    ],
)
def test_refuses_a_cell(csvs, file, column, value, message):
    cell(file, 9, column, value)(csvs)
    check_refusal(csvs, rf"{file}: row 9 \(line 10\), .*{message}")


def test_refuses_ids_that_differ(dataset, tmp_path):
    write_csvs(tmp_path, dataset, test_ids=True)
    cell("sample_submission.csv", 3, 0, "77")(tmp_path)
    check_refusal(tmp_path, r"test.csv: row 3, column ImageId: '3', but sample_submission.csv has '77'")


def test_sample_looks_like_the_competition():
    sample = digits.load(None)
    assert sample.is_sample and sample.kind == "sample"
    assert sample.train_images.shape[1:] == (28, 28) and sample.train_images.dtype == np.uint8
    assert np.bincount(sample.train_labels).min() > 100
    assert len(sample.test_images) == len(sample.ids) == 497 and sample.test_labels is None
    border = sample.train_images.copy()
    border[:, 4:24, 4:24] = 0
    assert sample.train_images.max() == 255 and border.max() == 0


def test_overlap_pairs_test_rows_with_training_rows(dataset):
    assert dataset.overlap == []
    images = np.concatenate([dataset.test_images, dataset.train_images[[3, 3, 7]]])
    assert dataclasses.replace(dataset, test_images=images).overlap == [(20, 3), (21, 3), (22, 7)]
