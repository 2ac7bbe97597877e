"""Resolves the input folder and the run directory from options, environment and existing files.

Only the standard library is used: `run_all.sh` runs this module before anything is installed.
"""

import argparse
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from digit_recognizer import COMPETITION
from digit_recognizer.files import ROOT, UserError

KAGGLE = Path(os.environ.get("DIGITS_KAGGLE_ROOT", "/kaggle"))  # of a session; a rehearsal has it elsewhere

FILES = ("train.csv", "test.csv", "sample_submission.csv")  # of the competition; the last alone is no data


def _idx(name: str) -> tuple[str, ...]:
    """Returns the names that an IDX file goes by: with a dot for a hyphen, and gzipped."""
    names = (name, name.replace("-idx", ".idx"))
    return (*names, *(f"{variant}.gz" for variant in names))


# The formats that data comes in: for each file its possible names. The first name that exists is read.
COMPETITION_CSVS, MNIST_CSVS = "the competition's CSVs", "MNIST's CSVs"
NPZ, IDX = "mnist.npz", "MNIST's IDX files"
FORMATS = {
    COMPETITION_CSVS: tuple((name,) for name in FILES),
    MNIST_CSVS: (("mnist_train.csv",), ("mnist_test.csv",)),
    NPZ: (("mnist.npz",),),
    IDX: (
        _idx("train-images-idx3-ubyte"),
        _idx("train-labels-idx1-ubyte"),
        _idx("t10k-images-idx3-ubyte"),
        _idx("t10k-labels-idx1-ubyte"),
    ),
}

SAMPLE_NOTICE = (
    "THIS IS THE BUILT-IN SAMPLE, not the competition: 1,797 small digits, fewer folds and epochs. "
    "Put the competition's CSVs into input/ for the real thing."
)
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
            print(SAMPLE_NOTICE, flush=True)


def resolve(input: Path | None, output: Path | None) -> Locations:
    """Returns where to read and write.

    Data is read from the input folder. The built-in sample is used if no input was given and nothing is there to
    get the CSVs with: no credentials, no archive. `input` and `output` are options, None if they were not given.

    Raises UserError if there is no data: the sample never takes the place of data that somebody meant.
    """
    folder = input_folder(input)
    if needs_download(input):
        option = "" if input is None else f" --input {input}"
        raise UserError(
            f"{folder} holds no data: run python scripts/download.py{option}, or {by_hand(COMPETITION, folder)}"
            + ("" if option else " (the sample runs only without Kaggle credentials)")
        )
    if input is None and not formats_in(folder):
        folder = None
    return Locations(folder, output_folder(output, "sample" if folder is None else "run"))


def needs_download(input: Path | None) -> bool:
    """Returns whether scripts/download.py has to run first if --input is `input`.

    That is so if there is no data, but either the competition's archive or Kaggle credentials and no --input.
    """
    folder = input_folder(input)
    if formats_in(folder) or _on_kaggle():
        return False
    return (folder / f"{COMPETITION}.zip").exists() or (input is None and credentials_place() is not None)


def input_folder(input: Path | None) -> Path:
    """Returns the folder of the data, existing or not, if --input is `input`."""
    return input or (_mounted_competition() if _on_kaggle() else Path(os.path.relpath(ROOT / "input")))


def output_folder(output: Path | None, name: str = "run") -> Path:
    """Returns the run directory if --output is `output`; `name` is its default in output/."""
    return output or (KAGGLE / "working" if _on_kaggle() else Path(os.path.relpath(ROOT / "output" / name)))


def by_hand(competition: str, folder: Path) -> str:
    """Returns how to get the data without the kaggle client."""
    return f"download https://www.kaggle.com/competitions/{competition}/data and unpack it into {folder}"


def in_notebook() -> bool:
    """Returns whether this runs in a notebook's cell, also by `!`, which gives the command a terminal of its own."""
    return "JPY_PARENT_PID" in os.environ  # set by Jupyter for its kernels


def on_terminal() -> bool:
    """Returns whether a bar on stderr moves; elsewhere each of its steps would be a line."""
    return sys.stderr.isatty() and not in_notebook()


def _on_kaggle() -> bool:
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def formats_in(folder: Path) -> list[str]:
    """Returns the keys of FORMATS of which `folder` holds a file; sample_submission.csv alone does not count."""
    return [
        format
        for format, files in FORMATS.items()
        if any((folder / name).exists() for names in files for name in names if name != FILES[-1])
    ]


def data_files(folder: Path) -> tuple[str, list[Path]]:
    """Returns the format of the data in `folder` and its files, in the order of FORMATS.

    Raises UserError if one of them is missing, or if there are files of two formats.
    """
    formats = formats_in(folder) or [COMPETITION_CSVS]
    if len(formats) > 1:
        raise UserError(
            f"{folder} holds {' and '.join(formats)}: move all but one of them away, or take another --input"
        )
    files = []
    for names in FORMATS[formats[0]]:
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            together = f"{formats[0]} are {', '.join(names[0] for names in FORMATS[formats[0]])} together"
            if formats[0] == COMPETITION_CSVS:
                page = f"https://www.kaggle.com/competitions/{COMPETITION}/data"
                together += f"; run python scripts/download.py, or get them from {page}"
            raise UserError(f"{folder / names[0]} is missing: {together}")
        files.append(path)
    return formats[0], files


def credentials_place() -> str | None:
    """Returns the variable or file whose credentials, valid or not, the kaggle client takes, or None."""
    environment, home = os.environ, Path.home() / ".kaggle"
    if environment.get("KAGGLE_API_TOKEN"):  # the token, or the path of a file with it
        return "KAGGLE_API_TOKEN"
    files = [home / "access_token", home / "access_token.txt"]
    if _on_kaggle() and environment.get("KAGGLE_API_V1_TOKEN"):
        files.insert(0, Path(environment["KAGGLE_API_V1_TOKEN"]))
    pair = environment.get("KAGGLE_USERNAME") and environment.get("KAGGLE_KEY")
    if not pair:
        # ~/.config where there is no ~/.kaggle; which of them is there may change
        config = Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"
        folders = [Path(environment.get("KAGGLE_CONFIG_DIR") or home), home, config]
        files += [folder / "kaggle.json" for folder in folders] + [home / "credentials.json"]
    file = next((str(path) for path in files if path.exists()), None)
    return file or ("KAGGLE_USERNAME and KAGGLE_KEY" if pair else None)


def _mounted_competition() -> Path:
    """Returns the competition's folder in a Kaggle session, else another with data, the competition's CSVs first.

    The usual folders are looked at first: attached data sets may hold hundreds of thousands of files.
    """
    mounted = KAGGLE / "input"
    for folder in (mounted / "digit-recognizer", mounted / "competitions/digit-recognizer"):
        if formats_in(folder):
            return folder
    names = {name for files in FORMATS.values() for names in files for name in names}
    found = {path.parent for path in mounted.glob("**/*") if path.name in names}
    found = sorted(found, key=lambda folder: (COMPETITION_CSVS not in formats_in(folder), folder))
    return next(filter(formats_in, found), mounted)


def check() -> None:
    """Checks what run_all.sh can before it installs anything, and prints the sample's notice.

    Raises UserError where there is neither data nor a way to get it, or one of the data's files is missing.
    """
    parser = argparse.ArgumentParser(prog="run_all.sh", usage=argparse.SUPPRESS, allow_abbrev=False)
    parser.add_argument("--input", type=Path)
    parser.add_argument("--output", type=Path)
    options = parser.parse_args()
    if needs_download(options.input):
        return
    locations = resolve(options.input, options.output)
    if not locations.is_sample:
        data_files(locations.input)
    locations.print_notice()


if __name__ == "__main__":
    try:
        check()
    except UserError as error:
        print(f"run_all.sh: error: {error}", file=sys.stderr)
        sys.exit(2)
