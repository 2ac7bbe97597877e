"""Pictures in folders, one folder for each digit, as keras.utils.image_dataset_from_directory takes them.

Rows are sorted by file name, then by folder, so that pictures numbered across the folders keep their order.
"""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from digit_recognizer import SIDE
from digit_recognizer.data import paths
from digit_recognizer.data.input_files import CLASS_FOLDER, is_hidden
from digit_recognizer.files import UserError, reading

_MAX_NAMES = 8  # in a message


@dataclass(frozen=True)
class PictureFile:
    """A file that has to show one digit."""

    path: Path
    name: str  # its path in the folder of all pictures of its kind
    label: int | None  # the digit that its folder names


@dataclass(frozen=True, eq=False)  # arrays do not compare
class LabelledPictures:
    """Digits from picture files, labelled by their folders."""

    folder: Path
    images: np.ndarray  # uint8 (n, 28, 28)
    labels: np.ndarray  # uint8 (n,)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of pictures and labels."""
        return hashlib.sha256(self.images.tobytes() + self.labels.tobytes()).hexdigest()


def list_classes(folder: Path) -> list[PictureFile]:
    """Returns the files in the folders 0 to 9 of a folder; raises UserError for anything else in it."""
    files = []
    for path in _visible(folder):
        if not path.is_dir() or not CLASS_FOLDER.fullmatch(path.name):
            raise UserError(f"{path} is no folder 0 to 9, and {folder} may hold nothing else: move it away")
        inside = _visible(path)
        if not inside:
            raise UserError(f"{path} holds no picture: put some into it, or remove it")
        files += [PictureFile(file, _text(file.relative_to(folder)), int(path.name)) for file in inside]
    return sorted(files, key=lambda file: (file.path.name, file.name))


def list_test_pictures(folder: Path) -> list[PictureFile]:
    """Returns the files in a folder, labelled if they are in folders 0 to 9; none if there is no such folder."""
    inside = _visible(folder) if folder.is_dir() else []
    if any(path.is_dir() and CLASS_FOLDER.fullmatch(path.name) for path in inside):
        return list_classes(folder)
    return [PictureFile(path, _text(path.relative_to(folder)), None) for path in inside]


def _visible(folder: Path) -> list[Path]:
    with reading(folder, "copy it again"):
        return sorted(path for path in folder.iterdir() if not is_hidden(path))


def _text(path: Path) -> str:
    """Returns a path as text that UTF-8 can hold: a name may be any bytes."""
    return path.as_posix().encode(errors="backslashreplace").decode()


def read_added(folder: Path) -> LabelledPictures:
    """Returns the digits in the folders 0 to 9 of `folder`, or of train in it; raises UserError as `list_classes`."""
    if not folder.is_dir():
        raise UserError(f"--add {folder} is no folder: name one that holds pictures in folders 0 to 9")
    files = list_classes(folder / "train" if (folder / "train").is_dir() else folder)
    if not files:
        raise UserError(f"--add {folder} is empty: put pictures into folders 0 to 9 in it")
    return LabelledPictures(folder, read_digits(folder, files), labels_of(files))


def labels_of(files: Sequence[PictureFile]) -> np.ndarray:
    """Returns the labels of the files that have one, uint8 (n,)."""
    return np.array([file.label for file in files if file.label is not None], np.uint8)


def read_digits(folder: Path, files: Sequence[PictureFile]) -> np.ndarray:
    """Returns the digit in each file, uint8 (n, 28, 28); a picture in MNIST's form is taken as it is.

    Raises one UserError for all files that cannot be read or do not show one digit; it says that they are in `folder`.
    """
    # scikit-image takes a second to import, and other data does not need it
    from digit_recognizer.pictures.load import picture_warnings

    with picture_warnings(), ThreadPoolExecutor(os.cpu_count()) as threads:
        in_order = threads.map(_read_digit, [file.path for file in files])
        bar = tqdm(in_order, "pictures", len(files), leave=False, delay=1, disable=not paths.on_terminal())
        results = list(bar)
    pairs = zip(files, results, strict=True)
    refused = [f"{_text(file.path.relative_to(folder))} {reason}" for file, reason in pairs if isinstance(reason, str)]
    if refused:
        reasons = "; ".join(refused[:_MAX_NAMES])
        reasons += f"; and {len(refused) - _MAX_NAMES} others" * (len(refused) > _MAX_NAMES)
        count = f"{len(refused)} of {len(files)} pictures do not show one digit"
        raise UserError(f"{folder}: {count}: {reasons}: replace or remove them")
    return np.array(results, np.uint8).reshape(-1, SIDE, SIDE)


def _read_digit(path: Path) -> np.ndarray | str:
    """Returns the one digit in a picture, uint8 (28, 28), or why there is none."""
    from digit_recognizer.pictures.find import find_digits
    from digit_recognizer.pictures.load import read_picture

    try:
        digits, notes = find_digits(read_picture(path)[0])
    except UserError as error:
        return str(error).removeprefix(f"{path} ")
    if not digits:
        return f"shows {notes[0]}"
    return digits[0].image if len(digits) == 1 else f"shows {len(digits)} digits"
