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


def changed(folder, file, change):
    """Changes the text of a file as the function `change` does."""
    (folder / file).write_bytes(change((folder / file).read_text()).encode())


def cell(row, column, value):
    """A change: that cell (row from 1, column from 0) is `value`."""

    def change(text):
        lines = [line.split(",") for line in text.split("\n")]
        lines[row][column] = value
        return "\n".join(map(",".join, lines))

    return change


def rows(change_row, header=None):
    """A change of the cells of each line; `header` changes those of the first line instead."""

    def change(text):
        first, *lines = [line.split(",") for line in text.splitlines()]
        return "\n".join(map(",".join, [(header or change_row)(first), *map(change_row, lines)])) + "\n"

    return change


def header(name):
    """A change: pixels are called as the function `name` of their number says."""
    return rows(list, lambda cells: [c if c[:5] != "pixel" else name(int(c[5:])) for c in cells])


ALL, PICTURES, TRAIN, TEST, SAMPLE = FILES, FILES[:2], FILES[:1], FILES[1:2], FILES[2:]

READ = {
    "semicolons": (TRAIN, lambda text: text.replace(",", ";")),
    "tabs": (SAMPLE, lambda text: text.replace(",", "\t")),
    "spaces": (ALL, rows(lambda cells: [f" {cell} " for cell in cells])),
    "quoted": (ALL, rows(lambda cells: [f'"{cell}"' for cell in cells])),
    "quoted after spaces": (ALL, rows(lambda cells: [f' "{cell}"' for cell in cells])),
    "trailing commas": (ALL, rows(lambda cells: [*cells, ""])),
    "whole numbers with a point": (PICTURES, rows(lambda cells: [f"{c}.0" for c in cells], list)),
    "numbers as NumPy writes them": (PICTURES, rows(lambda cells: [f"{int(c):.18e}" for c in cells], list)),
    "row numbers of pandas": (ALL, rows(lambda cells: ["7", *cells], lambda cells: ["", *cells])),
    "row numbers of pandas, twice": (ALL, rows(lambda cells: ["0", *cells], lambda c: ["Unnamed: 0", *c])),
    "row names of R": (ALL, rows(lambda cells: ['"a"', *cells], lambda cells: ['""', *cells])),
    "no header": (PICTURES, lambda text: text.split("\n", 1)[1]),
    "label after the pixels": (TRAIN, rows(lambda cells: [*cells[1:], cells[0]])),
    "pixels from 1": (PICTURES, header(lambda i: f"pixel{i + 1}")),
    "other names of pixels": (PICTURES, header("Px_{}".format)),
    "numbers as names": (PICTURES, header(str)),
    "MNIST's names": (PICTURES, header(lambda i: f"{i // 28 + 1}x{i % 28 + 1}")),
    "capital letters": (PICTURES, rows(list, lambda cells: [cell.upper() for cell in cells])),
    "leading zeros": (TRAIN, rows(lambda cells: ["0" * 5000 + cells[0], *cells[1:]], list)),
    "ids": (TEST, lambda text: "\n".join(f"{i or 'id'},{row}" for i, row in enumerate(text.split()))),
}


@pytest.mark.parametrize("kind", READ)
def test_reads_as_people_write(csvs, dataset, kind):
    files, change = READ[kind]
    for file in files:
        changed(csvs, file, change)
    assert same(digits.load(csvs), dataset)


def check_refusal(folder, message):
    with pytest.raises(UserError, match=message) as refusal:
        digits.load(folder)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("file", FILES)
def test_refuses_a_missing_file(csvs, file):
    (csvs / file).unlink()
    check_refusal(csvs, f"{file} is missing: looked for .*, found .*csv, .*csv; run python scripts/download.py")


ORDER = ": they have to be in order"
SCALE = "pixels of 0 to 1 have to be multiplied by 255"
COMMENT = "its first line is '# of 2026,mine', not the header label,pixel0,...,pixel783: column 1 is '# of 2026'"

FAULTS = {
    "train.csv": {
        "empty": (lambda text: "", "is empty"),
        "blank": (lambda text: "\n \n", "is empty"),
        "header alone": (lambda text: text.split("\n")[0] + "\n", "has a header and no rows"),
        "a zip archive": (lambda text: "PK\x03\x04\x0f\0", "is a zip archive or an Excel workbook"),
        "a web page": (lambda text: "\n <!DOCTYPE html>\n<html>", "is a web page"),
        "a pointer": (lambda text: "version https://git-lfs.github", "pointer of Git LFS .*: run git lfs"),
        "UTF-16 without its mark": (lambda text: "\0".join(text), "first line holds zero bytes: save it as"),
        "a comment first": (lambda text: "# of 2026, mine\n" + text, COMMENT),
        "a wrong name": (lambda text: text.replace("pixel5,", "pixle5,"), "'pixle5' as pixel 6" + ORDER),
        "another order": (header(lambda i: f"pixel{783 - i}"), "'pixel783' as pixel 1" + ORDER),
        "a name too long": (lambda text: text.replace("pixel5,", "p" + "5" * 5000 + ","), "column 7 is 'p5"),
        "783 pixels": (rows(lambda cells: cells[:-1]), "0 id, 1 label, 783 pixel columns, not 784"),
        "785 pixels": (rows(lambda cells: [*cells, "0"], lambda c: [*c, "pixel784"]), "785 pixel columns"),
        "another column": (lambda text: text.replace("label", "digit"), "column 1 is 'digit'"),
        "test.csv": (rows(lambda cells: cells[1:]), "no column is called 'Label': is it test.csv"),
        "a zero byte": (cell(2, 3, "5\0"), r"row 2 \(line 3\) holds a zero byte"),
        "a blank line": (lambda text: text.replace("\n", "\n\n", 2), r"row 1 \(line 2\) is blank: remove"),
        "a long row": (lambda text: text[:-1] + ",1\n", r"row 80 \(line 81\) has 786 columns, not 785$"),
        "truncated": (lambda text: text[:-100], "row 80 .* columns, not 785: is the file cut off"),
        "one label": (rows(lambda cells: ["3", *cells[1:]], list), r"all rows \(80\) have the label 3: noth"),
        "two open quotes": (lambda text: cell(5, 3, '"5')(cell(2, 3, '"5')(text)), "row 2 .*'\"5', not"),
    },
    "test.csv": {
        "0 and 1": (rows(lambda cells: [str(int(c != "0")) for c in cells], list), "pixel is 1: " + SCALE),
        "commas after rows": (rows(lambda cells: [*cells, ""], list), r"row 1 \(line 2\) has 785 columns"),
        "a short row and a long one": (lambda text: text.replace(",0\n", "\n", 1)[:-1] + ",1\n", "row 1 .*has 783 col"),
        "labels": (rows(lambda c: ["1", *c], lambda c: ["label", *c]), "has labels: is it train.csv, or MNIST"),
        "fewer rows": (lambda text: text[: text[:-1].rindex("\n") + 1], "19 rows.*has 20"),
        "other ids": (rows(lambda c: ["3", *c], lambda c: ["id", *c]), "row 1: ImageId is '3', but '1' in sample_sub"),
    },
    "sample_submission.csv": {
        "a picture": (lambda text: "\x89PNG\n\xff", "first line is .*, not two names such as"),
        "no header": (lambda text: text.split("\n", 1)[1], "'1,0', not a header"),
        "three columns": (lambda text: text.replace(",", ",a,"), "its first line"),
        "cut": (lambda text: text[:-4] + "\n", "row 20 .* has 1 columns, not 2"),
        "an id twice": (lambda text: text.replace("\n5,", "\n4,"), "an id occurs twice"),
        "no ids": (lambda text: "ImageId,Label\n", "no rows"),
    },
}


@pytest.mark.parametrize(("file", "fault"), [(file, fault) for file in FAULTS for fault in FAULTS[file]])
def test_refuses(csvs, file, fault):
    change, message = FAULTS[file][fault]
    changed(csvs, file, change)
    check_refusal(csvs, rf"{file}\b.*{message}")


BAD = ["x", "-1", "-0", "+5", "256", "1000", "12.5", "1e400", "0x1f", "True", "NaN", '"5', "1 2", "1\r2"]
BAD += ["\ufeff1", "\u0665", "9" * 20, str(2**64 - 1), "1" * 40]


@pytest.mark.parametrize(
    ("file", "column", "value", "message"),
    [
        *(
            ("test.csv", 3, value, rf"pixel3: {re.escape(repr(value))}, not a whole number from 0 to 255$")
            for value in BAD
        ),
        ("train.csv", 784, "", "pixel783: empty, not"),
        ("train.csv", 2, "   ", "pixel1: empty, not"),
        ("train.csv", 2, "1" * 5000, r"pixel1: '1{40}\.\.\.', not"),
        ("train.csv", 2, "0.5", f"pixel1: '0.5', not a whole number from 0 to 255: {SCALE}"),
        ("train.csv", 0, "10", "label: '10', not a whole number from 0 to 9$"),
        ("train.csv", 0, "0.5", "label: '0.5', not a whole number from 0 to 9$"),
        ("train.csv", 0, "one", "label: 'one', not"),
        ("train.csv", 0, "", "label: empty, not"),
    ],
)
def test_refuses_a_cell(csvs, file, column, value, message):
    changed(csvs, file, cell(9, column, value))
    check_refusal(csvs, rf"{file}: row 9 \(line 10\), column {message}")


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
