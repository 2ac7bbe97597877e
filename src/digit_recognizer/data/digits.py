"""Digits: pictures of 28 x 28 pixels with their labels, read from any form that they come in, and checked.

train.csv, test.csv and sample_submission.csv may come from any competition of this shape: the names of
the id and label columns and the ids are those of sample_submission.csv (Kannada-MNIST has `id,label`).
"""

import csv
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from digit_recognizer.data import formats, places
from digit_recognizer.errors import UserError

SIDE = 28  # pixels
PIXELS = SIDE * SIDE
CLASSES = 10
COLUMNS = ("ImageId", "Label")  # of submission.csv where no sample_submission.csv names them


@dataclass(frozen=True)
class Labels:
    """All of the data but its pixels: what scoring and submitting need.

    Where the test rows have labels, nothing but the report looks at them.
    """

    train: np.ndarray  # uint8 (training rows,)
    test: np.ndarray | None  # uint8 (test rows,), or None
    ids: np.ndarray  # str (test rows,)
    columns: tuple[str, str]  # of submission.csv: the id's name, the label's name
    kind: str  # "competition", "mnist" for MNIST's own files, or "sample" for the built-in one

    @property
    def is_sample(self) -> bool:
        """True for the built-in sample, whose predictions are no submission to a competition."""
        return self.kind == "sample"

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the contents."""
        digest = hashlib.sha256(np.ascontiguousarray(self.train))
        if self.test is not None:
            digest.update(np.ascontiguousarray(self.test))
        digest.update("\n".join([*self.columns, *self.ids]).encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Dataset:
    """What a run works on: labelled pictures, pictures to predict, and what a submission of them looks like."""

    train_images: np.ndarray  # uint8 (training rows, 28, 28)
    test_images: np.ndarray  # uint8 (test rows, 28, 28)
    labels: Labels

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the contents (not of the files: line endings and the like do not count)."""
        digest = hashlib.sha256()
        labels = self.labels
        for array in (self.train_images, labels.train, self.test_images, labels.test):
            if array is not None:
                digest.update(np.ascontiguousarray(array))
        digest.update("\n".join([*labels.columns, *labels.ids]).encode())
        return digest.hexdigest()

    def overlap(self) -> int:
        """Returns how many test pictures are, pixel for pixel, training pictures too."""
        known = {image.tobytes() for image in self.train_images}
        return sum(image.tobytes() in known for image in self.test_images)


@dataclass(frozen=True)
class _Part:
    """Pictures uint8 (n, 28, 28) of one file or pair of files, with their labels uint8 (n,)."""

    images: np.ndarray
    labels: np.ndarray


def _mnist(train: _Part, test: _Part) -> Dataset:
    """The dataset of MNIST's own files: the ids of the test rows are 1 to n."""
    ids = np.arange(1, len(test.images) + 1).astype(str)
    labels = Labels(train.labels, test.labels, ids, COLUMNS, "mnist")
    return Dataset(train.images, test.images, labels)


def load(input: Path | None) -> Dataset:
    """Returns the data in the folder `input`, or the built-in sample where that is None."""
    return sample() if input is None else read(input)


def load_labels(input: Path | None) -> Labels:
    """Returns the labels of `load`."""
    return load(input).labels


def read(folder: Path) -> Dataset:
    """Returns the data in `folder`, in whatever form it is there.

    Raises UserError, naming file, row and column, for what is missing or is no such data.
    """
    form, paths = places.data_files(folder)
    return _parse(form, paths)


def _parse(form: str, paths: list[Path]) -> Dataset:
    readers = {
        places.COMPETITION_CSVS: _read_competition,
        places.MNIST_CSVS: _read_mnist_csvs,
        places.NPZ: _read_npz,
        places.IDX: _read_idx,
    }
    return readers[form](*paths)


def _read_mnist_csvs(*paths: Path) -> Dataset:
    return _mnist(*map(_read_mnist_csv, paths))


def _read_npz(path: Path) -> Dataset:
    names = ("x_train", "y_train", "x_test", "y_test")
    return _from_arrays([f"{path}: {name}" for name in names], formats.read_npz(path, names))


def _read_idx(*paths: Path) -> Dataset:
    return _from_arrays(paths, [formats.read_idx(*each) for each in zip(paths, (3, 1, 3, 1), strict=True)])


def _from_arrays(names: Sequence[str | Path], arrays: list[np.ndarray]) -> Dataset:
    """Of training pictures and labels, test pictures and labels, and the names that a UserError gives them."""
    named = list(zip(names, arrays, strict=True))
    return _mnist(_check(*named[:2]), _check(*named[2:]))


def _check(images: tuple[str | Path, np.ndarray], labels: tuple[str | Path, np.ndarray]) -> _Part:
    (where, pixels), (where_labels, values) = images, labels
    if pixels.ndim != 3 or pixels.shape[1:] != (SIDE, SIDE) or len(pixels) == 0:
        raise UserError(f"{where} has the shape {pixels.shape}, not pictures of {SIDE} x {SIDE}")
    if values.shape != (len(pixels),):
        raise UserError(
            f"{where_labels} has the shape {values.shape}, not a label for each of {len(pixels)} pictures"
        )
    for name, array, highest in ((where, pixels, 255), (where_labels, values, CLASSES - 1)):
        if array.dtype.kind not in "iu":
            raise UserError(f"{name} holds {array.dtype}, not whole numbers from 0 to {highest}")
        wrong = np.argwhere((array < 0) | (array > highest))
        if len(wrong):
            row, value = wrong[0][0] + 1, array[tuple(wrong[0])]
            raise UserError(f"{name}: row {row}: {value}, not a whole number from 0 to {highest}")
    return _Part(np.ascontiguousarray(pixels, np.uint8), values.astype(np.uint8))


def _read_competition(train_csv: Path, test_csv: Path, sample_csv: Path) -> Dataset:
    columns, ids = _read_sample_submission(sample_csv)
    train = _read_train(train_csv, columns[1])
    images, test_ids = _read_test(test_csv, columns)
    if len(images) != len(ids):
        raise UserError(
            f"{test_csv} has {len(images)} rows, {sample_csv} has {len(ids)}: one of them is not whole"
        )
    for row, (test_id, sample_id) in enumerate(zip(test_ids or ids, ids, strict=True), start=1):
        if test_id != sample_id:
            raise UserError(
                f"{test_csv}: row {row}, column {columns[0]}: {formats.shown(test_id)}, but {sample_csv.name} has "
                f"{formats.shown(sample_id)}"
            )
    labels = Labels(train.labels, None, np.array(ids), columns, "competition")
    return Dataset(train.images, images, labels)


def _read_sample_submission(path: Path) -> tuple[tuple[str, str], list[str]]:
    """The two column names and the ids; the labels there are placeholders."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = (row for row in csv.reader(file) if row)
    except (ValueError, csv.Error) as error:
        what = "it is empty" if path.stat().st_size == 0 else f"not a CSV ({error})"
        raise UserError(f"{path}: {what}; download it again") from None
    if len(header) != 2 or all(cell.isdigit() for cell in header):
        raise UserError(
            f"{path}: its first line is {formats.shown(','.join(header))}, not two names such as ImageId,Label"
        )
    for number, row in enumerate(rows, start=1):
        if len(row) != 2:
            raise UserError(f"{path}: row {number} (line {number + 1}) has {len(row)} columns, not 2")
    ids = [row[0] for row in rows]
    if not ids or len(set(ids)) != len(ids):
        raise UserError(f"{path}: {'no rows' if not ids else 'an id is there twice'}; download it again")
    return (header[0], header[1]), ids


def _read_train(path: Path, label: str) -> _Part:
    """The rows of train.csv; `label` is the label column's name."""
    data, first, names = _read_csv(path)
    if first is None or first.casefold() != label.casefold():
        raise UserError(
            f"{path}: its first column is {formats.shown(names[0])}, not {label!r}: is it test.csv?"
        )
    return _parse_labelled(path, data, names)


def _read_mnist_csv(path: Path) -> _Part:
    """The rows of mnist_train.csv or mnist_test.csv, with a header such as label,1x1,1x2,... or none."""
    data = formats.read_lines(path)
    names = formats.first_line(data)
    if len(names) != 1 + PIXELS:
        raise UserError(
            f"{path}: its first line has {len(names)} columns, not {1 + PIXELS}: label and pixels"
        )
    if all(name.isdigit() for name in names):
        names = ["label", *(f"pixel{number}" for number in range(PIXELS))]
        return _parse_labelled(path, b"label\n" + data, names, first_line=1)
    if names[0].casefold() != "label":
        raise UserError(f"{path}: its first column is {formats.shown(names[0])}, not 'label'")
    return _parse_labelled(path, data, names)


def _parse_labelled(path: Path, data: bytes, names: list[str], first_line: int = 2) -> _Part:
    """Digits of a CSV whose first column is the label."""
    cells = formats.parse_csv(path, data, names, [CLASSES - 1, *[255] * PIXELS], first_line)
    return _Part(np.ascontiguousarray(cells[:, 1:]).reshape(-1, SIDE, SIDE), cells[:, 0].copy())


def _read_test(path: Path, columns: tuple[str, str]) -> tuple[np.ndarray, list[str] | None]:
    """Images uint8 (n, 28, 28) of test.csv, and the ids where it has them before the pixels."""
    data, first, names = _read_csv(path)
    ids = None
    if first is not None:
        if first != columns[0]:
            hint = ": is it train.csv?" if first.casefold() == columns[1].casefold() else ""
            raise UserError(
                f"{path}: its first column is {formats.shown(first)}, not a pixel or {columns[0]!r}{hint}"
            )
        ids, data = _take_ids(data)
        names = names[1:]
    return formats.parse_csv(path, data, names, [255] * PIXELS).reshape(-1, SIDE, SIDE), ids


def _read_csv(path: Path) -> tuple[bytes, str | None, list[str]]:
    """A CSV of pictures as lines that end in a newline, the name of its column before the pixels, all names."""
    data = formats.read_lines(path)
    return data, *_check_header(path, formats.first_line(data))


def _check_header(path: Path, names: list[str]) -> tuple[str | None, list[str]]:
    """The name of the column before the pixels, if there is one, and all names."""
    first = None if re.fullmatch(r"pixel\d+", names[0]) else names[0]
    pixels = names if first is None else names[1:]
    start = int(pixels[0][5:]) if pixels and re.fullmatch(r"pixel[01]", pixels[0]) else 0
    if not pixels or not pixels[0].startswith("pixel"):
        raise UserError(
            f"{path}: its first line is {formats.shown(','.join(names))}, not the header "
            f"label,pixel0,...,pixel{PIXELS - 1}: is it the competition's file?"
        )
    if len(pixels) != PIXELS:
        raise UserError(f"{path}: its header has {len(pixels)} pixel columns, not {PIXELS} ({SIDE} x {SIDE})")
    for number, name in enumerate(pixels, start=start):
        if name != f"pixel{number}":
            raise UserError(f"{path}: its header has {formats.shown(name)} where pixel{number} belongs")
    return first, names


def _take_ids(data: bytes) -> tuple[list[str], bytes]:
    """The first cell of each row, and the CSV without that column."""
    head, *lines = (line.partition(b",") for line in data.splitlines())
    rest = b"\n".join(cells for _, _, cells in [head, *lines]) + b"\n"
    return [first.decode(errors="replace") for first, _, _ in lines], rest


def sample() -> Dataset:
    """The built-in sample: scikit-learn's 1,797 handwritten digits of 8 x 8, drawn as MNIST's are.

    Each is scaled into 20 x 20 pixels in the middle of 28 x 28; 1,300 are to learn from, 497 to predict.
    """
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    inner = zoom(images.reshape(-1, 8, 8) * (255 / 16), (1, 2.5, 2.5), order=1)
    images = np.pad(inner.round().clip(0, 255).astype(np.uint8), ((0, 0), (4, 4), (4, 4)))
    ids = np.arange(1, len(images) - 1300 + 1).astype(str)
    train_labels = labels[:1300].astype(np.uint8)
    return Dataset(images[:1300], images[1300:], Labels(train_labels, None, ids, COLUMNS, "sample"))
