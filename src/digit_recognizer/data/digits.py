"""Digits: pictures of 28 x 28 pixels with their labels, read from any format that they come in, and checked.

train.csv, test.csv and sample_submission.csv may come from any competition of this shape: the names of
the id and label columns and the ids come from sample_submission.csv (Kannada-MNIST has `id,label`).
"""

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from digit_recognizer.data import binary, csvs, places
from digit_recognizer.errors import UserError

SIDE, PIXELS, CLASSES = csvs.SIDE, csvs.PIXELS, csvs.CLASSES
COLUMNS = ("ImageId", "Label")  # of submission.csv where no sample_submission.csv names them

_SAMPLE_ROWS = 1300  # of the built-in sample that are to learn from


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
        return _fingerprint(self, self.train, self.test)


@dataclass(frozen=True)
class Dataset:
    """What a run works on: labelled pictures, pictures to predict, and what a submission of them looks like."""

    train_images: np.ndarray  # uint8 (training rows, 28, 28)
    test_images: np.ndarray  # uint8 (test rows, 28, 28)
    labels: Labels

    def fingerprint(self) -> str:
        """Returns the SHA-256 of the contents (not of the files: line endings and the like do not count)."""
        labels = self.labels
        return _fingerprint(labels, self.train_images, labels.train, self.test_images, labels.test)

    def overlap(self) -> list[tuple[int, int]]:
        """Returns the test rows, each with the training row, that have the same picture, pixel for pixel."""
        known = {image.tobytes(): row for row, image in enumerate(self.train_images)}
        found = ((row, known.get(image.tobytes())) for row, image in enumerate(self.test_images))
        return [(row, other) for row, other in found if other is not None]


def _fingerprint(labels: Labels, *arrays: np.ndarray | None) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        if array is not None:
            digest.update(np.ascontiguousarray(array))
    digest.update("\n".join([*labels.columns, *labels.ids]).encode())
    return digest.hexdigest()


def load(input: Path | None) -> Dataset:
    """Returns the data in the folder `input`, or the built-in sample where that is None.

    Raises UserError, naming file, row and column, for what is missing or is no such data.
    """
    return sample() if input is None else Dataset(*_read(input, pixels=True))


def load_labels(input: Path | None) -> Labels:
    """Returns the labels of `load` and raises what it raises for them; reads and checks no pixel."""
    return _sample_labels(_load_sample()[1]) if input is None else _read(input, pixels=False)[2]


# Training and test pictures, None where no pixel was asked for, and the labels.
_Read = tuple[np.ndarray | None, np.ndarray | None, Labels]


def _read(input: Path, pixels: bool) -> _Read:
    format, paths = places.data_files(input)
    return _READERS[format](pixels, *paths)


def _read_competition(pixels: bool, train_csv: Path, test_csv: Path, sample_csv: Path) -> _Read:
    columns, ids = csvs.read_sample_submission(sample_csv)
    with ThreadPoolExecutor() as threads:  # pandas parses outside of Python's lock
        reading = threads.submit(_read_test_images, test_csv, sample_csv, columns, ids) if pixels else None
        train_images, train = csvs.read_train(train_csv, columns[1], pixels)
        _check_several(train_csv, train)
        test_images = reading.result() if reading else None
    return train_images, test_images, Labels(train, None, np.array(ids), columns, "competition")


def _read_test_images(
    test_csv: Path, sample_csv: Path, columns: tuple[str, str], ids: list[str]
) -> np.ndarray:
    images, test_ids = csvs.read_test(test_csv, columns)
    if len(images) != len(ids):
        raise UserError(
            f"{test_csv} has {len(images)} rows, {sample_csv} has {len(ids)}: one of them is not whole"
        )
    for row, (test_id, sample_id) in enumerate(zip(test_ids or ids, ids, strict=True), start=1):
        if test_id != sample_id:
            raise UserError(
                f"{test_csv}: row {row}, column {columns[0]}: {csvs.quoted(test_id)}, but {sample_csv.name} has "
                f"{csvs.quoted(sample_id)}"
            )
    return images


def _read_mnist_csvs(pixels: bool, train_csv: Path, test_csv: Path) -> _Read:
    (train_images, train), (test_images, test) = (
        csvs.read_mnist(path, pixels) for path in (train_csv, test_csv)
    )
    return train_images, test_images, _mnist_labels(train_csv, train, test)


def _read_npz(pixels: bool, path: Path) -> _Read:
    names = ("x_train", "y_train", "x_test", "y_test")
    wanted = names if pixels else names[1::2]
    arrays = dict(zip(wanted, binary.read_npz(path, wanted), strict=True))
    return _check_mnist([f"{path}: {name}" for name in names], [arrays.get(name) for name in names])


def _read_idx(pixels: bool, *paths: Path) -> _Read:
    dimensions = (3, 1, 3, 1) if pixels else (None, 1, None, 1)
    return _check_mnist(
        paths, [each and binary.read_idx(path, each) for path, each in zip(paths, dimensions, strict=True)]
    )


def _check_mnist(names: Sequence[str | Path], arrays: Sequence[np.ndarray | None]) -> _Read:
    """Returns training pictures and labels, test pictures and labels, checked; `names` are for a UserError."""
    train_images, train = _check_part(*names[:2], *arrays[:2])
    test_images, test = _check_part(*names[2:], *arrays[2:])
    return train_images, test_images, _mnist_labels(names[1], train, test)


def _check_part(
    images_name: str | Path, labels_name: str | Path, images: np.ndarray | None, labels: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray]:
    if images is None:
        return None, _check_labels(labels_name, labels)
    images = _check_images(images_name, images)
    return images, _check_labels(labels_name, labels, len(images))


def _mnist_labels(name: str | Path, train: np.ndarray, test: np.ndarray) -> Labels:
    """Returns the labels of MNIST's own files, with the ids 1 to n; `name` is the file of the training labels."""
    _check_several(name, train)
    return Labels(train, test, np.arange(1, len(test) + 1).astype(str), COLUMNS, "mnist")


def _check_images(name: str | Path, pixels: np.ndarray) -> np.ndarray:
    """Returns pictures as contiguous uint8 (n, 28, 28)."""
    if pixels.ndim != 3 or pixels.shape[1:] != (SIDE, SIDE) or len(pixels) == 0:
        raise UserError(f"{name} has the shape {pixels.shape}, not pictures of {SIDE} x {SIDE}")
    return _check_range(name, pixels, 255)


def _check_labels(name: str | Path, labels: np.ndarray, rows: int | None = None) -> np.ndarray:
    """Returns labels as uint8 (rows,); `rows` None is any number of them."""
    if labels.ndim != 1 or len(labels) != (rows or len(labels)) or len(labels) == 0:
        pictures = "picture" if rows is None else f"of {rows} pictures"
        raise UserError(f"{name} has the shape {labels.shape}, not a label for each {pictures}")
    return _check_range(name, labels, CLASSES - 1)


def _check_range(name: str | Path, array: np.ndarray, highest: int) -> np.ndarray:
    if array.dtype.kind not in "iu":
        raise UserError(f"{name} holds {array.dtype}, not whole numbers from 0 to {highest}")
    wrong = np.argwhere((array < 0) | (array > highest))
    if len(wrong):
        row, value = wrong[0][0] + 1, array[tuple(wrong[0])]
        raise UserError(f"{name}: row {row}: {value}, not a whole number from 0 to {highest}")
    return np.ascontiguousarray(array, np.uint8)


def _check_several(name: str | Path, labels: np.ndarray) -> None:
    """Raises UserError where all training rows have one label: a network learns nothing from them."""
    if (labels == labels[0]).all():
        what = f"all rows ({len(labels)}) have the label {labels[0]}"
        raise UserError(f"{name}: {what}: nothing can be learned from them; get the file again")


def sample() -> Dataset:
    """Returns the built-in sample: scikit-learn's 1,797 handwritten digits of 8 x 8, drawn as MNIST's are.

    Each is scaled into 20 x 20 pixels in the middle of 28 x 28; 1,300 are to learn from, 497 to predict.
    """
    from scipy.ndimage import zoom

    images, labels = _load_sample()
    inner = zoom(images.reshape(-1, 8, 8) * (255 / 16), (1, 2.5, 2.5), order=1)
    images = np.pad(inner.round().clip(0, 255).astype(np.uint8), ((0, 0), (4, 4), (4, 4)))
    return Dataset(images[:_SAMPLE_ROWS], images[_SAMPLE_ROWS:], _sample_labels(labels))


def _load_sample() -> tuple[np.ndarray, np.ndarray]:
    """Returns pictures float64 (1797, 64), of values from 0 to 16, and labels int (1797,)."""
    from sklearn.datasets import load_digits

    return load_digits(return_X_y=True)


def _sample_labels(labels: np.ndarray) -> Labels:
    ids = np.arange(1, len(labels) - _SAMPLE_ROWS + 1).astype(str)
    return Labels(labels[:_SAMPLE_ROWS].astype(np.uint8), None, ids, COLUMNS, "sample")


_READERS = {
    places.COMPETITION_CSVS: _read_competition,
    places.MNIST_CSVS: _read_mnist_csvs,
    places.NPZ: _read_npz,
    places.IDX: _read_idx,
}
