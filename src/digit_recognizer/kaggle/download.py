"""Downloads the competition's files, or unpacks an archive that somebody has put into the input folder."""

import shutil
import zipfile
from contextlib import suppress
from pathlib import Path

from digit_recognizer.data.input_files import by_hand
from digit_recognizer.data.paths import FILES
from digit_recognizer.files import UserError, atomic, reading
from digit_recognizer.kaggle.client import connect, kaggle_request

_STAGING = ".download"  # in the input folder: the archive, until its files are unpacked


def download(competition: str, folder: Path) -> None:
    """Puts the competition's files into `folder`, unless they are there, and prints their names and sizes.

    An archive COMPETITION.zip in `folder` is unpacked instead of a download. An interrupted download is continued.
    Raises UserError if this fails; no file is half written.
    """
    archive = folder / f"{competition}.zip"
    if all((folder / name).is_file() for name in FILES):
        print(f"{folder} has {', '.join(FILES)} already: nothing is downloaded")
    else:
        unpack(archive if archive.exists() else _fetch(competition, folder), folder)
    if (folder / _STAGING).exists():
        shutil.rmtree(folder / _STAGING)
    print("\n".join(f"{folder / name}: {(folder / name).stat().st_size:,} bytes" for name in FILES))


def _fetch(competition: str, folder: Path) -> Path:
    """Downloads the archive, or the rest of it, and returns its path."""
    archive = folder / _STAGING / f"{competition}.zip"
    try:
        api = connect()
        archive.parent.mkdir(parents=True, exist_ok=True)
        part = f" ({archive.stat().st_size:,} bytes have arrived before)" if archive.exists() else ""
        print(f"downloading {archive}{part}", flush=True)
        with kaggle_request(competition):
            api.competition_download_files(competition, path=str(archive.parent), quiet=True)
        if not archive.exists():
            raise UserError(f"no zip archive of {competition} has arrived: check --competition and the network")
    except UserError as error:
        with suppress(OSError):  # something has arrived
            archive.parent.rmdir()
        raise UserError(f"{error}; or {by_hand(competition, folder)}") from None
    return archive


def unpack(archive: Path, folder: Path) -> None:
    """Writes the competition's files, and nothing else, from `archive` into `folder`.

    Raises UserError, and writes nothing, if the archive is damaged or lacks a file, or if `folder` has a file of the
    same name with other contents.
    """
    print(f"unpacking {archive}", flush=True)
    with reading(archive, "remove it, and run the same command again"), zipfile.ZipFile(archive) as file:
        if missing := [name for name in FILES if name not in file.namelist()]:
            raise UserError(f"{archive} has no {missing[0]}: remove it, and take another --competition")
        contents = {folder / name: file.read(name) for name in FILES}
    for path, content in contents.items():
        if path.exists() and path.read_bytes() != content:
            raise UserError(f"{path} differs from that in {archive}: move it away, or take another --input")
    for path, content in contents.items():
        with atomic(path) as temporary:
            temporary.write_bytes(content)
