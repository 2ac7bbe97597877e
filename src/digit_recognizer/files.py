"""Files that are written whole or not at all, one reader for the program's own files, and UserError."""

# Only the standard library is imported at the top: `run_all.sh` runs this module before anything is installed.
import fcntl
import io
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

_CHECKOUT = Path(__file__).resolve().parents[2]
ROOT = _CHECKOUT if (_CHECKOUT / "scripts").is_dir() else Path.cwd()  # of the checkout; else the package is installed

_LONGEST_MESSAGE, _MESSAGE_END = 1000, 300  # characters; the end of a message says what to do


class UserError(Exception):
    """Wrong use or wrong input.

    The message is one line that names the file, row, column or option and says what to do. A script prints it
    without a traceback and exits with code 2.
    """

    def __init__(self, message: str):
        """Takes the message; characters that cannot be printed, as in a damaged file, become spaces."""
        message = "".join(character if character.isprintable() else " " for character in message)
        if len(message) > _LONGEST_MESSAGE:
            message = f"{message[: _LONGEST_MESSAGE - _MESSAGE_END]} ... {message[-_MESSAGE_END:]}"
        super().__init__(message)


@contextmanager
def file_lock(path: Path, wait: bool = False) -> Iterator[None]:
    """Creates the file `path` and locks it until the block ends or this process dies; then the file is removed.

    Raises BlockingIOError if another process holds the lock, unless it should `wait` for it.
    """
    while True:
        # open for writing, because NFS grants an exclusive lock to a writable descriptor only
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # whoever held the lock before may have removed the file after this process opened it
            if path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                break
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def atomic(path: Path, several_writers: bool = False) -> Iterator[Path]:
    """Yields a temporary path beside `path`; if the block succeeds, the file is moved to `path` in one step.

    If the block fails or the process dies, `path` keeps its old contents. After the block the file and its name
    are on the disk and survive a loss of power. If there are `several_writers`, processes wait for each other.
    """
    temporary = path.with_name(f".{path.name}")  # the ending stays: Keras and NumPy look at it
    try:
        with file_lock(path.with_name(f".{path.name}.lock"), wait=True) if several_writers else nullcontext():
            try:
                yield temporary
                _sync(temporary)
                temporary.replace(path)
                _sync(path.parent)
            finally:
                temporary.unlink(missing_ok=True)
    except OSError as error:  # a full disk does not say which file it was
        error.filename = error.filename or str(path)
        raise


def check_target(option: str, path: Path, is_given: bool = True) -> None:
    """Raises UserError if the file of an option, or its default in a folder that is made later, cannot be written."""
    if path.is_dir():
        raise UserError(f"{option} {path}: that is a folder: name a file in it")
    if is_given and not path.parent.is_dir():
        raise UserError(f"{option} {path}: there is no folder {path.parent}: make it first")
    folder = next(folder for folder in path.absolute().parents if folder.is_dir())
    try:
        tempfile.TemporaryFile(dir=folder).close()  # only trying finds a read-only file system
    except OSError as error:
        raise UserError(
            f"{path} cannot be written ({error.strerror}): name a file in another folder ({option})"
        ) from None


def _sync(path: Path) -> None:
    """Waits until a file's contents, or a folder's entries, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_array(path: Path, array: Any = None, **arrays: Any) -> None:
    """Writes `array` as an .npy file, or else named `arrays` as an .npz file."""
    import numpy as np

    # through memory: on a full disk NumPy does not notice that the last part of a small array was not written, and
    # NumPy 2.0 leaves an open archive that prints a traceback
    buffer = io.BytesIO()
    np.savez(buffer, **arrays) if array is None else np.save(buffer, array, allow_pickle=False)
    with atomic(path) as file:
        file.write_bytes(buffer.getbuffer())


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON."""
    with atomic(path) as file:
        file.write_text(json.dumps(value, indent=2) + "\n")


def write_figure(path: Path, figure: Any, dpi: int = 110) -> None:
    """Writes a figure in the format that the path's ending names."""
    with atomic(path) as file:
        figure.savefig(file, dpi=dpi)


@contextmanager
def reading(path: Path, advice: str) -> Iterator[None]:
    """Turns errors of a block that reads and checks `path` into UserErrors with `advice`; a UserError passes unchanged.

    The program writes its own files whole, so an error means that somebody changed or removed the file. A damaged
    file can raise nearly any exception.
    """
    try:
        yield
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path} is missing: {advice}") from None
    except PermissionError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): change its permissions") from None
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path} is damaged ({reason}): {advice}") from None


def read_json(path: Path, advice: str = "delete it and run its stage again", kind: type = dict) -> Any:
    """Returns the contents of a JSON file, a value of type `kind`; raises UserError as `reading` does."""
    with reading(path, advice):
        value = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(value, kind):
            raise ValueError(f"expected a {kind.__name__}, found a {type(value).__name__}")
    return value


def commit() -> str | None:
    """Returns the short hash of the checkout's commit, or None if this is not a checkout."""
    # a repository around the folder is not the program's
    environment = os.environ | {"GIT_CEILING_DIRECTORIES": str(ROOT.parent)}
    line = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    try:
        result = subprocess.run(line, capture_output=True, text=True, env=environment, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return result.stdout.strip() if result.returncode == 0 else None
