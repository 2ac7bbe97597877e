"""What the scripts share: the parser, the types of options, and exit codes."""

import argparse
import io
import logging
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from digit_recognizer import COMPETITION
from digit_recognizer.files import UserError
from digit_recognizer.recipes import check_value, parse_setting, settable_fields

WRONG, INTERRUPTED = 2, 130  # exit codes


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
            help="the data: a folder, a zip archive or a file, in a format that the README names (default: input)",
        )
        self.add_argument(
            "--output",
            metavar="DIR",
            type=Path,
            help="the run directory (default: output/run; without data output/sample)",
        )

    def error(self, message: str) -> NoReturn:
        """Raises UserError in place of argparse's usage and message."""
        raise UserError(f"{message} (--help lists the options)")


def same_command() -> str:
    """Returns in words how to go on with what this command has begun: with --overwrite it would begin anew."""
    return "the same command" + " without --overwrite" * ("--overwrite" in sys.argv)


def main(command: Callable[[], None], kept: str = "nothing is half written") -> NoReturn:
    """Runs a script's `command` and ends the process with the exit code that its outcome has.

    UserError and what the file system refuses are one line on stderr and code 2; Ctrl-C is 130, with what
    is `kept` then. Anything else is a defect and keeps its traceback.
    """
    script = Path(sys.argv[0]).name
    # Pictures go to files. A command in a notebook is told the notebook's backend, which another Python lacks.
    os.environ["MPLBACKEND"] = "agg"
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home that is read-only
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what the output cannot
    try:
        command()
        sys.stdout.flush()
    except UserError as error:
        message = f"error: {error}"
    except ModuleNotFoundError as error:
        if (error.name or "digit_recognizer").startswith("digit_recognizer"):
            raise
        message = f"error: {error.name} is not installed: bash scripts/run_all.sh makes .venv with all that is needed; "
        message += "source .venv/bin/activate enters it"
    except BrokenPipeError:  # whoever read the output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        sys.exit(INTERRUPTED)
    except OSError as error:  # a full disk, a quota, a folder that went away: not ours to mend
        message = f"error: {error.filename or 'writing'}: {error.strerror or error}; nothing is half written"
        message += f": once that is mended {same_command()} goes on"
    except KeyboardInterrupt:
        print(f"\n{script}: interrupted; {kept}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    else:
        sys.exit(0)
    print(f"{script}: {message}", file=sys.stderr)
    sys.exit(WRONG)


def add_competition_option(parser: Parser) -> None:
    """Adds --competition."""
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
    """Returns the seconds of a text such as 90, 90s, 10m or 11h; the type of an option."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration such as 90s, 10m or 11h")
    return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


def add_recipe_option(parser: Parser, name: str) -> None:
    """Adds an option that sets the recipe's field `name`; if not given, `recipe_options` leaves it out."""
    option = settable_fields()[name]
    parser.add_argument(
        f"--{name.replace('_', '-')}",
        type=option.type,
        metavar=name[0].upper(),
        default=argparse.SUPPRESS,
        help=option.metadata["help"],
    )


def add_split_options(parser: Parser) -> None:
    """Adds --folds, --repeats, --holdout and --seed."""
    for name in ("folds", "repeats", "holdout", "seed"):
        add_recipe_option(parser, name)


def recipe_options(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the recipe's fields that the options set; an option of its own goes before --set.

    Raises UserError for a value that the field can't have.
    """
    names = settable_fields()
    fields = dict(parse_setting(setting) for setting in getattr(options, "set", []))
    fields |= {name: value for name, value in vars(options).items() if name in names}
    for name, value in fields.items():
        check_value(names[name], value)
    return fields
