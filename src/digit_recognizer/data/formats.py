"""File formats as arrays: CSVs of small whole numbers, IDX and npz. What is damaged is refused by name."""

import gzip
import math
import os
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np

from digit_recognizer.data import archive
from digit_recognizer.errors import UserError

_BOM = b"\xef\xbb\xbf"
_BLOCK = 1 << 19  # bytes of CSV parsed at a time: its arrays stay in the processor's cache
_GZIP, _ZIP = b"\x1f\x8b", b"PK"  # how archives begin
_MOST = 1032  # to one: gzip packs no tighter
_UNSIGNED_BYTES = 0x0800  # in a magic number, to which the number of dimensions is added


def read_lines(path: Path) -> bytes:
    """A file of text as lines that end in a newline."""
    data = path.read_bytes().removeprefix(_BOM)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    if not data or data.isspace():
        raise UserError(f"{path} is empty: download it again")
    if data[-1:] != b"\n" or data[-2:] == b"\n\n":  # a copy of the file, which is large
        data = data.rstrip(b"\n") + b"\n"
    return data


def first_line(data: bytes) -> list[str]:
    """Its cells, without quotation marks."""
    head = data[: data.index(b"\n")].decode(errors="replace")
    return [name.strip().strip('"') for name in head.split(",")]


def parse_csv(
    path: Path, data: bytes, names: list[str], highest: list[int], first_number: int = 2
) -> np.ndarray:
    """All cells after the header as uint8 (rows, columns), by blocks of whole lines on every core.

    Args:
        path: that a UserError names.
        data: the file as `read_lines` gives it.
        names: of the columns.
        highest: value that each column may have, 255 or less.
        first_number: of the first row's line in the file.

    Raises UserError for the first cell that is no whole number in its range.

    A CSV of small whole numbers needs no CSV reader: this one takes a third of pandas' time.
    Anything it does not know goes to `_parse_lines`, which knows what to say.
    """
    table = np.frombuffer(data, np.uint8)
    cuts = [data.index(b"\n") + 1]
    if cuts[0] == len(data):
        raise UserError(f"{path} has a header and no rows: download it again")
    while cuts[-1] < len(data):
        cuts.append((data.find(b"\n", cuts[-1] + _BLOCK) + 1) or len(data))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        # the three bytes before a block belong to it: a cell looks back at most so far
        blocks = [table[start - 3 : stop] for start, stop in pairwise(cuts)]
        parsed = list(pool.map(lambda block: _parse_block(block, len(names)), blocks))
    if any(block is None for block in parsed):
        return _parse_lines(path, data, names, highest, first_number)
    cells = np.concatenate(parsed).reshape(-1, len(names))
    if (cells.max(axis=0) > highest).any():
        return _parse_lines(path, data, names, highest, first_number)
    return cells


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


def _parse_lines(
    path: Path, data: bytes, names: list[str], highest: list[int], first_number: int
) -> np.ndarray:
    """As `parse_csv`, cell by cell."""
    table = []
    for row, line in enumerate(data.decode(errors="replace").split("\n")[1:-1]):
        where = f"{path}: row {row + 1} (line {row + first_number})"
        cells = line.split(",")
        if len(cells) != len(names):
            raise UserError(f"{where} has {len(cells)} columns, not {len(names)}: is the file cut off?")
        for name, cell, most in zip(names, cells, highest, strict=True):
            if not (cell.isascii() and cell.strip().isdigit()) or int(cell) > most:
                what = shown(cell) if cell.strip() else "empty"
                raise UserError(f"{where}, column {name}: {what}, not a whole number from 0 to {most}")
        table.append(np.array(cells, np.int64).astype(np.uint8))
    return np.array(table)


def shown(text: str) -> str:
    """`text` quoted, cut to what fits a line."""
    return repr(text if len(text) <= 40 else text[:40] + "...")


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The uint8 array of an IDX file, gzipped or not, whatever its name says.

    The format, http://yann.lecun.com/exdb/mnist: a magic number and the size of each dimension as
    big-endian int32, then the bytes. Raises UserError where the file is anything else.
    """
    with path.open("rb") as file:
        packed = file.read(len(_GZIP)) == _GZIP
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            return _read_idx(file, path, dimensions, path.stat().st_size * (_MOST if packed else 1))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is no whole gzip archive ({error}): get it again") from None


def _read_idx(file, path: Path, dimensions: int, most: int) -> np.ndarray:
    """`most` is what the file may hold, in bytes."""
    head = file.read(4 * (1 + dimensions))
    if head[:2] == _GZIP or head[:2] == _ZIP:
        raise UserError(f"{path} holds a further archive: unpack that")
    if len(head) < 4 * (1 + dimensions):
        raise UserError(f"{path} ends within its header: get it again")
    magic, *shape = (int(number) for number in np.frombuffer(head, ">u4"))
    if magic != _UNSIGNED_BYTES + dimensions:
        raise UserError(
            f"{path}: its magic number is {magic}, not {_UNSIGNED_BYTES + dimensions}: it is another file, "
            "or damaged"
        )
    size = math.prod(shape)
    data = file.read(size + 1) if size <= most else b""
    if len(data) != size:
        what = "more" if len(data) > size else "less"
        raise UserError(f"{path}: its header says {_times(shape)} bytes, but it holds {what}: get it again")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _times(shape: list[int]) -> str:
    return " x ".join(map(str, shape))


def read_npz(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """The arrays of these names in an npz file. Raises UserError where one is missing, damaged or pickled."""
    archive.members(path, tuple(f"{name}.npy" for name in names))
    with archive.reading(path), zipfile.ZipFile(path) as file:
        return [_read_npy(file, path, name) for name in names]


def _read_npy(file: zipfile.ZipFile, path: Path, name: str) -> np.ndarray:
    try:
        with file.open(f"{name}.npy") as member:
            return np.lib.format.read_array(member, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # NumPy raises nearly anything for a damaged header
        pickled = "pickled, which could run any program," if "pickle" in str(error) else ""
        what = pickled or "no array, or a damaged one,"
        raise UserError(f"{path}: {name} is {what} and is not loaded: get the file again") from None
