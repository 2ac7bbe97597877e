"""Resolves the input folder and the run directory from options, environment and existing files."""

# Only the standard library is used: `run_all.sh` runs this module before anything is installed.
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from digit_recognizer import COMPETITION
from digit_recognizer.data import input_files
from digit_recognizer.data.input_files import FORMATS, by_hand, data_folders, is_hidden
from digit_recognizer.files import ROOT, UserError

KAGGLE = Path(os.environ.get("DIGITS_KAGGLE_ROOT", "/kaggle"))  # of a session; a rehearsal has it elsewhere

FILES = tuple(FORMATS[0].files)  # of the competition
SAMPLE_NOTICE = "THIS IS THE BUILT-IN SAMPLE, not the competition: 1,797 small digits, fewer folds and epochs. "
SAMPLE_NOTICE += "Put the competition's CSVs into input/ for the real thing."
_TRAINED_ON_SAMPLE = "THIS RUN LEARNED FROM THE BUILT-IN SAMPLE, 1,797 small digits, not from the files in input/."
_KAGGLE_LEVELS = 6  # of folders in /kaggle/input that are searched
_SILENT = "DIGITS_NO_NOTICE"  # set by run_all.sh, which prints the notice itself


@dataclass(frozen=True)
class Locations:
    """The folder of the data, None for the built-in sample, and the run directory."""

    input: Path | None
    output: Path

    @property
    def is_sample(self) -> bool:
        """True if there is nothing but the built-in sample to work on."""
        return self.input is None

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Prints the notice of the sample before the block, and after it if the block succeeds."""
        self.print_notice()
        yield
        self.print_notice()

    def print_notice(self) -> None:
        """Prints that this is the sample, if it is, unless run_all.sh does so for all of its stages."""
        if self.is_sample and _SILENT not in os.environ:
            print(SAMPLE_NOTICE if _is_empty(input_folder(None)) else _TRAINED_ON_SAMPLE, flush=True)


def resolve(input: Path | None, output: Path | None) -> Locations:
    """Returns where to read and write; `input` and `output` are options, None if they were not given.

    The built-in sample is used only without --input, if the input folder is empty and there are no Kaggle
    credentials. Raises UserError if data has to be downloaded first, or if none is attached to a Kaggle session.
    """
    folder = input_folder(input)
    if needs_download(input):
        advice = f"run python scripts/download.py, or {by_hand(COMPETITION, folder)}"
        raise UserError(f"{folder} holds no data: {advice} (the sample runs only without Kaggle credentials)")
    is_sample = input is None and _is_empty(folder)
    return Locations(None if is_sample else folder, output_folder(output, "sample" if is_sample else "run"))


def needs_download(input: Path | None) -> bool:
    """Returns whether scripts/download.py has to run first: no data, no --input, but Kaggle credentials."""
    if input is not None or on_kaggle():
        return False
    return _is_empty(input_folder(None)) and credentials_place() is not None


def _is_empty(folder: Path) -> bool:
    """Returns whether the input folder does not exist, or holds nothing but hidden files."""
    try:
        return all(is_hidden(path) for path in folder.iterdir())
    except OSError:
        return not os.path.lexists(folder)


def input_folder(input: Path | None) -> Path:
    """Returns the folder or file of the data, existing or not, if --input is `input`."""
    return input or (_mounted_data() if on_kaggle() else Path(os.path.relpath(ROOT / "input")))


def output_folder(output: Path | None, name: str = "run") -> Path:
    """Returns the run directory if --output is `output`; `name` is its default in output/."""
    return output or (KAGGLE / "working" if on_kaggle() else Path(os.path.relpath(ROOT / "output" / name)))


def on_terminal() -> bool:
    """Returns whether a bar on stderr moves; elsewhere each of its steps would be a line."""
    # Jupyter sets the variable for its kernels; `!` in a notebook's cell gives a command a terminal of its own
    return sys.stderr.isatty() and "JPY_PARENT_PID" not in os.environ


def on_kaggle() -> bool:
    """Returns whether this is a Kaggle session, or a rehearsal of one."""
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def credentials_place() -> str | None:
    """Returns the variable or file whose credentials, valid or not, the kaggle client takes, or None."""
    environment, home = os.environ, Path.home() / ".kaggle"
    if environment.get("KAGGLE_API_TOKEN"):  # the token, or the path of a file with it
        return "KAGGLE_API_TOKEN"
    files = [home / "access_token", home / "access_token.txt"]
    if on_kaggle() and environment.get("KAGGLE_API_V1_TOKEN"):
        files.insert(0, Path(environment["KAGGLE_API_V1_TOKEN"]))
    has_pair = environment.get("KAGGLE_USERNAME") and environment.get("KAGGLE_KEY")
    if not has_pair:
        config = Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"
        folders = [Path(environment.get("KAGGLE_CONFIG_DIR") or home), home, config]
        files += [*(folder / "kaggle.json" for folder in folders), home / "credentials.json"]
    file = next((str(path) for path in files if path.exists()), None)
    return file or ("KAGGLE_USERNAME and KAGGLE_KEY" if has_pair else None)


def _mounted_data() -> Path:
    """Returns the folder of the competition in a Kaggle session, else another folder with data.

    The usual folders are looked at first: attached data sets may hold hundreds of thousands of files. Raises
    UserError if there is no data.
    """
    mounted = KAGGLE / "input"
    for folder in (mounted / COMPETITION, mounted / "competitions" / COMPETITION):
        if folder.is_dir() and data_folders(input_files.list_files(folder)):
            return folder
    folders = data_folders(input_files.list_files(mounted, levels=_KAGGLE_LEVELS))
    if not folders:
        advice = f"attach the competition {COMPETITION} to the notebook (Add Input), or give --input DIR"
        raise UserError(f"{mounted} holds no data: {advice}")
    return min(folders, key=lambda folder: (FORMATS[0] not in folders[folder], folder))


def check(input: Path | None, output: Path | None) -> None:
    """Checks that all data files are there, unless they are to be downloaded; prints the sample's notice."""
    if needs_download(input):
        return
    locations = resolve(input, output)
    if locations.input is not None:
        input_files.find_files(locations.input)
    locations.print_notice()
