"""What the scripts share: options, exit codes, and finding the run, its recipe and its data."""

import argparse
import dataclasses
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from digit_recognizer import digits, recipes
from digit_recognizer.digits import Dataset
from digit_recognizer.errors import UserError
from digit_recognizer.recipes import Recipe
from digit_recognizer.run import Run
from digit_recognizer.source import COMPETITION, Source

if TYPE_CHECKING:
    from digit_recognizer.folds import Fold

WRONG, INTERRUPTED = 2, 130  # exit codes

# Pictures go to files. What runs in a notebook is told its backend, which another Python does not have.
os.environ["MPLBACKEND"] = "agg"

# What the built-in sample cuts a recipe down to, for a training of two or three minutes on two cores. Its folds
# have few rows, so the batches are small: batch normalisation needs some 600 steps to be of use.
SAMPLE_CUTS = {"folds": 3, "epochs": 8, "batch_size": 8}


class Parser(argparse.ArgumentParser):
    """Options as every script takes them: --input, --output, no abbreviations, one line for a mistake."""

    def __init__(self, description: str, places: bool = True):
        """`description` is what --help says first; `places` are --input and --output."""
        super().__init__(description=description, allow_abbrev=False)
        if not places:
            return
        self.add_argument(
            "--input",
            metavar="DIR",
            type=Path,
            help="where the data is, in one of the forms that the README names (default: input)",
        )
        self.add_argument(
            "--output",
            metavar="DIR",
            type=Path,
            help="the run directory (default: output/run; output/sample)",
        )

    def error(self, message: str) -> NoReturn:
        """Raises UserError in place of argparse's usage and message."""
        raise UserError(f"{message} (--help lists the options)")


def main(
    command: Callable[[], None], kept: str = "every finished epoch is kept: the same command goes on"
) -> NoReturn:
    """Runs a script's `command` and ends the process with the exit code that its outcome has.

    UserError and what the file system refuses are one line on stderr and code 2; Ctrl-C is 130, with what
    is `kept` then. Anything else is a defect and keeps its traceback.
    """
    script = Path(sys.argv[0]).name
    try:
        command()
        sys.stdout.flush()
    except UserError as error:
        message = f"error: {error}"
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        sys.exit(INTERRUPTED)
    except OSError as error:  # a full disk, a quota, a folder that went away: not ours to mend
        message = f"error: {error.filename or 'writing'}: {error.strerror or error}; nothing is half written"
        message += ": once that is mended the same command goes on"
    except KeyboardInterrupt:
        print(f"\n{script}: interrupted; {kept}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    else:
        sys.exit(0)
    print(f"{script}: {message}", file=sys.stderr)
    sys.exit(WRONG)


def add_competition_option(parser: Parser) -> None:
    """--competition."""
    parser.add_argument(
        "--competition",
        metavar="SLUG",
        type=_slug,
        default=COMPETITION,
        help=f"the last part of its address on Kaggle (default: {COMPETITION})",
    )


def _slug(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no last part of an address, such as {COMPETITION}")
    return text


def duration(text: str) -> float:
    """Seconds, from a text such as 90, 90s, 10m or 11h: the type of an option; raises what argparse takes."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90s, 10m or 11h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def add_recipe_option(parser: Parser, name: str, words: str) -> None:
    """An option that sets the recipe's field of that name; where it is not given `given` leaves it out."""
    kind = {option.name: option.type for option in dataclasses.fields(Recipe)}[name]
    parser.add_argument(
        f"--{name.replace('_', '-')}",
        type=kind,
        metavar=name[0].upper(),
        default=argparse.SUPPRESS,
        help=words,
    )


def add_split_options(parser: Parser) -> None:
    """--folds, --repeats, --holdout and --seed."""
    add_recipe_option(parser, "folds", "folds of the k-fold ensemble (default: the recipe's)")
    add_recipe_option(parser, "repeats", "k-fold ensembles, each with folds of its own (default: 1)")
    add_recipe_option(parser, "holdout", "with --folds 1: the part of the rows to validate on, such as 0.15")
    add_recipe_option(parser, "seed", "of the split and of all that training draws (default: 42)")


def given(options: argparse.Namespace) -> dict[str, Any]:
    """The recipe's fields that the options set, those of --set first."""
    names = {option.name for option in dataclasses.fields(Recipe)}
    settings = dict(recipes.parse(setting) for setting in getattr(options, "set", []))
    return settings | {name: value for name, value in vars(options).items() if name in names}


def make_recipe(
    source: Source, settings: dict[str, Any] | None, name: str | None, options: dict[str, Any]
) -> Recipe:
    """The recipe of a run: `options`, for the rest `settings` (the run's recipe.json), else the recipe `name`.

    Raises UserError for an unknown name or a value that the recipe can't have.
    """
    if settings is not None and name in (None, settings.get("name")):
        return recipes.change(recipes.from_json(settings), options)
    recipe = recipes.named(name or recipes.DEFAULT)
    if source.is_sample:
        cuts = {name: min(getattr(recipe, name), most) for name, most in SAMPLE_CUTS.items()}
        recipe = recipes.change(recipe, cuts)
    return recipes.change(recipe, options)


def read_dataset(source: Source) -> Dataset:
    """The data in the input folder, the run's cache of it, or the built-in sample."""
    return digits.sample() if source.is_sample else digits.read(source.input, Run(source.output).cache)


def keep_dataset(source: Source, dataset: Dataset) -> None:
    """Keeps the parsed arrays beside the run, for the stages to come."""
    if not source.is_sample:
        digits.keep(dataset, source.input, Run(source.output).cache)


def identity(dataset: Dataset) -> dict[str, str]:
    """What tells a run on this data from a run on other data."""
    return {"data": dataset.source, "fingerprint": dataset.fingerprint()}


def check_run(run: Run, dataset: Dataset) -> None:
    """Raises UserError where `run` is no run or one of other data."""
    if run.settings() is None:
        raise UserError(f"{run.folder} holds no run (no recipe.json): run scripts/train.py, or give --output")
    run.check_identity(identity(dataset))


def read_members(run: Run, dataset: Dataset) -> "list[Fold]":
    """The members of a run that train.py made of this data; raises UserError where it is another."""
    from digit_recognizer import folds  # with scikit-learn, for which the other commands need not wait

    check_run(run, dataset)
    recipes.from_json(run.settings())
    return folds.members(folds.from_csv(run.folds_csv, dataset.train.labels))
