"""Downloads the competition's files, or unpacks the archive that somebody has put there."""

import shutil
from pathlib import Path

from digit_recognizer.data import archive, places
from digit_recognizer.data.places import FILES
from digit_recognizer.errors import UserError
from digit_recognizer.kaggle.client import connect, speaking, telling, unwritable

_STAGING = ".download"  # in the input folder: what is not whole yet


def download(competition: str, folder: Path) -> None:
    """Puts the competition's files into `folder`, unless they are there, and tells which.

    An archive that somebody has put there, COMPETITION.zip, is taken instead of a download. A download
    that was cut goes on. Raises UserError where it fails, and leaves no file half written.
    """
    staging, given = folder / _STAGING, folder / f"{competition}.zip"
    try:
        archive.finish(folder, staging)
        if all((folder / name).is_file() for name in FILES):
            print(
                f"{', '.join(FILES)} are in {folder} already: nothing is downloaded (another competition takes "
                "another --input)"
            )
            return
        if given.exists():
            files = _unpack_given(given, folder, staging)
        else:
            files = _unpack_fetched(_fetch(competition, folder, staging), folder, staging)
        shutil.rmtree(staging)
    except OSError as error:
        raise UserError(f"{folder}: {unwritable(error)}") from None
    finally:
        if staging.is_dir() and not any(staging.iterdir()):
            staging.rmdir()
    print("\n".join(f"{path}: {path.stat().st_size:,} bytes" for path in files))


def _fetch(competition: str, folder: Path, staging: Path) -> Path:
    """Downloads the archive into `staging`, or goes on with what is there, and returns its path."""
    instead = f"; or {places.by_hand(competition, folder)}"
    cut = "trying again did not help; what has arrived is kept, and the same command goes on with it"
    api = connect(instead)
    staging.mkdir(parents=True, exist_ok=True)
    with telling(competition, instead, cut), speaking():
        api.competition_download_files(competition, path=str(staging), quiet=False)
    path = staging / f"{competition}.zip"
    if not path.exists():
        raise UserError(f"{competition} has no archive of CSVs: it is no competition of this shape")
    return path


def _unpack_fetched(path: Path, folder: Path, staging: Path) -> list[Path]:
    try:
        return archive.unpack(path, folder, staging, FILES)
    except archive.ArchiveError as error:
        path.unlink()
        raise UserError(f"{error}: it is removed, and the same command downloads it again") from None


def _unpack_given(path: Path, folder: Path, staging: Path) -> list[Path]:
    print(f"unpacking {path}", flush=True)
    try:
        return archive.unpack(path, folder, staging, FILES)
    except archive.ArchiveError as error:
        raise UserError(f"{error}: remove it, then download it again") from None
