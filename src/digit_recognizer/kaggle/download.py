"""Downloads the competition's files, or unpacks the archive that somebody has put there."""

import errno
import filecmp
import lzma
import os
import shutil
import struct
import zipfile
import zlib
from pathlib import Path

from digit_recognizer.data import paths
from digit_recognizer.data.paths import FILES
from digit_recognizer.files import UserError
from digit_recognizer.kaggle.client import connect, filtered_output, kaggle_errors, unwritable

_STAGING = ".download"  # in the input folder: what is not whole yet

# What zipfile and its decompressors raise; RuntimeError for a compression or a password that it does not know.
_DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error)
_DAMAGED += (EOFError, ValueError, OverflowError, RuntimeError)


class ArchiveError(UserError):
    """An archive that is not what it should be: another copy of it may be."""


class OtherContentsError(ArchiveError):
    """A whole archive that lacks a file: another copy of it lacks it too."""


def download(competition: str, folder: Path) -> None:
    """Puts the competition's files into `folder`, unless they are there, and prints which.

    An archive that somebody has put there, COMPETITION.zip, is taken instead of a download. A download
    that was cut goes on. Raises UserError where it fails, and leaves no file half written.
    """
    staging, given = folder / _STAGING, folder / f"{competition}.zip"
    try:
        move_unpacked(folder, staging)
        if all((folder / name).is_file() for name in FILES):
            shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed before it was done
            print(
                f"{', '.join(FILES)} are in {folder} already: nothing is downloaded (another competition takes "
                "another --input)"
            )
            return
        if given.exists():
            print(f"unpacking {given}", flush=True)
        archive = given if given.exists() else _fetch(competition, folder, staging)
        try:
            unpack(archive, folder, staging)
        except ArchiveError as error:
            if archive == given:
                raise UserError(f"{error}: remove it, then download it again") from None
            archive.unlink()
            what = "it is removed, and the same command downloads it again"
            if isinstance(error, OtherContentsError):
                what = f"{competition} is no competition of this shape"
            raise UserError(f"{error}: {what}") from None
        shutil.rmtree(staging)
    except OSError as error:
        raise UserError(f"{folder}: {unwritable(error)}") from None
    finally:
        if staging.is_dir() and not any(staging.iterdir()):
            staging.rmdir()
    print("\n".join(f"{folder / name}: {(folder / name).stat().st_size:,} bytes" for name in FILES))


def _fetch(competition: str, folder: Path, staging: Path) -> Path:
    """Downloads the archive into `staging`, or goes on with what is there, and returns its path."""
    alternative = f"; or {paths.by_hand(competition, folder)}"
    broken = "trying again did not help; what has arrived is kept, and the same command goes on with it"
    api = connect(alternative)
    staging.mkdir(parents=True, exist_ok=True)
    with kaggle_errors(competition, alternative, broken), filtered_output():
        api.competition_download_files(competition, path=str(staging), quiet=False)
    path = staging / f"{competition}.zip"
    if not path.exists():
        raise UserError(f"{competition} has no archive of CSVs: it is no competition of this shape")
    return path


def unpack(archive: Path, folder: Path, staging: Path) -> None:
    """Unpacks the competition's files, and nothing else, from `archive` into `folder`.

    A process that dies leaves `folder` as it was or, once all is unpacked, what `move_unpacked` needs.
    zipfile writes a member nowhere but below `staging`, never as a link, and checks its CRC.

    A file that is there already with the same bytes stays. `staging` is on the same disk.

    Raises ArchiveError where the archive is damaged, OtherContentsError where it lacks a file, and UserError for
    a full disk and for a file of that name with other contents; `folder` stays as it was.
    """
    unpacking = staging / "unpacking"
    staging.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(unpacking, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive) as file:
            names = file.namelist()
            missing = [name for name in FILES if name not in names]
            if missing:
                raise OtherContentsError(
                    f"{archive} holds no {missing[0]}, only {', '.join(names) or 'nothing'}"
                )
            _check_room(staging, sum(file.getinfo(name).file_size for name in FILES))
            for name in FILES:
                path = Path(file.extract(name, unpacking))
                with path.open("rb") as extracted:
                    os.fsync(extracted.fileno())
        unpacking.rename(staging / "unpacked")
    except _DAMAGED as error:
        raise ArchiveError(f"{archive} is no whole archive ({error or 'it ends early'})") from None
    except OSError as error:
        if error.errno not in (None, errno.EINVAL):  # a wrong offset, or bz2's
            raise
        raise ArchiveError(f"{archive} is no whole archive (a wrong offset or stream)") from None
    finally:
        shutil.rmtree(unpacking, ignore_errors=True)
    move_unpacked(folder, staging)


def _check_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < size:
        raise UserError(
            f"the disk of {folder.parent} is full: {size / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB free; "
            "make room, then the same command goes on"
        )


def move_unpacked(folder: Path, staging: Path) -> None:
    """Moves what `unpack` has unpacked whole into `folder`; nothing where there is nothing to move.

    Raises UserError, before any is moved, for a file of that name with other contents.
    """
    unpacked = [path for path in ((staging / "unpacked" / name) for name in FILES) if path.is_file()]
    for path in unpacked:
        target = folder / path.name
        if target.exists() and not (target.is_file() and filecmp.cmp(path, target, shallow=False)):
            raise UserError(
                f"{target} has other contents than the competition's: move it away, or take another --input"
            )
    for path in unpacked:
        path.replace(folder / path.name)
    shutil.rmtree(staging / "unpacked", ignore_errors=True)
