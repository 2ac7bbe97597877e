"""Digits: pictures of 28 x 28 pixels with their labels, read from any format that they come in, and checked.

train.csv, test.csv and sample_submission.csv may come from any competition of this shape: the names of
the id and label columns and the ids come from sample_submission.csv (Kannada-MNIST has `id,label`).
"""

import functools
import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from digit_recognizer.data import csvs, image_folder, mnist_files
from digit_recognizer.data.image_folder import LabelledPictures
from digit_recognizer.data.input_files import DataFile, find_files
from digit_recognizer.files import UserError

SIDE, PIXELS, CLASSES = csvs.SIDE, csvs.PIXELS, csvs.CLASSES
COLUMNS = ("ImageId", "Label")  # of submission.csv if no sample_submission.csv names them

_SAMPLE_ROWS = 1300  # training rows of the built-in sample


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Dataset:
    """Labelled pictures, pictures to predict, and what a submission of them looks like."""

    train_images: np.ndarray  # uint8 (training rows, 28, 28)
    train_labels: np.ndarray  # uint8 (training rows,)
    test_images: np.ndarray  # uint8 (test rows, 28, 28)
    test_labels: np.ndarray | None  # uint8 (test rows,), or None
    ids: np.ndarray  # str (test rows,)
    columns: tuple[str, str] = COLUMNS  # of submission.csv: the id's name, the label's name
    kind: str = "competition"  # or "mnist" for MNIST's own files, "folder" for pictures, "sample" for the built-in one
    train_names: np.ndarray | None = None  # str (training rows,): the files of pictures
    added: LabelledPictures | None = None  # what every member learns from too; never validated on

    @property
    def is_sample(self) -> bool:
        """True for the built-in sample, whose predictions are never submitted."""
        return self.kind == "sample"

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the contents (not of the files: line endings and the like do not count) without `added`."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            if array is not None:
                digest.update(np.ascontiguousarray(array).data)
        digest.update("\n".join([*self.columns, *self.ids]).encode())
        return digest.hexdigest()

    @functools.cached_property
    def overlap(self) -> list[tuple[int, int]]:
        """The test rows, each with the training row, that have the same picture, pixel for pixel."""
        known = {image.tobytes(): row for row, image in enumerate(self.train_images)}
        pairs = ((row, known.get(image.tobytes())) for row, image in enumerate(self.test_images))
        return [(row, other) for row, other in pairs if other is not None]

    @property
    def added_rows(self) -> int:
        """The number of rows that every member learns from beside its own."""
        return len(self.added.labels) if self.added else 0

    def training_data(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the pictures, uint8 (n, 28, 28), and labels, uint8 (n,), of these training rows and of `added`."""
        images, labels = self.train_images[rows], self.train_labels[rows]
        if self.added:
            images, labels = np.concatenate([images, self.added.images]), np.concatenate([labels, self.added.labels])
        return images, labels

    def row_name(self, row: int) -> str:
        """Returns what reports call a training row: its number or its picture's file."""
        return f"row {row}" if self.train_names is None else str(self.train_names[row])


def load(input: Path | None, add: Path | None = None) -> Dataset:
    """Returns the data in `input`, a folder or one of its files; None: the built-in sample.

    Every member learns from the labelled pictures in the folder `add`, too. Raises UserError, naming file, row and
    column.
    """
    added = image_folder.read_added(add) if add else None
    if input is None:
        return replace(sample(), added=added)
    format, files = find_files(input)
    return replace(globals()[format.reader](*files), added=added)


def read_competition(train: DataFile, test: DataFile, sample_submission: DataFile) -> Dataset:
    """Reads train.csv, test.csv and sample_submission.csv."""
    columns, ids = csvs.read_sample_submission(sample_submission)
    with ThreadPoolExecutor() as threads:  # pandas parses outside of Python's lock
        test_result = threads.submit(csvs.read_pictures, test, *columns, has_labels=False)
        train_images, train_labels, _ = csvs.read_pictures(train, *columns, has_labels=True)
        _check_several(str(train), train_labels)
        test_images, _, test_ids = test_result.result()
    if len(test_images) != len(ids):
        counts = f"{test} has {len(test_images)} rows, {sample_submission} has {len(ids)}"
        raise UserError(f"{counts}: one of them is incomplete")
    for row, pair in enumerate(zip(test_ids or ids, ids, strict=True), start=1):
        if pair[0] != pair[1]:
            shown = " is {}, but {} in sample_submission.csv".format(*map(csvs.quoted, pair))
            raise UserError(f"{test}: row {row}: {columns[0]}{shown}")
    return Dataset(train_images, train_labels, test_images, None, np.array(ids), columns)


def read_mnist(*files: DataFile) -> Dataset:
    """Reads MNIST's own files: an npz, two CSVs, or four IDX files of pictures, labels, test pictures, test labels."""
    if len(files) == 1:
        arrays = mnist_files.read_npz(*files)
    elif len(files) == 2:
        tables = [(str(file), csvs.read_pictures(file, *COLUMNS, has_labels=True)) for file in files]
        arrays = [(name, array) for name, table in tables for array in table[:2]]
    else:
        arrays = [(str(file), mnist_files.read_idx(file)) for file in files]
    images, test_images = mnist_files.to_images(*arrays[0]), mnist_files.to_images(*arrays[2])
    labels = mnist_files.to_labels(*arrays[1], len(images))
    test_labels = mnist_files.to_labels(*arrays[3], len(test_images))
    _check_several(arrays[1][0], labels)
    ids = np.arange(1, len(test_labels) + 1).astype(str)
    return Dataset(images, labels, test_images, test_labels, ids, kind="mnist")


def read_folders(train: DataFile) -> Dataset:
    """Reads the pictures in train/0 to train/9 and in test beside it, if it exists; ids are the file names."""
    home = train.path.parent
    test = next((path for path in sorted(home.iterdir()) if path.name.lower() == "test"), home / "test")
    train_files, test_files = image_folder.list_classes(train.path), image_folder.list_test_pictures(test)
    labels, test_labels = image_folder.labels_of(train_files), image_folder.labels_of(test_files)
    _check_several(str(train), labels)
    images = image_folder.read_digits(home, [*train_files, *test_files])
    known = test_labels if len(test_labels) else None
    names, ids = (np.array([file.name for file in files], str) for files in (train_files, test_files))
    count = len(labels)
    return Dataset(images[:count], labels, images[count:], known, ids, kind="folder", train_names=names)


def _check_several(name: str, labels: np.ndarray) -> None:
    """Raises UserError if all training rows have one label: a network learns nothing from them."""
    if (labels == labels[0]).all():
        raise UserError(f"{name}: all rows ({len(labels)}) have the label {labels[0]}: nothing can be learned")


def sample() -> Dataset:
    """Returns the built-in sample: scikit-learn's 1,797 handwritten digits, 1,300 of them training rows.

    Each of 8 x 8 pixels is scaled into 20 x 20 in the middle of 28 x 28, as MNIST's are.
    """
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)  # float64 (1797, 64) from 0 to 16, int (1797,)
    inner = zoom(images.reshape(-1, 8, 8) * (255 / 16), (1, 2.5, 2.5), order=1)
    images = np.pad(inner.round().clip(0, 255).astype(np.uint8), ((0, 0), (4, 4), (4, 4)))
    train, test = images[:_SAMPLE_ROWS], images[_SAMPLE_ROWS:]
    ids = np.arange(1, len(test) + 1).astype(str)
    return Dataset(train, labels[:_SAMPLE_ROWS].astype(np.uint8), test, None, ids, kind="sample")
