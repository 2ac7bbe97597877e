"""Digits: pictures of 28 x 28 pixels with their labels, read from the competition's CSVs and checked.

train.csv, test.csv and sample_submission.csv may come from any competition of this shape: the names of
the id and label columns and the ids are those of sample_submission.csv (Kannada-MNIST has `id,label`).
"""

import csv
import hashlib
import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from digit_recognizer.errors import UserError
from digit_recognizer.run import atomic

SIDE = 28  # pixels
PIXELS = SIDE * SIDE
CLASSES = 10
FILES = ("train.csv", "test.csv", "sample_submission.csv")

_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 19  # bytes of CSV parsed at a time: its arrays stay in the processor's cache
_CACHE_VERSION = 1


@dataclass(frozen=True)
class Digits:
    """Pictures of digits: images uint8 (n, 28, 28), labels uint8 (n,) or None, ids str (n,)."""

    images: np.ndarray
    labels: np.ndarray | None
    ids: np.ndarray


@dataclass(frozen=True)
class Dataset:
    """What a run works on: labelled rows, rows to predict, and what a submission of them looks like."""

    train: Digits
    test: Digits
    columns: tuple[str, str]  # of submission.csv: the id's name, the label's name
    source: str  # "competition", or "sample" for the built-in one

    @property
    def is_sample(self) -> bool:
        """True for the built-in sample, whose predictions are no submission to a competition."""
        return self.source == "sample"

    def fingerprint(self) -> str:
        """SHA-256 of the contents (not of the files: line endings and the like do not count)."""
        digest = hashlib.sha256()
        for array in (self.train.images, self.train.labels, self.test.images):
            digest.update(np.ascontiguousarray(array))
        digest.update("\n".join([*self.columns, *self.test.ids]).encode())
        return digest.hexdigest()

    def overlap(self) -> int:
        """How many test pictures are, pixel for pixel, training pictures too."""
        known = {image.tobytes() for image in self.train.images}
        return sum(image.tobytes() in known for image in self.test.images)


def read(folder: Path, cache: Path) -> Dataset:
    """The competition's files in `folder`, or what `keep` kept of them in the file `cache`.

    The cache is taken if the files have the same sizes and times, or the same sizes and hashes.
    Raises UserError, naming file, row and column, for what is missing or is no such competition.
    """
    paths = [folder / name for name in FILES]
    for path in paths:
        if not path.is_file():
            raise UserError(
                f"{path} is missing: the competition's {', '.join(FILES)} belong together; run python "
                "scripts/download.py, or get them from https://www.kaggle.com/competitions/digit-recognizer/data"
            )
    kept = _cached(cache, paths)
    return kept if kept is not None else _parse(*paths)


def _parse(train_csv: Path, test_csv: Path, sample_csv: Path) -> Dataset:
    columns, ids = _read_sample_submission(sample_csv)
    images, labels = _read_train(train_csv, columns[1])
    train = Digits(images, labels, np.arange(1, len(images) + 1).astype(str))
    images, test_ids = _read_test(test_csv, columns)
    if len(images) != len(ids):
        raise UserError(
            f"{test_csv} has {len(images)} rows, {sample_csv} has {len(ids)}: one of them is not whole"
        )
    for row, (test_id, sample_id) in enumerate(zip(test_ids or ids, ids, strict=True), start=1):
        if test_id != sample_id:
            raise UserError(
                f"{test_csv}: row {row}, column {columns[0]}: {_shown(test_id)}, but {sample_csv.name} has "
                f"{_shown(sample_id)}"
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
            f"{path}: its first line is {_shown(','.join(header))}, not two names such as ImageId,Label"
        )
    for number, row in enumerate(rows, start=1):
        if len(row) != 2:
            raise UserError(f"{path}: row {number} (line {number + 1}) has {len(row)} columns, not 2")
    ids = [row[0] for row in rows]
    if not ids or len(set(ids)) != len(ids):
        raise UserError(f"{path}: {'no rows' if not ids else 'an id is there twice'}; download it again")
    return (header[0], header[1]), ids


def _read_train(path: Path, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Images uint8 (n, 28, 28) and labels uint8 (n,) of train.csv; `label` is the label column's name."""
    data, first, names = _read_csv(path)
    if first is None or first.casefold() != label.casefold():
        raise UserError(f"{path}: its first column is {_shown(names[0])}, not {label!r}: is it test.csv?")
    cells = _parse_cells(path, data, names)
    if cells[:, 0].max() >= CLASSES:
        _parse_lines(path, data, names)  # tells which row
    return np.ascontiguousarray(cells[:, 1:]).reshape(-1, SIDE, SIDE), cells[:, 0].copy()


def _read_test(path: Path, columns: tuple[str, str]) -> tuple[np.ndarray, list[str] | None]:
    """Images uint8 (n, 28, 28) of test.csv, and the ids where it has them before the pixels."""
    data, first, names = _read_csv(path)
    ids = None
    if first is not None:
        if first != columns[0]:
            hint = ": is it train.csv?" if first.casefold() == columns[1].casefold() else ""
            raise UserError(
                f"{path}: its first column is {_shown(first)}, not a pixel or {columns[0]!r}{hint}"
            )
        ids, data = _take_ids(data)
        names = names[1:]
    return _parse_cells(path, data, names).reshape(-1, SIDE, SIDE), ids


def _read_csv(path: Path) -> tuple[bytes, str | None, list[str]]:
    """A CSV of pictures as lines that end in a newline, the name of its column before the pixels, all names."""
    data = path.read_bytes().removeprefix(_BOM)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    if not data or data.isspace():
        raise UserError(f"{path} is empty: download it again")
    if data[-1:] != b"\n" or data[-2:] == b"\n\n":  # a copy of the file, which is large
        data = data.rstrip(b"\n") + b"\n"
    head = data[: data.index(b"\n")]
    first, names = _check_header(path, head)
    if len(data) == len(head) + 1:
        raise UserError(f"{path} has a header and no rows: download it again")
    return data, first, names


def _check_header(path: Path, head: bytes) -> tuple[str | None, list[str]]:
    """The name of the column before the pixels, if there is one, and all names."""
    names = [name.strip().strip('"') for name in head.decode(errors="replace").split(",")]
    first = None if re.fullmatch(r"pixel\d+", names[0]) else names[0]
    pixels = names if first is None else names[1:]
    start = int(pixels[0][5:]) if pixels and re.fullmatch(r"pixel[01]", pixels[0]) else 0
    if not pixels or not pixels[0].startswith("pixel"):
        raise UserError(
            f"{path}: its first line is {_shown(head.decode(errors='replace'))}, not the header "
            f"label,pixel0,...,pixel{PIXELS - 1}: is it the competition's file?"
        )
    if len(pixels) != PIXELS:
        raise UserError(f"{path}: its header has {len(pixels)} pixel columns, not {PIXELS} ({SIDE} x {SIDE})")
    for number, name in enumerate(pixels, start=start):
        if name != f"pixel{number}":
            raise UserError(f"{path}: its header has {_shown(name)} where pixel{number} belongs")
    return first, names


def _take_ids(data: bytes) -> tuple[list[str], bytes]:
    """The first cell of each row, and the CSV without that column."""
    head, *lines = (line.partition(b",") for line in data.splitlines())
    rest = b"\n".join(cells for _, _, cells in [head, *lines]) + b"\n"
    return [first.decode(errors="replace") for first, _, _ in lines], rest


def _parse_cells(path: Path, data: bytes, names: list[str]) -> np.ndarray:
    """All cells after the header as uint8 (rows, columns), by blocks of whole lines on every core.

    A CSV of small whole numbers needs no CSV reader: this one takes a third of pandas' time.
    Anything it does not know goes to `_parse_lines`, which knows what to say.
    """
    table = np.frombuffer(data, np.uint8)
    cuts = [data.index(b"\n") + 1]
    while cuts[-1] < len(data):
        cuts.append((data.find(b"\n", cuts[-1] + _BLOCK) + 1) or len(data))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # the three bytes before a block belong to it: a cell looks back at most so far
        blocks = [table[start - 3 : stop] for start, stop in pairwise(cuts)]
        parsed = list(pool.map(lambda block: _parse_block(block, len(names)), blocks))
    if any(block is None for block in parsed):
        return _parse_lines(path, data, names)
    return np.concatenate(parsed).reshape(-1, len(names))


def _parse_block(block: np.ndarray, columns: int) -> np.ndarray | None:
    """The cells of whole lines, uint8, or None if they are anything but `columns` numbers of 0 to 255.

    `block` are the bytes of the lines with the last three of the line before. The value that ends before
    byte i is computed for every i, which processors do 32 bytes at a time, then those at separators are kept.
    """
    digit = block - np.uint8(ord("0"))
    is_digit = digit < 10
    is_end = ((block == ord(",")) | (block == ord("\n")))[3:]
    if np.count_nonzero(is_digit[3:]) + np.count_nonzero(is_end) != len(is_end):
        return None
    four_digits = is_digit[3:] & is_digit[2:-1] & is_digit[1:-2] & is_digit[:-3]
    empty = is_end[1:] & is_end[:-1]
    digit = (digit * is_digit).astype(np.uint16)
    value = np.uint16(100) * digit[:-3]
    value *= is_digit[1:-2]  # else those hundreds are the units of the cell before
    value += np.uint16(10) * digit[1:-2]
    value += digit[2:-1]
    if is_end[0] or empty.any() or four_digits.any() or ((value > 255) & is_end).any():
        return None
    line_starts = np.append(0, np.flatnonzero(block[3:-1] == ord("\n")) + 1)
    if (np.add.reduceat(is_end, line_starts, dtype=np.int32) != columns).any():
        return None
    return np.compress(is_end, value.astype(np.uint8))


def _parse_lines(path: Path, data: bytes, names: list[str]) -> np.ndarray:
    """As `_parse_cells`, cell by cell; raises UserError for the first that is no whole number in its range."""
    table = []
    for row, line in enumerate(data.decode(errors="replace").split("\n")[1:-1], start=1):
        where = f"{path}: row {row} (line {row + 1})"
        cells = line.split(",")
        if len(cells) != len(names):
            raise UserError(f"{where} has {len(cells)} columns, not {len(names)}: is the file cut off?")
        for name, cell in zip(names, cells, strict=True):
            highest = 255 if name.startswith("pixel") else CLASSES - 1
            if not (cell.isascii() and cell.strip().isdigit()) or int(cell) > highest:
                what = _shown(cell) if cell.strip() else "empty"
                raise UserError(f"{where}, column {name}: {what}, not a whole number from 0 to {highest}")
        table.append(np.array(cells, np.int64).astype(np.uint8))
    return np.array(table)


def _shown(text: str) -> str:
    """`text` quoted, cut to what fits a line."""
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _facts(path: Path) -> dict:
    """What tells a file from a changed one, without reading it."""
    status = path.stat()
    return {"size": status.st_size, "time_ns": status.st_mtime_ns}


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep(dataset: Dataset, folder: Path, cache: Path) -> None:
    """Writes the parsed arrays of the files in `folder` to the file `cache`, unless they are there."""
    paths = [folder / name for name in FILES]
    if _cached(cache, paths) is not None:
        return
    key = {path.name: _facts(path) | {"sha256": _hash(path)} for path in paths}
    cache.parent.mkdir(parents=True, exist_ok=True)
    with atomic(cache) as file:
        np.savez(
            file,
            key=json.dumps({"version": _CACHE_VERSION, "columns": dataset.columns, "files": key}),
            train_images=dataset.train.images,
            train_labels=dataset.train.labels,
            train_ids=dataset.train.ids,
            test_images=dataset.test.images,
            test_ids=dataset.test.ids,
        )


def _cached(cache: Path, paths: list[Path]) -> Dataset | None:
    """What `keep` wrote, if it is whole and of these files."""
    try:
        with np.load(cache) as arrays:
            key = json.loads(str(arrays["key"]))
            if key["version"] != _CACHE_VERSION or not _same_files(key["files"], paths):
                return None
            return Dataset(
                Digits(arrays["train_images"], arrays["train_labels"], arrays["train_ids"]),
                Digits(arrays["test_images"], None, arrays["test_ids"]),
                tuple(key["columns"]),
                "competition",
            )
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
    return Dataset(train, Digits(images[1300:], None, ids[:497]), ("ImageId", "Label"), "sample")
