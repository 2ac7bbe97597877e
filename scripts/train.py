"""Trains the folds that are not finished yet, one network each. The same command again goes on.

With several recipes, all learn from the same folds, each in a run directory of its name in --output, and a
leaderboard compares them.
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from digit_recognizer import backend, command, recipes, session, source
from digit_recognizer.errors import UserError
from digit_recognizer.run import find_run
from digit_recognizer.session import Session

BEGAN = time.monotonic()  # seconds; --time-budget counts from here


def parse() -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add = parser.add_argument
    names = ", ".join(recipes.RECIPES)
    add("--recipe", metavar="NAME", nargs="+", help=f"one, or several to compare, of: {names}")
    add(
        "--list", action="store_true", help="tell what the recipes are and what can be set, and train nothing"
    )
    add(
        "--set",
        metavar="FIELD=VALUE",
        nargs="+",
        action="extend",
        default=[],
        help="any field of the recipe (--list names them)",
    )
    add("--fold", metavar="N", type=int, nargs="+", help="only these members, numbered from 0")
    command.add_recipe_option(parser, "epochs", "at most so many for each fold")
    command.add_recipe_option(parser, "batch_size", "rows in a step of training")
    command.add_split_options(parser)
    add("--threads", metavar="T", type=int, help="for each fold (default: the cores there are)")
    add(
        "--time-budget",
        metavar="TIME",
        type=command.duration,
        default=float("inf"),
        help="begin no epoch that would not end in it, such as 11h or 90m",
    )
    add("--resume-from", metavar="DIR", type=Path, help="go on from an earlier output, which stays as it is")
    add("--overwrite", action="store_true", help="remove the run that is there and start anew")
    options = parser.parse_args()
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads {options.threads}: it must be at least 1")
    if options.resume_from and options.overwrite:
        raise UserError("--resume-from goes on with a run, --overwrite begins anew: give one of them")
    options.recipe = list(dict.fromkeys(options.recipe or [None]))
    if options.resume_from and len(options.recipe) > 1:
        raise UserError("--resume-from goes on with one run: give one --recipe, or none")
    return options


def train() -> None:
    options = parse()
    if options.list:
        print(recipes.listing())
        return
    backend.chosen()
    place = source.find(options.input, options.output)
    place.tell()
    left = session.train(
        Session(
            place,
            command.read_dataset(place),
            options.recipe,
            command.given(options),
            members=options.fold,
            threads=options.threads,
            earlier=find_run(options.resume_from) if options.resume_from else None,
            overwrite=options.overwrite,
            deadline=BEGAN + options.time_budget,
        )
    )
    if left:
        names = ", ".join(str(path.relative_to(place.output)) for path in left)
        print(
            f"the time budget is used up; not finished: {names}; the same command goes on, or --resume-from"
        )
    place.tell()


if __name__ == "__main__":
    command.main(train)
