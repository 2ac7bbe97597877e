"""File formats of arrays: CSVs of small whole numbers, IDX and npz. What is damaged is refused by name."""

import errno
import gzip
import io
import math
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd

from digit_recognizer.errors import UserError

_BOM = b"\xef\xbb\xbf"
_PLAIN = b"0123456789, \n"  # the bytes of a table that pandas reads as we mean it
_CHUNK = 4096  # rows that pandas parses at a time, as int64: 26 MB
_MOST_DIGITS = 4  # of a cell that are looked at: Python refuses to convert thousands of them

_GZIP, _ZIP = b"\x1f\x8b", b"PK"  # how archives begin
_MAX_DEFLATE_RATIO = 1032  # bytes that a byte of gzip can hold
_UNSIGNED_BYTES = 0x0800  # in a magic number, to which the number of dimensions is added


@dataclass(frozen=True)
class Table:
    """The text of a CSV whose cells are small whole numbers."""

    path: Path  # that a UserError names
    names: list[str]  # of the columns
    body: bytes  # the lines of the rows, each with its newline
    first_line: int  # the number of the first row's line in the file

    def parse(self, highest: list[int]) -> np.ndarray:
        """Returns all cells, uint8 (rows, columns); `highest` is the greatest value of each column, 255 or less.

        Raises UserError for the first cell that is no whole number in its range.
        """
        if not self.body:
            raise UserError(f"{self.path} has a header and no rows: download it again")
        cells = self._parse_fast(highest)
        return self._parse_lines(highest) if cells is None else cells

    def _parse_fast(self, highest: list[int]) -> np.ndarray | None:
        """Returns what `parse` does, or None if a cell may be wrong.

        pandas reads signs, fractions and zero bytes, which no picture has, and drops an empty cell at the end of
        a row. So the bytes and the number of commas are checked first.
        """
        commas = self.body.count(b"\n") * (len(self.names) - 1)
        if self.body.translate(None, _PLAIN) or self.body.count(b",") != commas:
            return None
        chunks = []
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)  # about a first row that is too long
                reader = pd.read_csv(
                    io.BytesIO(self.body),
                    header=None,
                    names=range(len(self.names)),
                    index_col=False,
                    na_filter=False,
                    skip_blank_lines=False,
                    low_memory=False,
                    chunksize=_CHUNK,
                )
                for frame in reader:
                    cells = frame.to_numpy()
                    if cells.dtype.kind != "i" or (cells.max(axis=0) > highest).any():
                        return None
                    chunks.append(cells.astype(np.uint8))
        except (ValueError, pd.errors.ParserWarning):
            return None
        return np.concatenate(chunks)

    def _parse_lines(self, highest: list[int]) -> np.ndarray:
        """Returns what `parse` does, cell by cell: slower, but it finds the cell that is wrong."""
        rows = []
        for number, line in enumerate(self.body.decode(errors="replace").split("\n")[:-1]):
            where = f"{self.path}: row {number + 1} (line {number + self.first_line})"
            cells = line.split(",")
            if len(cells) != len(self.names):
                raise UserError(
                    f"{where} has {len(cells)} columns, not {len(self.names)}: is the file cut off?"
                )
            row = []
            for name, cell, most in zip(self.names, cells, highest, strict=True):
                digits = cell.strip()
                whole = cell.isascii() and digits.isdigit()
                value = int(digits.lstrip("0")[:_MOST_DIGITS] or 0) if whole else most + 1
                if value > most:
                    shown = quoted(cell) if digits else "empty"
                    raise UserError(f"{where}, column {name}: {shown}, not a whole number from 0 to {most}")
                row.append(value)
            rows.append(np.array(row, np.uint8))
        return np.array(rows)

    def first_column(self) -> "Table":
        """Returns the first column, unparsed."""
        return Table(self.path, self.names[:1], self._part(0), self.first_line)

    def other_columns(self) -> "Table":
        """Returns all columns but the first, unparsed."""
        return Table(self.path, self.names[1:], self._part(2), self.first_line)

    def _part(self, part: int) -> bytes:
        """Returns the lines before their first comma, `part` 0, or after it, 2."""
        return b"".join(line[:-1].partition(b",")[part] + b"\n" for line in io.BytesIO(self.body))


def quoted(text: str) -> str:
    """Returns `text` in quotation marks, cut to what fits a line."""
    return repr(text if len(text) <= 40 else text[:40] + "...")


def read_lines(path: Path) -> bytes:
    """Returns the text of a file as lines that end in a newline."""
    data = path.read_bytes().removeprefix(_BOM)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    if not data or data.isspace():
        raise UserError(f"{path} is empty: download it again")
    if data[-1:] != b"\n" or data[-2:] == b"\n\n":  # not always: it copies the file, which is large
        data = data.rstrip(b"\n") + b"\n"
    return data


def split_header(data: bytes) -> tuple[list[str], bytes]:
    """Returns the cells of the first line, without quotation marks, and the other lines."""
    head, _, body = data.partition(b"\n")
    return [name.strip().strip('"') for name in head.decode(errors="replace").split(",")], body


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """Returns the uint8 array of an IDX file, gzipped or not, whatever its name says.

    The format, http://yann.lecun.com/exdb/mnist: a magic number and the size of each dimension as
    big-endian int32, then the bytes. Raises UserError where the file is anything else.
    """
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            most = path.stat().st_size * (_MAX_DEFLATE_RATIO if packed else 1)
            return _read_idx(file, path, dimensions, most)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f"{path} is no whole gzip archive ({error}): get it again") from None


def _read_idx(file: BinaryIO, path: Path, dimensions: int, most: int) -> np.ndarray:
    """Returns the array; `most` is how many bytes the file can hold."""
    head = file.read(4 * (1 + dimensions))
    if head[:2] == _GZIP or head[:2] == _ZIP:
        raise UserError(f"{path} holds a further archive: unpack that")
    if len(head) < 4 * (1 + dimensions):
        raise UserError(f"{path} ends within its header: get it again")
    magic, *shape = (int(number) for number in np.frombuffer(head, ">u4"))
    if magic != _UNSIGNED_BYTES + dimensions:
        wanted = _UNSIGNED_BYTES + dimensions
        raise UserError(f"{path}: its magic number is {magic}, not {wanted}: it is another file, or damaged")
    size = math.prod(shape)
    data = file.read(size + 1) if size <= most else b""
    if len(data) != size:
        what = "more" if len(data) > size else "less"
        sizes = " x ".join(map(str, shape))
        raise UserError(f"{path}: its header says {sizes} bytes, but it holds {what}: get it again")
    return np.frombuffer(data, np.uint8).reshape(shape)


def read_npz(path: Path, names: tuple[str, ...]) -> list[np.ndarray]:
    """Returns the arrays of these names in an npz file, and reads no other.

    Raises UserError where one is missing, damaged or pickled.
    """
    try:
        file = np.load(path, allow_pickle=False)
    except Exception as error:  # anything, for a damaged file
        _raise_unless_damaged(error)
        why = str(error).partition("\n")[0] or "it ends early"
        raise UserError(f"{path} is no whole archive ({why}): get it again") from None
    if isinstance(file, np.ndarray):
        raise UserError(f"{path} is no archive of arrays, but a single one: get {', '.join(names)} together")
    with file:
        members = file.zip.namelist()
        for name in names:
            if f"{name}.npy" not in members:
                raise UserError(f"{path} holds no {name}.npy, only {', '.join(members) or 'nothing'}")
        return [_read_member(file, path, name) for name in names]


def _read_member(file: np.lib.npyio.NpzFile, path: Path, name: str) -> np.ndarray:
    try:
        array = file[f"{name}.npy"]
        if not isinstance(array, np.ndarray):  # the bytes of a member of another kind
            raise ValueError("no array")
    except Exception as error:  # anything, for a damaged member
        _raise_unless_damaged(error)
        pickled = "pickled, which could run any program," if "pickle" in str(error) else ""
        what = pickled or "no array, or a damaged one,"
        raise UserError(f"{path}: {name} is {what} and is not loaded: get the file again") from None
    return array


def _raise_unless_damaged(error: Exception) -> None:
    """Raises `error` again where the file system refuses, such as for a file that nobody may read."""
    if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):  # EINVAL: a wrong offset
        raise error
