"""Digits: pictures of 28 x 28 pixels with their labels, read from any format that they come in, and checked.

train.csv, test.csv and sample_submission.csv may come from any competition of this shape: the names of
the id and label columns and the ids come from sample_submission.csv (Kannada-MNIST has `id,label`).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from digit_recognizer.data import csvs, formats, places
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


def load(input: Path | None) -> Dataset:
    """Returns the data in the folder `input`, or the built-in sample where that is None.

    Raises UserError, naming file, row and column, for what is missing or is no such data.
    """
    if input is None:
        return sample()
    format, paths = places.data_files(input)
    read_dataset, _ = _READERS[format]
    return read_dataset(*paths)


def load_labels(input: Path | None) -> Labels:
    """Returns the labels of `load` and raises what it raises for them; reads and checks no pixel."""
    if input is None:
        return _sample_labels(_load_sample()[1])
    format, paths = places.data_files(input)
    _, read_labels = _READERS[format]
    return read_labels(*paths)


def _read_competition(train_csv: Path, test_csv: Path, sample_csv: Path) -> Dataset:
    columns, ids = csvs.read_sample_submission(sample_csv)
    train_images, train = csvs.read_train(train_csv, columns[1])
    test_images, test_ids = csvs.read_test(test_csv, columns)
    if len(test_images) != len(ids):
        raise UserError(
            f"{test_csv} has {len(test_images)} rows, {sample_csv} has {len(ids)}: one of them is not whole"
        )
    for row, (test_id, sample_id) in enumerate(zip(test_ids or ids, ids, strict=True), start=1):
        if test_id != sample_id:
            raise UserError(
                f"{test_csv}: row {row}, column {columns[0]}: {csvs.quoted(test_id)}, but {sample_csv.name} has "
                f"{csvs.quoted(sample_id)}"
            )
    return Dataset(train_images, test_images, _competition_labels(train_csv, train, columns, ids))


def _read_competition_labels(train_csv: Path, test_csv: Path, sample_csv: Path) -> Labels:
    columns, ids = csvs.read_sample_submission(sample_csv)
    return _competition_labels(train_csv, csvs.read_train_labels(train_csv, columns[1]), columns, ids)


def _competition_labels(path: Path, train: np.ndarray, columns: tuple[str, str], ids: list[str]) -> Labels:
    _check_several(path, train)
    return Labels(train, None, np.array(ids), columns, "competition")


def _read_mnist_csvs(train_csv: Path, test_csv: Path) -> Dataset:
    (train_images, train), (test_images, test) = csvs.read_mnist(train_csv), csvs.read_mnist(test_csv)
    return Dataset(train_images, test_images, _mnist_labels(train_csv, train, test))


def _read_mnist_csvs_labels(train_csv: Path, test_csv: Path) -> Labels:
    return _mnist_labels(train_csv, csvs.read_mnist_labels(train_csv), csvs.read_mnist_labels(test_csv))


def _mnist_labels(name: str | Path, train: np.ndarray, test: np.ndarray) -> Labels:
    """Returns the labels of MNIST's own files, with the ids 1 to n; `name` is the file of the training labels."""
    _check_several(name, train)
    return Labels(train, test, np.arange(1, len(test) + 1).astype(str), COLUMNS, "mnist")


def _read_npz(path: Path) -> Dataset:
    names = ("x_train", "y_train", "x_test", "y_test")
    return _mnist([f"{path}: {name}" for name in names], formats.read_npz(path, names))


def _read_npz_labels(path: Path) -> Labels:
    names = ("y_train", "y_test")
    where = [f"{path}: {name}" for name in names]
    arrays = formats.read_npz(path, names)
    return _mnist_labels(where[0], *map(_check_labels, where, arrays))


def _read_idx(*paths: Path) -> Dataset:
    return _mnist(paths, [formats.read_idx(*each) for each in zip(paths, (3, 1, 3, 1), strict=True)])


def _read_idx_labels(_: Path, train: Path, __: Path, test: Path) -> Labels:
    return _mnist_labels(
        train, *(_check_labels(path, formats.read_idx(path, dimensions=1)) for path in (train, test))
    )


def _mnist(names: Sequence[str | Path], arrays: Sequence[np.ndarray]) -> Dataset:
    """Returns the dataset of training pictures and labels, test pictures and labels; `names` are for a UserError."""
    images, labels = {}, {}
    for part in (0, 2):
        images[part] = _check_images(names[part], arrays[part])
        labels[part] = _check_labels(names[part + 1], arrays[part + 1], len(images[part]))
    return Dataset(images[0], images[2], _mnist_labels(names[1], labels[0], labels[2]))


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
        raise UserError(
            f"{name}: all rows ({len(labels)}) have the label {labels[0]}: nothing can be learned from "
            "them; get the file again"
        )


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


# For each format how the whole of it is read, and how its labels are.
_READERS = {
    places.COMPETITION_CSVS: (_read_competition, _read_competition_labels),
    places.MNIST_CSVS: (_read_mnist_csvs, _read_mnist_csvs_labels),
    places.NPZ: (_read_npz, _read_npz_labels),
    places.IDX: (_read_idx, _read_idx_labels),
}
