"""A competition's archive: checked, and unpacked whole or not at all."""

import errno
import lzma
import os
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from digit_recognizer.errors import UserError

_BLOCK = 1 << 20  # bytes

# What zipfile and its decompressors raise; RuntimeError for a compression or a password it does not know.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error)
_DAMAGED += (EOFError, ValueError, OverflowError, RuntimeError)


class ArchiveError(UserError):
    """An archive that is not what it should be: another copy of it may be."""


def members(path: Path, needed: tuple[str, ...]) -> list[zipfile.ZipInfo]:
    """The files in the archive `path`, of which `needed` must be some.

    Raises ArchiveError where it is no whole archive, for a member that is anything but a file inside the
    folder, for two of one name, and for a needed one that is not there.
    """
    with reading(path), zipfile.ZipFile(path) as file:
        found = [each for each in file.infolist() if not each.is_dir()]
    names = [each.filename for each in found]
    for each in found:
        wrong = _wrong(each) or ("is there twice" if names.count(each.filename) > 1 else "")
        if wrong:
            raise ArchiveError(f"{path} is not unpacked: its member {each.filename!r} {wrong}")
    for name in needed:
        if name not in names:
            raise ArchiveError(f"{path} holds no {name}, only {', '.join(names) or 'nothing'}")
    return found


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what zipfile raises for an archive that is not what it should be into ArchiveError."""
    try:
        yield
    except _DAMAGED as error:
        raise ArchiveError(f"{path} is no whole archive ({error or 'it ends early'})") from None
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # those of a wrong offset, or of bz2
            raise
        raise ArchiveError(f"{path} is no whole archive (a wrong offset or stream)") from None


def _wrong(member: zipfile.ZipInfo) -> str:
    """What keeps a member from being a file inside the folder, or nothing."""
    name = PurePosixPath(member.filename)
    # a backslash or a drive's colon make a path elsewhere on some systems
    if name.is_absolute() or ".." in name.parts or any(sign in member.filename for sign in "\\:"):
        return "leaves the folder"
    return "is a link" if stat.S_ISLNK(member.external_attr >> 16) else ""


def unpack(path: Path, folder: Path, staging: Path, needed: tuple[str, ...]) -> list[Path]:
    """Unpacks the archive `path` into `folder` by way of `staging`, a folder on the same disk.

    A file that is there already with the same bytes stays. A process that dies leaves `folder` as it was
    or, once all is unpacked, what `finish` needs. Returns the files. Raises ArchiveError as
    `members` does and for damaged contents, UserError for a full disk and for a file of that name with
    other contents, and leaves `folder` as it was.
    """
    found = members(path, needed)
    staging.mkdir(parents=True, exist_ok=True)
    _check_room(staging, sum(each.file_size for each in found))
    for each in found:
        if (folder / each.filename).exists() and not _same(folder / each.filename, each):
            raise UserError(
                f"{folder / each.filename} is another than that in {path.name}: move it away, or take another --input"
            )
    unpacking = staging / "unpacking"
    shutil.rmtree(unpacking, ignore_errors=True)
    try:
        with reading(path), zipfile.ZipFile(path) as file:
            for each in found:
                _write(file, each, unpacking / each.filename)
    except BaseException:
        shutil.rmtree(unpacking, ignore_errors=True)
        raise
    unpacking.rename(staging / "unpacked")
    finish(folder, staging)
    return [folder / each.filename for each in found]


def finish(folder: Path, staging: Path) -> None:
    """Moves what `unpack` has unpacked whole into `folder`; nothing where there is nothing to move."""
    unpacked = staging / "unpacked"
    for path in sorted(unpacked.rglob("*")):
        if path.is_file():
            target = folder / path.relative_to(unpacked)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    shutil.rmtree(unpacked, ignore_errors=True)


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(
            f"the disk of {folder.parent} is full: {size / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB free; "
            "make room, then the same command goes on"
        )


def _same(path: Path, member: zipfile.ZipInfo) -> bool:
    """True if the file has the member's size and checksum."""
    if not path.is_file() or path.stat().st_size != member.file_size:
        return False
    checksum = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
    return checksum == member.CRC


def _write(file: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with file.open(member) as packed, path.open("wb") as unpacked:
        shutil.copyfileobj(packed, unpacked, _BLOCK)
        unpacked.flush()
        os.fsync(unpacked.fileno())
