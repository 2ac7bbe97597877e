"""Where a command reads and writes, by the options and by what is there.

Only the standard library is used: `run_all.sh` asks this module before anything is installed.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from digit_recognizer.errors import UserError

ROOT = Path(__file__).resolve().parents[3]  # of the checkout

COMPETITION = "digit-recognizer"  # the last part of its address on Kaggle

FILES = ("train.csv", "test.csv", "sample_submission.csv")  # of the competition; the last alone is no data


def _idx(name: str) -> tuple[str, ...]:
    """The names that an IDX file goes by: with a dot for a hyphen, and gzipped."""
    names = (name, name.replace("-idx", ".idx"))
    return (*names, *(f"{each}.gz" for each in names))


# The forms that data comes in: for each file the names it may have, of which the first that is there is read.
COMPETITION_CSVS, MNIST_CSVS = "the competition's CSVs", "MNIST's CSVs"
NPZ, IDX = "mnist.npz", "MNIST's IDX files"
FORMS = {
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

_DOWNLOAD = 3  # the exit code that tells run_all.sh to run download.py

_KAGGLE = Path(os.environ.get("DIGITS_KAGGLE_ROOT", "/kaggle"))  # elsewhere in a rehearsal of a session
KAGGLE_INPUT = _KAGGLE / "input"
KAGGLE_OUTPUT = _KAGGLE / "working"

SAMPLE_NOTICE = (
    "THIS IS THE BUILT-IN SAMPLE, not the competition: 1,797 small digits, fewer folds and epochs. "
    "Put the competition's CSVs into input/ for the real thing."
)


@dataclass(frozen=True)
class Places:
    """The folder of the data, None for the built-in sample, and the run directory."""

    input: Path | None
    output: Path

    @property
    def is_sample(self) -> bool:
        """True where there is nothing but the built-in sample to work on."""
        return self.input is None

    @contextmanager
    def announced(self) -> Iterator[None]:
        """Prints, if so, that this is the sample: before the block, and after it where it ends well."""
        self.print_notice()
        yield
        self.print_notice()

    def print_notice(self) -> None:
        """Prints, if so, that this is the sample."""
        if self.is_sample:
            print(SAMPLE_NOTICE, flush=True)


def resolve(input: Path | None, output: Path | None) -> Places:
    """The source for --input and --output, None where they were not given.

    Data in the input folder, else the built-in sample if no input was given and there is nothing that
    scripts/download.py could get the CSVs with. Raises UserError otherwise: the sample never takes the
    place of data that somebody meant.
    """
    folder = input_folder(input)
    if needs_download(input):
        given = "" if input is None else f" --input {input}"
        raise UserError(
            f"{folder} holds no data: run python scripts/download.py{given}, or {by_hand(COMPETITION, folder)}"
            + ("" if given else " (the sample runs only without Kaggle credentials)")
        )
    if input is None and not forms(folder):
        folder = None
    return Places(folder, output_folder(output, "sample" if folder is None else "run"))


def needs_download(input: Path | None) -> bool:
    """True if scripts/download.py has to run first, where --input is `input`.

    There is no data, but the competition's archive, put there by hand, or Kaggle credentials and no
    --input: a folder that was given is one that somebody filled.
    """
    folder = input_folder(input)
    if forms(folder) or _on_kaggle():
        return False
    return (folder / f"{COMPETITION}.zip").exists() or (input is None and has_credentials())


def input_folder(input: Path | None) -> Path:
    """The folder of the data, wherever it is, where --input is `input`."""
    return input or (_mounted_competition() if _on_kaggle() else _in_checkout("input"))


def output_folder(output: Path | None, name: str = "run") -> Path:
    """The run directory where --output is `output`: without it, on this machine, the one of that name."""
    return output or (KAGGLE_OUTPUT if _on_kaggle() else _in_checkout("output") / name)


def by_hand(competition: str, folder: Path) -> str:
    """How to do without the kaggle client."""
    return f"download https://www.kaggle.com/competitions/{competition}/data and unpack it into {folder}"


def in_notebook() -> bool:
    """True in a notebook's cell, also for a command run with `!`, to which it looks like a terminal."""
    return "JPY_PARENT_PID" in os.environ  # set by Jupyter for its kernels


def on_terminal() -> bool:
    """True where a bar on stderr moves; elsewhere each of its steps would be a line."""
    return sys.stderr.isatty() and not in_notebook()


def _on_kaggle() -> bool:
    return "KAGGLE_KERNEL_RUN_TYPE" in os.environ


def _in_checkout(name: str) -> Path:
    """The path of a folder of the checkout, as one would type it from here."""
    return Path(os.path.relpath(ROOT / name))


def forms(folder: Path) -> list[str]:
    """The keys of FORMS of which `folder` holds a file; one without the others is an error, not the sample."""
    return [
        form
        for form, files in FORMS.items()
        if any((folder / name).exists() for names in files for name in names if name != FILES[-1])
    ]


def data_files(folder: Path) -> tuple[str, list[Path]]:
    """The form of the data in `folder` and its files, in the order of FORMS.

    Raises UserError where one of them is missing, and where there are files of two forms: nothing tells
    which of them is meant.
    """
    found = forms(folder) or [COMPETITION_CSVS]
    if len(found) > 1:
        raise UserError(
            f"{folder} holds {' and '.join(found)}: move all but one of them away, or take another --input"
        )
    paths = []
    for names in FORMS[found[0]]:
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        if path is None:
            raise UserError(f"{folder / names[0]} is missing: {_belonging(found[0])}")
        paths.append(path)
    return found[0], paths


def _belonging(form: str) -> str:
    """What belongs to that form, and where it is to be had."""
    together = f"{form} are {', '.join(names[0] for names in FORMS[form])} together"
    if form != COMPETITION_CSVS:
        return together
    page = f"https://www.kaggle.com/competitions/{COMPETITION}/data"
    return f"{together}; run python scripts/download.py, or get them from {page}"


def has_credentials() -> bool:
    """True if the kaggle client would find credentials, valid or not, where it looks for them."""
    return credentials_place() is not None


def credentials_place() -> str | None:
    """The variable or the file with the credentials that the kaggle client takes first, or None."""
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
    found = next((str(path) for path in files if path.exists()), None)
    return found or ("KAGGLE_USERNAME and KAGGLE_KEY" if pair else None)


def _mounted_competition() -> Path:
    """The competition's folder in a Kaggle session, or else another that holds data, CSVs of its kind first."""
    usual = [KAGGLE_INPUT / "digit-recognizer", KAGGLE_INPUT / "competitions/digit-recognizer"]
    names = {name for files in FORMS.values() for names in files for name in names}
    found = {path.parent for path in KAGGLE_INPUT.glob("**/*") if path.name in names}
    found = sorted(found, key=lambda folder: (COMPETITION_CSVS not in forms(folder), folder))
    return next((folder for folder in [*usual, *found] if forms(folder)), KAGGLE_INPUT)


def _main() -> None:
    """What `run_all.sh` asks and says first: called with its --input and --output, code 3 is a download."""
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    input, output = (Path(options[name]) if name in options else None for name in ("--input", "--output"))
    if needs_download(input):
        sys.exit(_DOWNLOAD)
    try:
        found = resolve(input, output)
        if not found.is_sample:
            data_files(found.input)
        found.print_notice()
    except UserError as error:
        print(f"run_all.sh: error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    _main()
