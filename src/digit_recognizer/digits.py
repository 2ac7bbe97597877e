"""Digits: pictures of 28 x 28 pixels with their labels, read from any form that they come in, and checked.

train.csv, test.csv and sample_submission.csv may come from any competition of this shape: the names of
the id and label columns and the ids are those of sample_submission.csv (Kannada-MNIST has `id,label`).
"""

import csv
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from digit_recognizer import forms, source
from digit_recognizer.errors import UserError
from digit_recognizer.run import write_arrays

SIDE = 28  # pixels
PIXELS = SIDE * SIDE
CLASSES = 10
COLUMNS = ("ImageId", "Label")  # of submission.csv where no sample_submission.csv names them

_CACHE_VERSION = 2


@dataclass(frozen=True)
class Digits:
    """Pictures of digits: images uint8 (n, 28, 28), labels uint8 (n,) or None, ids str (n,)."""

    images: np.ndarray
    labels: np.ndarray | None
    ids: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """What a run works on: labelled rows, rows to predict, and what a submission of them looks like.

    Where the test rows have labels, nothing but the report looks at them.
    """

    train: Digits
    test: Digits
    columns: tuple[str, str]  # of submission.csv: the id's name, the label's name
    source: str  # "competition", "mnist" for MNIST's own files, or "sample" for the built-in one

    @property
    def is_sample(self) -> bool:
        """True for the built-in sample, whose predictions are no submission to a competition."""
        return self.source == "sample"

    def fingerprint(self) -> str:
        """SHA-256 of the contents (not of the files: line endings and the like do not count)."""
        digest = hashlib.sha256()
        for array in (self.train.images, self.train.labels, self.test.images, self.test.labels):
            if array is not None:
                digest.update(np.ascontiguousarray(array))
        digest.update("\n".join([*self.columns, *self.test.ids]).encode())
        return digest.hexdigest()

    def overlap(self) -> int:
        """How many test pictures are, pixel for pixel, training pictures too."""
        known = {image.tobytes() for image in self.train.images}
        return sum(image.tobytes() in known for image in self.test.images)


def read(folder: Path, cache: Path) -> Dataset:
    """The data in `folder`, whatever its form, or what `keep` kept of it in the file `cache`.

    The cache is taken if the files have the same sizes and times, or the same sizes and hashes.
    Raises UserError, naming file, row and column, for what is missing or is no such data.
    """
    form, paths = source.data_files(folder)
    kept = _cached(cache, paths)
    return kept if kept is not None else _parse(form, paths)


def _parse(form: str, paths: list[Path]) -> Dataset:
    readers = {
        source.COMPETITION_CSVS: _read_competition,
        source.MNIST_CSVS: _read_mnist_csvs,
        source.NPZ: _read_npz,
        source.IDX: _read_idx,
    }
    return readers[form](*paths)


def _read_mnist_csvs(*paths: Path) -> Dataset:
    train, test = map(_read_mnist_csv, paths)
    return Dataset(train, test, COLUMNS, "mnist")


def _read_npz(path: Path) -> Dataset:
    names = ("x_train", "y_train", "x_test", "y_test")
    return _from_arrays([f"{path}: {name}" for name in names], forms.read_npz(path, names))


def _read_idx(*paths: Path) -> Dataset:
    return _from_arrays(paths, [forms.read_idx(*each) for each in zip(paths, (3, 1, 3, 1), strict=True)])


def _from_arrays(names: Sequence[str | Path], arrays: list[np.ndarray]) -> Dataset:
    """Of training pictures and labels, test pictures and labels, and the names that a UserError gives them."""
    named = list(zip(names, arrays, strict=True))
    return Dataset(_check(*named[:2]), _check(*named[2:]), COLUMNS, "mnist")


def _check(images: tuple[str | Path, np.ndarray], labels: tuple[str | Path, np.ndarray]) -> Digits:
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
    return _numbered(np.ascontiguousarray(pixels, np.uint8), values.astype(np.uint8))


def _numbered(images: np.ndarray, labels: np.ndarray) -> Digits:
    """Digits whose ids are 1 to n."""
    return Digits(images, labels, np.arange(1, len(images) + 1).astype(str))


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
                f"{test_csv}: row {row}, column {columns[0]}: {forms.shown(test_id)}, but {sample_csv.name} has "
                f"{forms.shown(sample_id)}"
            )
    return Dataset(train, Digits(images, None, np.array(ids)), columns, "competition")


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
            f"{path}: its first line is {forms.shown(','.join(header))}, not two names such as ImageId,Label"
        )
    for number, row in enumerate(rows, start=1):
        if len(row) != 2:
            raise UserError(f"{path}: row {number} (line {number + 1}) has {len(row)} columns, not 2")
    ids = [row[0] for row in rows]
    if not ids or len(set(ids)) != len(ids):
        raise UserError(f"{path}: {'no rows' if not ids else 'an id is there twice'}; download it again")
    return (header[0], header[1]), ids


def _read_train(path: Path, label: str) -> Digits:
    """The rows of train.csv; `label` is the label column's name."""
    data, first, names = _read_csv(path)
    if first is None or first.casefold() != label.casefold():
        raise UserError(
            f"{path}: its first column is {forms.shown(names[0])}, not {label!r}: is it test.csv?"
        )
    return _parse_labelled(path, data, names)


def _read_mnist_csv(path: Path) -> Digits:
    """The rows of mnist_train.csv or mnist_test.csv, with a header such as label,1x1,1x2,... or none."""
    data = forms.read_lines(path)
    names = forms.first_line(data)
    if len(names) != 1 + PIXELS:
        raise UserError(
            f"{path}: its first line has {len(names)} columns, not {1 + PIXELS}: label and pixels"
        )
    if all(name.isdigit() for name in names):
        names = ["label", *(f"pixel{number}" for number in range(PIXELS))]
        return _parse_labelled(path, b"label\n" + data, names, first_line=1)
    if names[0].casefold() != "label":
        raise UserError(f"{path}: its first column is {forms.shown(names[0])}, not 'label'")
    return _parse_labelled(path, data, names)


def _parse_labelled(path: Path, data: bytes, names: list[str], first_line: int = 2) -> Digits:
    """Digits of a CSV whose first column is the label."""
    cells = forms.parse_csv(path, data, names, [CLASSES - 1, *[255] * PIXELS], first_line)
    return _numbered(np.ascontiguousarray(cells[:, 1:]).reshape(-1, SIDE, SIDE), cells[:, 0].copy())


def _read_test(path: Path, columns: tuple[str, str]) -> tuple[np.ndarray, list[str] | None]:
    """Images uint8 (n, 28, 28) of test.csv, and the ids where it has them before the pixels."""
    data, first, names = _read_csv(path)
    ids = None
    if first is not None:
        if first != columns[0]:
            hint = ": is it train.csv?" if first.casefold() == columns[1].casefold() else ""
            raise UserError(
                f"{path}: its first column is {forms.shown(first)}, not a pixel or {columns[0]!r}{hint}"
            )
        ids, data = _take_ids(data)
        names = names[1:]
    return forms.parse_csv(path, data, names, [255] * PIXELS).reshape(-1, SIDE, SIDE), ids


def _read_csv(path: Path) -> tuple[bytes, str | None, list[str]]:
    """A CSV of pictures as lines that end in a newline, the name of its column before the pixels, all names."""
    data = forms.read_lines(path)
    return data, *_check_header(path, forms.first_line(data))


def _check_header(path: Path, names: list[str]) -> tuple[str | None, list[str]]:
    """The name of the column before the pixels, if there is one, and all names."""
    first = None if re.fullmatch(r"pixel\d+", names[0]) else names[0]
    pixels = names if first is None else names[1:]
    start = int(pixels[0][5:]) if pixels and re.fullmatch(r"pixel[01]", pixels[0]) else 0
    if not pixels or not pixels[0].startswith("pixel"):
        raise UserError(
            f"{path}: its first line is {forms.shown(','.join(names))}, not the header "
            f"label,pixel0,...,pixel{PIXELS - 1}: is it the competition's file?"
        )
    if len(pixels) != PIXELS:
        raise UserError(f"{path}: its header has {len(pixels)} pixel columns, not {PIXELS} ({SIDE} x {SIDE})")
    for number, name in enumerate(pixels, start=start):
        if name != f"pixel{number}":
            raise UserError(f"{path}: its header has {forms.shown(name)} where pixel{number} belongs")
    return first, names


def _take_ids(data: bytes) -> tuple[list[str], bytes]:
    """The first cell of each row, and the CSV without that column."""
    head, *lines = (line.partition(b",") for line in data.splitlines())
    rest = b"\n".join(cells for _, _, cells in [head, *lines]) + b"\n"
    return [first.decode(errors="replace") for first, _, _ in lines], rest


def _facts(path: Path) -> dict:
    """What tells a file from a changed one, without reading it."""
    status = path.stat()
    return {"size": status.st_size, "time_ns": status.st_mtime_ns}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep(dataset: Dataset, folder: Path, cache: Path) -> None:
    """Writes the parsed arrays of the files in `folder` to the file `cache`, unless they are there."""
    _, paths = source.data_files(folder)
    if _cached(cache, paths) is not None:
        return
    files = {path.name: _facts(path) | {"sha256": _hash(path)} for path in paths}
    key = {"version": _CACHE_VERSION, "source": dataset.source, "columns": dataset.columns, "files": files}
    cache.parent.mkdir(parents=True, exist_ok=True)
    arrays = _arrays("train", dataset.train) | _arrays("test", dataset.test)
    write_arrays(cache, key=json.dumps(key), **arrays)


def _arrays(name: str, digits: Digits) -> dict[str, np.ndarray]:
    arrays = {f"{name}_{field}": array for field, array in vars(digits).items()}
    return {name: array for name, array in arrays.items() if array is not None}


def _cached(cache: Path, paths: list[Path]) -> Dataset | None:
    """What `keep` wrote, if it is whole and of these files."""
    try:
        with np.load(cache) as arrays:
            key = json.loads(str(arrays["key"]))
            if key["version"] != _CACHE_VERSION or not _same_files(key["files"], paths):
                return None
            train, test = (
                Digits(*(arrays.get(f"{name}_{field}") for field in ("images", "labels", "ids")))
                for name in ("train", "test")
            )
            return Dataset(train, test, tuple(key["columns"]), key["source"])
    except Exception:  # a damaged cache can raise nearly anything, and is only made again
        return None


def _same_files(known: dict, paths: list[Path]) -> bool:
    facts = {path.name: _facts(path) for path in paths}
    if any(facts[name]["size"] != known[name]["size"] for name in facts):
        return False
    moved = [path for path in paths if facts[path.name]["time_ns"] != known[path.name]["time_ns"]]
    return all(_hash(path) == known[path.name]["sha256"] for path in moved)


def sample() -> Dataset:
    """The built-in sample: scikit-learn's 1,797 handwritten digits of 8 x 8, drawn as MNIST's are.

    Each is scaled into 20 x 20 pixels in the middle of 28 x 28; 1,300 are to learn from, 497 to predict.
    """
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    inner = zoom(images.reshape(-1, 8, 8) * (255 / 16), (1, 2.5, 2.5), order=1)
    images = np.pad(inner.round().clip(0, 255).astype(np.uint8), ((0, 0), (4, 4), (4, 4)))
    ids = np.arange(1, len(images) + 1).astype(str)
    train = Digits(images[:1300], labels[:1300].astype(np.uint8), ids[:1300])
    return Dataset(train, Digits(images[1300:], None, ids[:497]), COLUMNS, "sample")
