"""MNIST's binary files as arrays: IDX and npz. What is damaged is refused by name."""

import errno
import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from digit_recognizer.files import UserError

_GZIP, _ZIP = b"\x1f\x8b", b"PK"  # how archives begin
_MAX_DEFLATE_RATIO = 1032  # bytes that a byte of gzip can hold
_UNSIGNED_BYTES = 0x0800  # in a magic number, to which the number of dimensions is added


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
