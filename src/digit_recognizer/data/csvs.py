"""The competition's CSVs and MNIST's as arrays."""

import csv
import re
from pathlib import Path

import numpy as np

from digit_recognizer.data.formats import Table, quoted, read_lines, split_header
from digit_recognizer.errors import UserError

SIDE = 28  # pixels of a picture, in each direction
PIXELS = SIDE * SIDE
CLASSES = 10


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


def read_train(path: Path, label: str, pixels: bool) -> tuple[np.ndarray | None, np.ndarray]:
    """Returns the pictures uint8 (n, 28, 28) and labels uint8 (n,) of train.csv, whose label column is `label`.

    Without `pixels` no pixel is parsed or checked, and the pictures are None. Raises UserError for the first
    thing that is wrong.
    """
    table, first = _open(path)
    if first is None or first.casefold() != label.casefold():
        raise UserError(
            f"{path}: its first column is {quoted(table.names[0])}, not {label!r}: is it test.csv?"
        )
    return _parse_labelled(table, pixels)


def read_mnist(path: Path, pixels: bool) -> tuple[np.ndarray | None, np.ndarray]:
    """Returns what `read_train` does, of mnist_train.csv or mnist_test.csv: no header, or label,1x1,1x2,..."""
    data = read_lines(path)
    names, body = split_header(data)
    if len(names) != 1 + PIXELS:
        raise UserError(
            f"{path}: its first line has {len(names)} columns, not {1 + PIXELS}: label and pixels"
        )
    if all(name.isdigit() for name in names):
        names = ["label", *(f"pixel{number}" for number in range(PIXELS))]
        return _parse_labelled(Table(path, names, data, first_line=1), pixels)
    if names[0].casefold() != "label":
        raise UserError(f"{path}: its first column is {quoted(names[0])}, not 'label'")
    return _parse_labelled(Table(path, names, body, first_line=2), pixels)


def _parse_labelled(table: Table, pixels: bool) -> tuple[np.ndarray | None, np.ndarray]:
    if not pixels:
        return None, table.first_column().parse([CLASSES - 1])[:, 0]
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
    names, body = split_header(read_lines(path))
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
