"""The formats of the data, and their files in a folder: plain or zipped, in folders below, under any usual name."""

# Only the standard library is used: `run_all.sh` runs this module before anything is installed.
import gzip
import io
import re
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from digit_recognizer import COMPETITION
from digit_recognizer.files import UserError, reading

SAMPLE_SUBMISSION = "sample_submission.csv"  # without another file it is no data
CLASS_FOLDER = re.compile("[0-9]")  # the name of a folder with pictures of that digit

_LEVELS = 2  # of folders below the input folder, as in MNIST/raw
_MAX_BYTES = 10**9  # of a file's contents; train.csv has 77 MB
_MAX_NAMES = 8  # in a message
_GZIP = b"\x1f\x8b"  # how gzip archives begin
_PICTURE = re.compile(r".*\.(png|jpe?g|tiff?|webp|gif|bmp|heic)", re.IGNORECASE)
_SYSTEM_FILES = ("desktop.ini", "thumbs.db", "__macosx")

_COPY_MARK = re.compile(r"( ?\(\d+\)|( -)? copy( \d+)?|[ -]\d+)(?=\.|$)")  # such as " (1)", " - Copy" and "-1"
_EXTRA_ENDING = re.compile(r"\.(gz|zip)$|(?<=\.csv)\.(csv|txt)$")

_OTHER_CONTENTS = {  # that belong to no data file, by their first bytes
    b"PK\x03\x04": "a zip archive or an Excel workbook: unpack it, or save it as CSV",
    _GZIP: "a gzip archive inside a gzip archive: unpack it",
    b"version https://git-lfs": "the pointer of Git LFS to a file that is not here: run git lfs pull",
    b"<": "a web page: download the file again",
}


@dataclass(frozen=True, eq=False)
class Format:
    """A form in which data comes."""

    name: str
    reader: str  # a function in digits.py; by its name, because this module must not import NumPy
    files: dict[str, str]  # the usual name of each file -> regular expression of its names in lower case


# To add a format, add an entry here and its reader, which takes the files in this order, to digits.py.
FORMATS = (
    Format(
        "the competition's CSVs",
        "read_competition",
        {"train.csv": r"train\.csv", "test.csv": r"test\.csv", SAMPLE_SUBMISSION: r"sample[_ -]?submission\.csv"},
    ),
    Format("pictures in folders", "read_folders", {"unpacked folders train/0 to train/9 with pictures": "train/"}),
    Format(
        "MNIST's CSVs",
        "read_mnist",
        {"mnist_train.csv": r".*mnist.*train.*\.csv", "mnist_test.csv": r".*mnist.*test.*\.csv"},
    ),
    Format("mnist.npz", "read_mnist", {"mnist.npz": r".*mnist.*\.npz"}),
    Format(
        "MNIST's IDX files",
        "read_mnist",
        {
            "train-images-idx3-ubyte": r".*train-images.idx3-ubyte",
            "train-labels-idx1-ubyte": r".*train-labels.idx1-ubyte",
            "t10k-images-idx3-ubyte": r".*(t10k|test)-images.idx3-ubyte",
            "t10k-labels-idx1-ubyte": r".*(t10k|test)-labels.idx1-ubyte",
        },
    ),
)


def _role_of(name: str, ending: str = "") -> tuple[Format, str] | None:
    """Returns the format that has a file of this name, with `ending` appended, and its usual name; None if none has.

    Case, and the marks of a copy and of compression, are ignored.
    """
    name = _COPY_MARK.sub("", name.lower())
    name = _EXTRA_ENDING.sub("", _EXTRA_ENDING.sub("", name)) + ending
    roles = ((format, usual_name, pattern) for format in FORMATS for usual_name, pattern in format.files.items())
    return next(((format, usual) for format, usual, pattern in roles if re.fullmatch(pattern, name)), None)


@dataclass(frozen=True)
class DataFile:
    """A file that may hold data: a file on the disk, or a member of a zip archive; or a folder of pictures."""

    path: Path
    folder: Path  # of the data set that it belongs to
    member: str = ""  # its name in the zip archive `path`
    problem: str = ""  # why it cannot be read
    is_folder: bool = False  # with folders of pictures in it

    def __str__(self) -> str:
        """The path; the path of a member goes on in its archive."""
        return f"{self.path}/{self.member}" if self.member else str(self.path)

    @property
    def original_name(self) -> str:
        """The name without folders."""
        return PurePosixPath(self.member.replace("\\", "/")).name or self.path.name

    @cached_property
    def role(self) -> tuple[Format, str] | None:
        """The format that has such a file, and its usual name there; None if no format has."""
        return _role_of(self.original_name, "/" * self.is_folder)

    def read(self) -> bytes:
        """Returns the contents, without gzip; raises UserError if they are damaged or no data."""
        with reading(Path(str(self)), "get the file again"):
            if self.member:
                with zipfile.ZipFile(self.path) as archive:
                    try:
                        data = archive.open(self.member).read(_MAX_BYTES + 1)
                    except RuntimeError as error:  # a password, or a compression that Python does not know
                        raise UserError(f"{self}: {error}: unpack it by hand") from None
            else:
                with self.path.open("rb") as file:
                    data = file.read(_MAX_BYTES + 1)
            if data[:2] == _GZIP:
                data = gzip.GzipFile(fileobj=io.BytesIO(data)).read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise UserError(f"{self} holds more than {_MAX_BYTES / 1e9:g} GB: it is not a file of digits")
        if not data or data.isspace():
            raise UserError(f"{self} is empty: get the file again")
        for start, what in _OTHER_CONTENTS.items():
            if data[:100].lstrip().startswith(start) and not self.original_name.lower().endswith(".npz"):
                raise UserError(f"{self} is {what}")
        return data


def is_hidden(path: Path) -> bool:
    """Returns whether a file or folder is hidden, or one that an operating system makes unasked."""
    return path.name.startswith(".") or path.name.lower() in _SYSTEM_FILES


def list_files(folder: Path, levels: int = _LEVELS, is_top: bool = True) -> Iterator[DataFile]:
    """Yields the files of a folder and of `levels` levels of folders in it, and the members of zip archives."""
    try:
        paths = sorted(path for path in folder.iterdir() if not is_hidden(path))
    except OSError as error:
        yield DataFile(folder, folder, problem=f"cannot be read ({error.strerror}): change its permissions")
        return
    for path in paths:
        if path.is_dir() and _holds_classes(path):
            yield DataFile(path, folder, is_folder=True)
        elif path.is_dir() and levels:
            yield from list_files(path, levels - 1, is_top=False)
        elif path.is_file() or not path.exists():  # a broken link
            # of test/test.csv and test.csv/test.csv, the folder belongs to the file
            roles = _role_of(folder.name), _role_of(folder.name, ".csv")
            is_wrapped = not is_top and len(paths) == 1 and _role_of(path.name) and _role_of(path.name) in roles
            yield from _expand(path, folder.parent if is_wrapped else folder)


def _holds_classes(folder: Path) -> bool:
    """Returns whether this is a folder such as train with a folder for at least one digit."""
    try:
        classes = (path for path in folder.iterdir() if CLASS_FOLDER.fullmatch(path.name) and path.is_dir())
        return bool(_role_of(folder.name, "/")) and any(classes)
    except OSError:  # `list_files` says why
        return False


def _expand(path: Path, folder: Path) -> Iterator[DataFile]:
    """Yields a file, or the members of a zip archive."""
    if not path.exists():
        yield DataFile(path, folder, problem=f"is a link to {path.readlink()}, which does not exist")
    elif path.suffix.lower() != ".zip":
        yield DataFile(path, folder)
    else:
        try:
            with zipfile.ZipFile(path) as archive:
                members = [member for member in archive.namelist() if not member.endswith("/")]
        except Exception as error:  # a damaged archive can raise nearly any exception
            yield DataFile(path, folder, problem=f"is not a complete zip archive ({error}): get it again")
            return
        yield from (DataFile(path, folder, member) for member in members if not is_hidden(Path(member)))


def data_folders(files: Iterable[DataFile]) -> dict[Path, set[Format]]:
    """Returns the folders that hold data, each with its formats."""
    folders: dict[Path, set[Format]] = {}
    for file in files:
        if file.role and file.role[1] != SAMPLE_SUBMISSION and not file.problem:
            folders.setdefault(file.folder, set()).add(file.role[0])
    return folders


def _nearest(files: Iterable[DataFile]) -> list[tuple[Path, Format]]:
    """Returns the data sets in the uppermost folder that holds any, each with its folder and format."""
    folders = data_folders(files)
    depth = min((len(folder.parts) for folder in folders), default=0)
    return [(folder, f) for folder in folders if len(folder.parts) == depth for f in folders[folder]]


def find_files(input: Path) -> tuple[Format, list[DataFile]]:
    """Returns the format of the data in a folder, and its files in the order of `Format.files`.

    If `input` is a data file or a zip archive, it is completed with the other files of its folder. Raises UserError
    if there is no data, if a file is missing, or if there are several data sets.
    """
    if not input.exists():
        link = f" is a link to {input.readlink()}, which" if input.is_symlink() else ""
        raise UserError(f"{input}{link} does not exist: {_how_to_get(input)}")
    given = [] if input.is_dir() else list(_expand(input, input.parent))
    files = given or list(list_files(input))
    # unpacked files go before archives, unless an archive of another format is further up
    sets = _nearest(file for file in files if not file.member)
    zipped = _nearest(file for file in files if file.member)
    sets += [(top, form) for top, form in zipped if all(top in at.parents and form != other for at, other in sets)]
    if not sets:
        raise _missing(f"{input} holds no data", FORMATS, files, input if not given else input.parent)
    if len(sets) > 1:
        names = " and ".join(sorted(f"{format.name} in {folder}" for folder, format in sets))
        raise UserError(f"{input} holds {names}: move all but one away, or give one as --input")
    folder, format = sets[0]
    files = given + list(list_files(folder, levels=1)) if given else files
    files = [file for file in files if file.folder == folder]
    return format, [_choose(format, usual_name, files, given) for usual_name in format.files]


def _choose(format: Format, usual_name: str, files: list[DataFile], given: list[DataFile]) -> DataFile:
    """Returns the file with this role: one that was given, else an unpacked one, else one with the usual name."""
    candidates = {file for file in files if file.role == (format, usual_name) and not file.problem}
    if not candidates:
        raise _missing(f"{files[0].folder / usual_name} is missing", (format,), files, files[0].folder)
    ranks = {
        file: (file not in given, len(Path(file.member).parts), file.original_name != usual_name) for file in candidates
    }
    best, *others = sorted((file for file in ranks if ranks[file] == min(ranks.values())), key=str)
    if others:
        raise UserError(f"{best} and {others[0]} could both be {usual_name}: move one of them away")
    return best


def _missing(what: str, formats: Iterable[Format], files: list[DataFile], folder: Path) -> UserError:
    """Returns the error for missing data: a file that cannot be read, else the files that are there."""
    if problems := [file for file in files if file.problem]:
        return UserError(f"{problems[0]} {problems[0].problem}")
    if files and all(_PICTURE.fullmatch(file.original_name) for file in files):
        formats = [format for format in formats if format.reader == "read_folders"] or formats
    wanted = "; or ".join(", ".join(format.files) for format in formats)
    names = [str(file).removeprefix(f"{folder}/") for file in files]
    if not names:  # empty folders, or folders too deep
        names = [path.name for path in folder.iterdir() if not is_hidden(path)]
    holds = ", ".join(names[:_MAX_NAMES]) + f" and {len(names) - _MAX_NAMES} more" * (len(names) > _MAX_NAMES)
    advice = f"; {_how_to_get(folder)}" if FORMATS[0] in formats else ""
    return UserError(f"{what}: looked for {wanted}, found {holds or 'no file'}{advice}")


def _how_to_get(folder: Path) -> str:
    return f"run python scripts/download.py --input {folder}, or {by_hand(COMPETITION, folder)}"


def by_hand(competition: str, folder: Path) -> str:
    """Returns how to get the data without the kaggle client."""
    return f"download https://www.kaggle.com/competitions/{competition}/data and unpack it into {folder}"
