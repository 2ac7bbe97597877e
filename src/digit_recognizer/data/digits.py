"""Digits: pictures of 28 x 28 pixels with their labels, read from any format that they come in, and checked.

train.csv, test.csv and sample_submission.csv may come from any competition of this shape: the names of
the id and label columns and the ids come from sample_submission.csv (Kannada-MNIST has `id,label`).
"""

import functools
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from digit_recognizer.data import csvs, mnist_files, paths
from digit_recognizer.files import UserError

SIDE, PIXELS, CLASSES = csvs.SIDE, csvs.PIXELS, csvs.CLASSES
COLUMNS = ("ImageId", "Label")  # of submission.csv where no sample_submission.csv names them

_SAMPLE_ROWS = 1300  # training rows of the built-in sample


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Dataset:
    """What a run works on: labelled pictures, pictures to predict, and what a submission of them looks like.

    If the test rows have labels, only the report looks at them.
    """

    train_images: np.ndarray  # uint8 (training rows, 28, 28)
    train_labels: np.ndarray  # uint8 (training rows,)
    test_images: np.ndarray  # uint8 (test rows, 28, 28)
    test_labels: np.ndarray | None  # uint8 (test rows,), or None
    ids: np.ndarray  # str (test rows,)
    columns: tuple[str, str] = COLUMNS  # of submission.csv: the id's name, the label's name
    kind: str = "competition"  # or "mnist" for MNIST's own files, or "sample" for the built-in one

    @property
    def is_sample(self) -> bool:
        """True for the built-in sample, whose predictions are never submitted."""
        return self.kind == "sample"

    @functools.cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of the contents (not of the files: line endings and the like do not count)."""
        digest = hashlib.sha256()
        for array in (self.train_images, self.train_labels, self.test_images, self.test_labels):
            if array is not None:
                digest.update(np.ascontiguousarray(array))
        digest.update("\n".join([*self.columns, *self.ids]).encode())
        return digest.hexdigest()

    @functools.cached_property
    def overlap(self) -> list[tuple[int, int]]:
        """The test rows, each with the training row, that have the same picture, pixel for pixel."""
        known = {image.tobytes(): row for row, image in enumerate(self.train_images)}
        pairs = ((row, known.get(image.tobytes())) for row, image in enumerate(self.test_images))
        return [(row, other) for row, other in pairs if other is not None]


def load(input: Path | None) -> Dataset:
    """Returns the data in the folder `input`, or the built-in sample if that is None.

    Raises UserError, naming file, row and column, for what is missing or is no such data.
    """
    if input is None:
        return sample()
    format, files = paths.data_files(input)
    return _READERS[format](*files)


def _read_competition(train_csv: Path, test_csv: Path, sample_csv: Path) -> Dataset:
    columns, ids = csvs.read_sample_submission(sample_csv)
    with ThreadPoolExecutor() as threads:  # pandas parses outside of Python's lock
        reading = threads.submit(_read_test_images, test_csv, sample_csv, columns, ids)
        train_images, train_labels = csvs.read_train(train_csv, columns[1])
        _check_several(train_csv, train_labels)
        test_images = reading.result()
    return Dataset(train_images, train_labels, test_images, None, np.array(ids), columns)


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


def _read_mnist_csvs(train_csv: Path, test_csv: Path) -> Dataset:
    return _mnist(train_csv, csvs.read_mnist(train_csv), csvs.read_mnist(test_csv))


def _read_npz(path: Path) -> Dataset:
    names = ("x_train", "y_train", "x_test", "y_test")
    return _check_mnist([f"{path}: {name}" for name in names], mnist_files.read_npz(path, names))


def _read_idx(*files: Path) -> Dataset:
    dimensions = (3, 1, 3, 1)
    arrays = [mnist_files.read_idx(path, number) for path, number in zip(files, dimensions, strict=True)]
    return _check_mnist(files, arrays)


def _check_mnist(names: Sequence[str | Path], arrays: Sequence[np.ndarray]) -> Dataset:
    """Returns the data of checked arrays: training pictures, their labels, test pictures, their labels.

    `names` are for a UserError.
    """
    train, test = (
        (_check_images(names[i], arrays[i]), _check_labels(names[i + 1], arrays[i + 1], len(arrays[i])))
        for i in (0, 2)
    )
    return _mnist(names[1], train, test)


def _mnist(
    name: str | Path, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray]
) -> Dataset:
    """Returns MNIST's pictures and labels with the ids 1 to n; `name` is the file of the training labels."""
    _check_several(name, train[1])
    return Dataset(*train, *test, np.arange(1, len(test[1]) + 1).astype(str), kind="mnist")


def _check_images(name: str | Path, pixels: np.ndarray) -> np.ndarray:
    """Returns pictures as contiguous uint8 (n, 28, 28)."""
    if pixels.ndim != 3 or pixels.shape[1:] != (SIDE, SIDE) or len(pixels) == 0:
        raise UserError(f"{name} has the shape {pixels.shape}, not pictures of {SIDE} x {SIDE}")
    return _check_range(name, pixels, 255)


def _check_labels(name: str | Path, labels: np.ndarray, rows: int) -> np.ndarray:
    """Returns labels as uint8 (rows,)."""
    if labels.shape != (rows,):
        raise UserError(f"{name} has the shape {labels.shape}, not a label for each of {rows} pictures")
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

    Each is scaled into 20 x 20 pixels in the middle of 28 x 28. 1,300 are training rows, 497 test rows.
    """
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)  # float64 (1797, 64) from 0 to 16, int (1797,)
    inner = zoom(images.reshape(-1, 8, 8) * (255 / 16), (1, 2.5, 2.5), order=1)
    images = np.pad(inner.round().clip(0, 255).astype(np.uint8), ((0, 0), (4, 4), (4, 4)))
    train, test = images[:_SAMPLE_ROWS], images[_SAMPLE_ROWS:]
    ids = np.arange(1, len(test) + 1).astype(str)
    return Dataset(train, labels[:_SAMPLE_ROWS].astype(np.uint8), test, None, ids, kind="sample")


_READERS = {
    paths.COMPETITION_CSVS: _read_competition,
    paths.MNIST_CSVS: _read_mnist_csvs,
    paths.NPZ: _read_npz,
    paths.IDX: _read_idx,
}
