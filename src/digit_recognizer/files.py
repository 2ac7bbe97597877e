"""Files that are written whole or not at all, and the commit of this checkout."""

import io
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from digit_recognizer.errors import UserError

if TYPE_CHECKING:
    import matplotlib.figure

ROOT = Path(__file__).resolve().parents[2]  # of the checkout


@contextmanager
def atomic(path: Path, prefix: str = ".") -> Iterator[Path]:
    """Yields a path to write to in place of `path`; a block that ends well moves it there in one step.

    The path is that of `path`, its name with `prefix`: two processes that may write it at once need two of them.

    A block that fails, or a process that dies, leaves `path` as it was. Once the block has ended, the file
    and its name are on the disk: a machine that loses power afterwards still has them.
    """
    temporary = path.with_name(f"{prefix}{path.name}")  # the same ending: Keras and NumPy look at it
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    except OSError as error:  # a full disk does not say which file it was
        error.filename = error.filename or str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Waits until a file's contents, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_array(path: Path, array: np.ndarray) -> None:
    """Writes an .npy file."""
    _write_through_memory(path, lambda buffer: np.save(buffer, array, allow_pickle=False))


def write_arrays(path: Path, **arrays: Any) -> None:
    """Writes an .npz file."""
    _write_through_memory(path, lambda buffer: np.savez(buffer, **arrays))


def _write_through_memory(path: Path, save: Callable[[io.BytesIO], None]) -> None:
    """Writes what `save` makes.

    On a full disk, NumPy does not notice that the last part of a small array found no room, and NumPy 2.0 leaves
    an open archive that complains with a traceback.
    """
    buffer = io.BytesIO()
    save(buffer)
    with atomic(path) as file:
        file.write_bytes(buffer.getbuffer())


def read_array(path: Path) -> np.ndarray:
    """Returns the array in an .npy file; raises ValueError for a damaged one, and for objects, which can run code.

    The file is mapped before it is read: a header that promises more than is there takes no memory.
    """
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        if not isinstance(array, np.ndarray):
            raise ValueError("it is an archive")
        return np.array(array)
    except FileNotFoundError:
        raise
    except Exception as error:  # a damaged file can raise nearly anything
        raise ValueError(str(error)) from None


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON."""
    with atomic(path) as file:
        file.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: Path, kind: type = dict) -> Any:
    """Returns what a JSON file holds, a value of type `kind`.

    Raises UserError where the file is damaged or holds anything else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, kind):
            raise ValueError(f"it holds no {kind.__name__}")
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}): delete it and run its stage again") from None
    return value


def write_figure(path: Path, figure: "matplotlib.figure.Figure", dpi: int = 110) -> None:
    """Writes a figure in the format that the path's ending names."""
    with atomic(path) as file:
        figure.savefig(file, dpi=dpi)


def commit() -> str | None:
    """Returns the short hash of the checkout's commit, or None where this is no checkout."""
    # a repository around the folder is not the program's
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(ROOT.parent)}
    line = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    try:
        found = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None
