"""Where a command reads and writes, by the options and by what is there.

Only the standard library is used: `run_all.sh` asks this module before anything is installed.
"""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from digit_recognizer.errors import UserError

ROOT = Path(__file__).resolve().parents[2]  # of the checkout

KAGGLE_INPUT = Path("/kaggle/input")
KAGGLE_OUTPUT = Path("/kaggle/working")

SAMPLE_NOTICE = (
    "THIS IS THE BUILT-IN SAMPLE, not the competition: 1,797 small digits, fewer folds and epochs. "
    "Put the competition's CSVs into input/ for the real thing."
)


@dataclass(frozen=True)
class Source:
    """The folder of the CSVs, None for the built-in sample, and the run directory."""

    input: Path | None
    output: Path

    @property
    def is_sample(self) -> bool:
        """True where there is nothing but the built-in sample to work on."""
        return self.input is None

    def tell(self) -> None:
        """Prints, if so, that this is the sample: the first and the last line of a command's output."""
        if self.is_sample:
            print(SAMPLE_NOTICE, flush=True)


def find(input: Path | None, output: Path | None) -> Source:
    """The source for --input and --output, None where they were not given.

    CSVs in the input folder, else the built-in sample if no input was given and there are no Kaggle
    credentials to download with. Raises UserError otherwise: the sample never takes the place of data
    that somebody meant.
    """
    on_kaggle = "KAGGLE_KERNEL_RUN_TYPE" in os.environ
    folder = input or (_mounted_competition() if on_kaggle else _in_checkout("input"))
    if input is None and not has_csvs(folder):
        if has_credentials() and not on_kaggle:
            raise UserError(
                f"{folder} holds no CSVs: download https://www.kaggle.com/competitions/digit-recognizer/data "
                "and unpack it there (the built-in sample runs only where there are no Kaggle credentials)"
            )
        folder = None
    if output is None:
        output = (
            KAGGLE_OUTPUT if on_kaggle else _in_checkout("output") / ("sample" if folder is None else "run")
        )
    return Source(folder, output)


def _in_checkout(name: str) -> Path:
    """That folder of the checkout, as one would type it from here."""
    return Path(os.path.relpath(ROOT / name))


def has_csvs(folder: Path) -> bool:
    """True if `folder` holds train.csv or test.csv; one without the other is an error, not the sample."""
    return (folder / "train.csv").exists() or (folder / "test.csv").exists()


def has_credentials() -> bool:
    """True if the kaggle client would find credentials, valid or not, where it looks for them."""
    if os.environ.get("KAGGLE_API_TOKEN"):
        return True
    if os.environ.get("KAGGLE_USERNAME") and os.environ.get("KAGGLE_KEY"):
        return True
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "kaggle"
    folders = [Path.home() / ".kaggle", config, Path(os.environ.get("KAGGLE_CONFIG_DIR") or config)]
    names = ("access_token", "access_token.txt", "kaggle.json", "credentials.json")
    return any((folder / name).exists() for folder in folders for name in names)


def _mounted_competition() -> Path:
    """The competition's folder in a Kaggle session."""
    usual = [KAGGLE_INPUT / "digit-recognizer", KAGGLE_INPUT / "competitions/digit-recognizer"]
    found = sorted(path.parent for path in KAGGLE_INPUT.glob("**/train.csv"))
    return next((folder for folder in [*usual, *found] if has_csvs(folder)), KAGGLE_INPUT)


def _main() -> None:
    """What `run_all.sh` says first: called with its --input and --output."""
    options = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
    try:
        find(*(Path(options[name]) if name in options else None for name in ("--input", "--output"))).tell()
    except UserError as error:
        print(f"run_all.sh: error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    _main()
