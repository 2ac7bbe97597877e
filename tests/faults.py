"""Failures at a chosen write below a folder: a full disk, a permission taken away, a process killed.

Python tells an audit hook of every file it opens, makes, moves or removes. What C libraries open is not told; a limit
on the size of files reaches them too.

As a program, it kills itself at the write with that number: python faults.py NUMBER FOLDER SCRIPT [ARGUMENT ...]
"""

import os
import resource
import runpy
import signal
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

_CHANGES = ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate")


class Writes:
    """Counts the writes below `folder`, and calls `fail` with the kind and path of each from `number` on."""

    current: "Writes | None" = None

    def __init__(self, folder: Path, number: int | None = None, fail: Callable[[str, str], None] | None = None):
        self.folder, self.number, self.fail = os.path.realpath(folder), number, fail
        self.count, self.failed = 0, False

    def see(self, event: str, path: str) -> None:
        if not os.path.realpath(Path(path).parent).startswith(self.folder):
            return
        if event in ("os.remove", "os.rmdir") and (path.endswith(".lock") or not os.path.lexists(path)):
            return  # a lock that stays holds nothing; or nothing is removed
        self.count += 1
        if self.number is not None and self.count >= self.number:
            self.fail(event, path)

    @contextmanager
    def watched(self):
        """Watches during a block."""
        Writes.current = self
        try:
            yield self
        finally:
            Writes.current = None


def _hook(event: str, args: tuple) -> None:
    if Writes.current is None or (event != "open" and event not in _CHANGES):
        return
    if event == "open":
        path, mode, flags = args[0], args[1], args[2] or 0
        writes = any(each in mode for each in "wax+") if mode else flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not writes or not isinstance(path, str | bytes | os.PathLike):
            return
    Writes.current.see(event, os.fsdecode(args[0]))


def install() -> None:
    """Begins to listen; a process can't stop that."""
    if not getattr(sys, "_writes_are_watched", False):
        sys._writes_are_watched = True
        sys.addaudithook(_hook)


@contextmanager
def full_disk(folder: Path, number: int | None, error: int, everything: bool = False, once: bool = False):
    """Lets the write of that number below `folder`, and all later ones unless `once`, fail with `error`.

    A full disk still lets files be moved and removed; a folder that is read-only does not: `everything`.
    """

    def fail(event, path):
        if (everything or event in ("open", "os.mkdir", "fsync")) and not (once and writes.failed):
            writes.failed = True
            raise OSError(error, os.strerror(error), path)

    install()
    fsync, writes = os.fsync, Writes(folder, number, fail)

    def counted(handle):
        writes.see("fsync", str(Path(f"/proc/self/fd/{handle}").readlink()))
        fsync(handle)

    os.fsync = counted
    try:
        with writes.watched():
            yield writes
    finally:
        os.fsync = fsync


@contextmanager
def file_size_limit(size: int):
    """Lets every write beyond that many bytes of a file fail, as a full disk does, in C libraries too."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def main() -> None:
    number, folder, script, *arguments = sys.argv[1:]

    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    install()
    sys.argv = [script, *arguments]
    sys.path[0] = str(Path(script).parent)
    with Writes(Path(folder), int(number), die).watched():
        runpy.run_path(script, run_name="__main__")


if __name__ == "__main__":
    main()
