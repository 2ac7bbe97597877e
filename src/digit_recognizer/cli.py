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
from digit_recognizer.recipes import check_value, did_you_mean, parse_setting, settable_fields

WRONG, INTERRUPTED = 2, 130  # exit codes


class Parser(argparse.ArgumentParser):
    """A parser with --input and --output, without abbreviations; a mistake is one line."""

    def __init__(self, description: str, has_paths: bool = True):
        """`description` is the beginning of --help; `has_paths` adds --input and --output."""
        super().__init__(description=description, allow_abbrev=False)
        if has_paths:
            data = "the data: a folder, a zip archive or a file, in a format that the README names (default: input)"
            run = "the run directory (default: output/run; without data output/sample)"
            self.add_argument("--input", metavar="DIR", type=Path, help=data)
            self.add_argument("--output", metavar="DIR", type=Path, help=run)

    def error(self, message: str) -> NoReturn:
        """Raises UserError instead of printing the usage."""
        _, unknown, words = message.partition("unrecognized arguments: ")
        if unknown:
            message += did_you_mean(words.split()[0].partition("=")[0], self._option_string_actions, otherwise="")
        raise UserError(f"{message} (--help lists the options)")


def same_command() -> str:
    """Returns in words the command that continues this one: --overwrite would start again."""
    return "the same command" + " without --overwrite" * ("--overwrite" in sys.argv)


def main(command: Callable[[], None], kept: str = "nothing is half written") -> NoReturn:
    """Runs a script's `command`; exits with 0, 2 (UserError, OSError, missing package) or 130 (Ctrl-C, closed pipe).

    An error is one line on stderr. `kept` tells what remains after Ctrl-C. Any other exception is a defect and keeps
    its traceback.
    """
    script = Path(sys.argv[0]).name
    os.environ["MPLBACKEND"] = "agg"  # a notebook's shell command inherits the backend of the notebook
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home that is read-only
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may hold characters that the output cannot
    try:
        command()
        sys.stdout.flush()
        sys.exit(0)
    except UserError as error:
        message = str(error)
    except ModuleNotFoundError as error:
        if (error.name or "digit_recognizer").startswith("digit_recognizer"):
            raise
        message = f"{error.name} is not installed: bash scripts/run_all.sh makes .venv with all that is needed; "
        message += "source .venv/bin/activate enters it"
    except BrokenPipeError:  # the reader of the output, such as `head`, has ended
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        sys.exit(INTERRUPTED)
    except OSError as error:  # such as a full disk
        message = f"{error.filename or 'writing'}: {error.strerror or error}; nothing is half written: "
        message += f"repair that, then {same_command()} continues"
    except KeyboardInterrupt:
        print(f"\n{script}: interrupted; {kept}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    print(f"{script}: error: {message}", file=sys.stderr)
    sys.exit(WRONG)


def add_competition_option(parser: Parser) -> None:
    """Adds --competition."""
    text = f"the last part of its address on Kaggle (default: {COMPETITION})"
    parser.add_argument("--competition", metavar="SLUG", type=_slug, default=COMPETITION, help=text)


def _slug(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not the last part of an address, such as {COMPETITION}")
    return text


def duration(text: str) -> float:
    """Returns the seconds of a text such as 90, 90s, 10m or 11h; the type of an option."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh]?)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a duration such as 90s, 10m or 11h")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def add_recipe_options(parser: Parser, *names: str) -> None:
    """Adds options that set fields of the recipe; `recipe_options` leaves out those that are not given."""
    for name in names:
        field = settable_fields()[name]
        option = f"--{name.replace('_', '-')}"
        text = field.metadata["help"]
        parser.add_argument(option, type=field.type, metavar=name[0].upper(), default=argparse.SUPPRESS, help=text)


def recipe_options(options: argparse.Namespace) -> dict[str, Any]:
    """Returns the recipe fields of the options, which override --set; raises UserError for impossible values."""
    fields = settable_fields()
    values = dict(parse_setting(setting) for setting in getattr(options, "set", []))
    values |= {name: value for name, value in vars(options).items() if name in fields}
    for name, value in values.items():
        check_value(fields[name], value)
    return values
