"""CSVs: the competition's and MNIST's, read as arrays and checked cell by cell."""

import csv
import io
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from digit_recognizer.files import UserError

SIDE = 28  # pixels of a picture, in each direction
PIXELS = SIDE * SIDE
CLASSES = 10

_BOM = b"\xef\xbb\xbf"
_PLAIN = b"0123456789, \n"  # the bytes of a table that pandas reads as we mean it
_CHUNK = 4096  # rows that pandas parses at a time, as int64: 26 MB
_MOST_DIGITS = 4  # of a cell that are looked at: Python refuses to convert thousands of them


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

        pandas reads signs, fractions and zero bytes, which no picture has, drops an empty cell at the end of a row,
        and what is too much in the first row. So the bytes and the numbers of commas are checked first.
        """
        commas = len(self.names) - 1  # of a row
        if (
            self.body.translate(None, _PLAIN)
            or self.body.count(b",", 0, self.body.index(b"\n")) != commas
            or self.body.count(b",") != self.body.count(b"\n") * commas
        ):
            return None
        chunks = []
        try:
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
        except ValueError:
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


def read_sample_submission(path: Path) -> tuple[tuple[str, str], list[str]]:
    """Returns the names of the id and label columns, and the ids; the labels there are placeholders.

    Raises UserError where it is no table of two columns, or an id is there twice.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header, *rows = (row for row in csv.reader(file) if row)
    except (ValueError, csv.Error) as error:
        what = "it is empty" if path.stat().st_size == 0 else f"not a CSV ({error})"
        raise UserError(f"{path}: {what}; download it again") from None
    if len(header) != 2 or all(cell.isdigit() for cell in header):
        raise UserError(
            f"{path}: its first line is {quoted(','.join(header))}, not two names such as ImageId,Label"
        )
    for number, row in enumerate(rows, start=1):
        if len(row) != 2:
            raise UserError(f"{path}: row {number} (line {number + 1}) has {len(row)} columns, not 2")
    ids = [row[0] for row in rows]
    if not ids or len(set(ids)) != len(ids):
        raise UserError(f"{path}: {'no rows' if not ids else 'an id is there twice'}; download it again")
    return (header[0], header[1]), ids


def read_train(path: Path, label: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the pictures uint8 (n, 28, 28) and labels uint8 (n,) of train.csv, whose label column is `label`.

    Raises UserError for the first thing that is wrong.
    """
    table, first = _open(path)
    if first is None or first.casefold() != label.casefold():
        raise UserError(
            f"{path}: its first column is {quoted(table.names[0])}, not {label!r}: is it test.csv?"
        )
    return _parse_labelled(table)


def read_mnist(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Returns what `read_train` does, of mnist_train.csv or mnist_test.csv: no header, or label,1x1,1x2,..."""
    data = _read_lines(path)
    names, body = _split_header(data)
    if len(names) != 1 + PIXELS:
        raise UserError(
            f"{path}: its first line has {len(names)} columns, not {1 + PIXELS}: label and pixels"
        )
    if all(name.isdigit() for name in names):
        names = ["label", *(f"pixel{number}" for number in range(PIXELS))]
        return _parse_labelled(Table(path, names, data, first_line=1))
    if names[0].casefold() != "label":
        raise UserError(f"{path}: its first column is {quoted(names[0])}, not 'label'")
    return _parse_labelled(Table(path, names, body, first_line=2))


def _parse_labelled(table: Table) -> tuple[np.ndarray, np.ndarray]:
    cells = table.parse([CLASSES - 1, *[255] * PIXELS])
    return np.ascontiguousarray(cells[:, 1:]).reshape(-1, SIDE, SIDE), cells[:, 0].copy()


def read_test(path: Path, columns: tuple[str, str]) -> tuple[np.ndarray, list[str] | None]:
    """Returns the pictures uint8 (n, 28, 28) of test.csv, and the ids where it has them before the pixels.

    `columns` are the names of the id and label columns. Raises UserError for the first thing that is wrong.
    """
    table, first = _open(path)
    ids = None
    if first is not None:
        if first != columns[0]:
            hint = ": is it train.csv?" if first.casefold() == columns[1].casefold() else ""
            raise UserError(
                f"{path}: its first column is {quoted(first)}, not a pixel or {columns[0]!r}{hint}"
            )
        ids = table.first_column().body.decode(errors="replace").split("\n")[:-1]
        table = table.other_columns()
    return table.parse([255] * PIXELS).reshape(-1, SIDE, SIDE), ids


def _open(path: Path) -> tuple[Table, str | None]:
    """Returns a table with the competition's header, and the name of the column before the pixels if there is one."""
    names, body = _split_header(_read_lines(path))
    first = None if re.fullmatch(r"pixel\d+", names[0]) else names[0]
    pixels = names if first is None else names[1:]
    if not pixels or not pixels[0].startswith("pixel"):
        raise UserError(
            f"{path}: its first line is {quoted(','.join(names))}, not the header "
            f"label,pixel0,...,pixel{PIXELS - 1}: is it the competition's file?"
        )
    if len(pixels) != PIXELS:
        raise UserError(f"{path}: its header has {len(pixels)} pixel columns, not {PIXELS} ({SIDE} x {SIDE})")
    for number, name in enumerate(pixels, start=int(pixels[0] == "pixel1")):
        if name != f"pixel{number}":
            raise UserError(f"{path}: its header has {quoted(name)} where pixel{number} belongs")
    return Table(path, names, body, first_line=2), first


def _read_lines(path: Path) -> bytes:
    """Returns the text of a file as lines that end in a newline."""
    data = path.read_bytes().removeprefix(_BOM)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
    if not data or data.isspace():
        raise UserError(f"{path} is empty: download it again")
    if data[-1:] != b"\n" or data[-2:] == b"\n\n":  # not always: it copies the file, which is large
        data = data.rstrip(b"\n") + b"\n"
    return data


def _split_header(data: bytes) -> tuple[list[str], bytes]:
    """Returns the cells of the first line, without quotation marks, and the other lines."""
    head, _, body = data.partition(b"\n")
    return [name.strip().strip('"') for name in head.decode(errors="replace").split(",")], body
