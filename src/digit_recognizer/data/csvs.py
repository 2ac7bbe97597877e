"""CSVs of digits: the competition's and MNIST's, read as arrays and checked cell by cell."""

import codecs
import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import pandas as pd

from digit_recognizer import SIDE
from digit_recognizer.data.input_files import DataFile
from digit_recognizer.files import UserError

PIXELS = SIDE * SIDE
CLASSES = 10

_CHUNK = 2000  # rows that are parsed at a time, as int64: 13 MB
_NO_NAME = re.compile(r"unnamed: \d+", re.IGNORECASE)  # pandas' name for a column without one
_NUMBER = re.compile(r"\d+(\.\d*)?(e[+-]?\d+)?", re.ASCII)  # without a sign
_PIXEL_NAME = re.compile(r"(?:(\d\d?)x|(\D*))(\d{1,3})", re.ASCII)


@dataclass(frozen=True)
class Table:
    """The text of a CSV."""

    file: DataFile  # that a UserError names
    separator: str
    names: list[str]  # of the columns; empty for a column without a name, such as row numbers
    body: bytes  # the rows in UTF-8, each with its newline
    first_line: int  # number of the first row's line in the file

    def check_rows(self) -> None:
        """Raises UserError if there is no row, or for the first that is blank or has too many or too few cells."""
        if not self.body:
            raise UserError(f"{self.file} has a header and no rows: download it again")
        separator, columns = self.separator.encode(), len(self.names)
        for row, line in enumerate(self.body.split(b"\n")[:-1]):
            cells = line.count(separator) + 1
            if not line.strip():
                raise UserError(f"{self.row_name(row)} is blank: remove that line")
            if cells != columns:
                hint = ": is the file cut off?" if cells < columns else ""
                raise UserError(f"{self.row_name(row)} has {cells} columns, not {columns}{hint}")

    def texts(self, column: int) -> list[str]:
        """Returns the cells of a column without the quotation marks and spaces around them."""
        chunks = self._parse([column], dtype=object, quoting=csv.QUOTE_NONE)
        return [_strip(cell) for cells in chunks for (cell,) in cells]

    def numbers(self, greatest: dict[int, int]) -> np.ndarray:
        """Returns columns of whole numbers, uint8 (rows, columns).

        `greatest` has the columns from left to right, each with its greatest possible value, 255 or less. Raises
        UserError for the first cell that is not a whole number from 0 to that value.
        """
        columns, limits = list(greatest), list(greatest.values())
        # pandas also takes signs and cuts cells at a zero byte: it parses only plain digits itself
        if not self.body.translate(None, b'0123456789 "\n' + self.separator.encode()):
            try:
                return np.concatenate([_to_uint8(cells, limits) for cells in self._parse(columns, dtype=np.int64)])
            except (ValueError, OverflowError):
                pass  # the text shows which cell is wrong
        if b"\0" in self.body:
            row = self.body[: self.body.index(b"\0")].count(b"\n")
            raise UserError(f"{self.row_name(row)} holds a zero byte: get the file again")
        rows, arrays = 0, []
        for cells in self._parse(columns, dtype=object, quoting=csv.QUOTE_NONE):
            codes, texts = pd.factorize(cells.ravel())
            values = np.array([_number(text) for text in texts])[codes].reshape(cells.shape)
            for row, column in np.argwhere(~((values == np.floor(values)) & (values <= limits)))[:1]:
                cell, limit = cells[row, column], limits[column]
                problem = f"{quoted(cell) if cell.strip() else 'empty'}, not a whole number from 0 to {limit}"
                problem += ": pixels of 0 to 1 have to be multiplied by 255" * (limit == 255 and 0 < _number(cell) < 1)
                raise UserError(f"{self.row_name(rows + row)}, column {self.names[columns[column]]}: {problem}")
            arrays.append(values.astype(np.uint8))
            rows += len(cells)
        return np.concatenate(arrays)

    def _parse(self, columns: list[int], **options: Any) -> Iterator[np.ndarray]:
        """Yields the cells (rows, columns) of some rows at a time."""
        options |= {"sep": self.separator, "names": range(len(self.names)), "usecols": columns}
        options |= {"header": None, "index_col": False, "na_filter": False, "skip_blank_lines": False}
        options |= {"lineterminator": "\n", "encoding_errors": "replace", "low_memory": False}
        for frame in pd.read_csv(BytesIO(self.body), chunksize=_CHUNK, **options):
            yield frame.to_numpy()

    def row_name(self, row: int) -> str:
        """Returns a row's place in the file, for messages; `row` counts from 0."""
        return f"{self.file}: row {row + 1} (line {row + self.first_line})"

    def quoted_header(self) -> str:
        """Returns the beginning of the first line, for messages."""
        return quoted(self.separator.join(self.names))


def open_table(file: DataFile) -> Table:
    """Reads a CSV in UTF-8 or UTF-16 with commas, semicolons or tabs; pictures need no header."""
    data = file.read()
    if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        data = data.decode("utf-16", errors="replace").encode()
    data = data.removeprefix(codecs.BOM_UTF8)
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n")
        data = data if b"\n" in data else data.replace(b"\r", b"\n")
    if data[-1:] != b"\n" or data[-2:] == b"\n\n":  # not always: it copies the text, which is large
        data = data.rstrip(b"\n") + b"\n"
    head, _, body = data.partition(b"\n")
    text, first_line = head.decode(errors="replace"), 2
    separator = max(",;\t", key=text.count)
    names = [_NO_NAME.sub("", _strip(name)) for name in text.split(separator)]
    counts = [[str(number) for number in range(first, first + len(names))] for first in (0, 1)]
    if all(map(_NUMBER.fullmatch, names)) and names not in counts:  # pixels, not the names 0 to 783
        if len(names) not in (PIXELS, PIXELS + 1):
            raise UserError(f"{file}: its first line is {quoted(text)}, not a header")
        names = ["label"] * (len(names) - PIXELS) + [f"pixel{number}" for number in range(PIXELS)]
        body, first_line = data, 1
    if b"\0" in head:
        raise UserError(f"{file}: its first line holds zero bytes: save it as CSV in UTF-8")
    return Table(file, separator, names, body, first_line)


def _strip(cell: str) -> str:
    return cell.strip().strip('"').strip()


def quoted(text: str) -> str:
    """Returns `text` in quotation marks, cut to what fits a line."""
    return repr(text if len(text) <= 40 else text[:40] + "...")


def _to_uint8(cells: np.ndarray, limits: list[int]) -> np.ndarray:
    if (cells.view(np.uint64).max(axis=0) > limits).any():  # pandas may wrap a number beyond int64
        raise ValueError("out of range")
    return cells.astype(np.uint8, order="C")


def _number(cell: str) -> float:
    """Returns the number in a cell such as 12, "12", 12.0 or 1.2e+01, NaN for any other cell."""
    quotes = cell.strip()[:1] == cell.strip()[-1:] == '"'
    text = _strip(cell) if quotes else cell.strip()
    return float(text) if _NUMBER.fullmatch(text) else np.nan


def read_sample_submission(file: DataFile) -> tuple[tuple[str, str], list[str]]:
    """Returns the names of the id and label columns, and the ids; raises UserError unless all of them differ."""
    table = open_table(file)
    columns = [column for column, name in enumerate(table.names) if name]
    if len(columns) != 2:
        raise UserError(f"{file}: its first line is {table.quoted_header()}, not two names such as ImageId,Label")
    table.check_rows()
    ids = table.texts(columns[0])
    if len(set(ids)) != len(ids):
        raise UserError(f"{file}: an id occurs twice: download it again")
    return (table.names[columns[0]], table.names[columns[1]]), ids


def read_pictures(
    file: DataFile, id_name: str, label_name: str, has_labels: bool
) -> tuple[np.ndarray, np.ndarray, list[str] | None]:
    """Returns pictures uint8 (n, 28, 28), labels uint8 (n,) or (0,), and ids or None; raises UserError."""
    table = open_table(file)
    columns = _sort_columns(table, id_name, label_name)
    if has_labels and not columns["label"]:
        raise UserError(f"{file}: no column is called {label_name!r}: is it test.csv?")
    if columns["label"] and not has_labels:
        raise UserError(f"{file} has labels: is it train.csv, or MNIST's test file (mnist_test.csv)?")
    table.check_rows()
    greatest = dict.fromkeys(columns["pixel"], 255) | dict.fromkeys(columns["label"], CLASSES - 1)
    images, labels = table.numbers(dict(sorted(greatest.items()))), np.zeros(0, np.uint8)
    if has_labels:
        position = sorted(greatest).index(columns["label"][0])
        labels, images = images[:, position].copy(), np.delete(images, position, axis=1)
    images = images.reshape(-1, SIDE, SIDE)
    if images.max() == 1:
        raise UserError(f"{file}: its greatest pixel is 1: pixels of 0 to 1 have to be multiplied by 255")
    return images, labels, table.texts(columns["id"][0]) if columns["id"] else None


def _sort_columns(table: Table, id_name: str, label_name: str) -> dict[str, list[int]]:
    """Returns the columns of each kind: at most one "id" and one "label", and the 784 of "pixel".

    Pixels are named in order, such as pixel0 to pixel783, 1 to 784 or 1x1 to 28x28. Columns without a name are
    left out, and letters may be small or capital.
    """
    kinds = {"id": "id", "imageid": "id", "label": "label"}
    kinds |= {id_name.casefold(): "id", label_name.casefold(): "label"}
    columns: dict[str, list[int]] = {"id": [], "label": [], "pixel": []}
    positions = []
    for column, name in enumerate(table.names):
        if not name:
            continue
        kind, match = kinds.get(name.casefold(), "pixel"), _PIXEL_NAME.fullmatch(name)
        columns[kind].append(column)
        if kind != "pixel":
            continue
        if not match:
            problem = f"not the header label,pixel0,...,pixel{PIXELS - 1}: column {column + 1} is {quoted(name)}"
            raise UserError(f"{table.file}: its first line is {table.quoted_header()}, {problem}")
        positions.append((name, match[2], int(match[1] or 0) * SIDE + int(match[3])))
    if len(positions) != PIXELS or len(columns["id"]) > 1 or len(columns["label"]) > 1:
        counts = ", ".join(f"{len(columns[kind])} {kind}" for kind in columns)
        raise UserError(f"{table.file}: its header has {counts} columns, not {PIXELS} pixel columns ({SIDE} x {SIDE})")
    _, prefix, first = positions[0]
    first = first if first in (0, 1, SIDE + 1) else 0
    for number, position in enumerate(positions):
        if position[1:] != (prefix, first + number):
            name = quoted(position[0])
            raise UserError(f"{table.file}: its header has {name} as pixel {number + 1}: they have to be in order")
    return columns
