"""MNIST's binary files, IDX and npz, as pictures and labels. What is damaged is refused by name."""

import io
import math

import numpy as np

from digit_recognizer.data.csvs import CLASSES, PIXELS, SIDE
from digit_recognizer.data.input_files import DataFile
from digit_recognizer.files import UserError

_UNSIGNED_BYTES = 0x0800  # in a magic number, to which the number of dimensions is added


def read_idx(file: DataFile) -> np.ndarray:
    """Returns the uint8 array of an IDX file; raises UserError if the file is anything else.

    Source: http://yann.lecun.com/exdb/mnist: a magic number and each dimension as big-endian int32, then the bytes.
    """
    data = file.read()
    dimensions = int.from_bytes(data[:4]) - _UNSIGNED_BYTES
    start = 4 * (1 + dimensions)  # of the values
    if dimensions not in (1, 3) or len(data) < start:
        raise UserError(f"{file} is not an IDX file of labels or pictures, or it is damaged: get it again")
    shape = [int(size) for size in np.frombuffer(data[4:start], ">u4")]
    if len(data) - start != math.prod(shape):
        what = "more" if len(data) - start > math.prod(shape) else "less"
        sizes = " x ".join(map(str, shape))
        raise UserError(f"{file}: its header says {sizes} bytes, but it holds {what}: get it again")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def read_npz(file: DataFile) -> list[tuple[str, np.ndarray]]:
    """Returns x_train, y_train, x_test and y_test, with their names; raises UserError for a missing one."""
    data, arrays = file.read(), []
    try:
        archive = np.load(io.BytesIO(data), allow_pickle=False)
        if isinstance(archive, np.ndarray):
            raise ValueError("it is a single array")
    except Exception as error:  # a damaged file can raise nearly any exception
        reason = str(error).partition("\n")[0] or "it ends early"
        raise UserError(f"{file} is not a complete archive of arrays ({reason}): get it again") from None
    members = {name.lower(): name for name in archive.files}
    for name in ("x_train", "y_train", "x_test", "y_test"):
        if name not in members:
            raise UserError(f"{file} holds no {name}, only {', '.join(archive.files) or 'nothing'}")
        try:
            arrays.append((f"{file}: {name}", np.asarray(archive[members[name]])))
        except Exception as error:
            what = "is pickled, which could run any program" if "pickle" in str(error) else "is damaged"
            raise UserError(f"{file}: {name} {what}, and is not loaded: get the file again") from None
    return arrays


def to_images(name: str, array: np.ndarray) -> np.ndarray:
    """Returns pictures of 0 to 255, or of 0 to 1, flat or not, as uint8 (n, 28, 28); else raises UserError."""
    shapes = ((SIDE, SIDE), (SIDE, SIDE, 1), (1, SIDE, SIDE), (PIXELS,))
    if array.size == 0 or array.shape[1:] not in shapes:
        raise UserError(f"{name} has the shape {array.shape}, not pictures of {SIDE} x {SIDE}")
    array = array.reshape(-1, SIDE, SIDE)
    if array.dtype.kind in "fiub" and array.min() >= 0 and array.max() <= 1:
        array = np.round(array * 255.0)
    return _to_uint8(name, array, 255)


def to_labels(name: str, array: np.ndarray, rows: int) -> np.ndarray:
    """Returns labels, whole numbers from 0 to 9 or one-hot rows, as uint8 (rows,); raises UserError as `to_images`."""
    if array.shape == (rows, CLASSES) and (np.sort(array) == np.eye(CLASSES)[-1]).all():
        array = array.argmax(axis=1)
    if array.shape not in ((rows,), (rows, 1)):
        raise UserError(f"{name} has the shape {array.shape}, not a label for each of {rows} pictures")
    return _to_uint8(name, array.reshape(rows), CLASSES - 1)


def _to_uint8(name: str, array: np.ndarray, greatest: int) -> np.ndarray:
    if array.dtype.kind not in "fiub":
        raise UserError(f"{name} holds {array.dtype}, not whole numbers from 0 to {greatest}")
    is_right = (array >= 0) & (array <= greatest)
    if array.dtype.kind == "f":
        is_right &= array == np.round(array)
    for index in np.argwhere(~is_right)[:1]:
        value = array[tuple(index)]
        raise UserError(f"{name}: row {index[0] + 1}: {value}, not a whole number from 0 to {greatest}")
    return np.ascontiguousarray(array, np.uint8)
