"""Trains the folds that are not finished yet, one network each. The same command again goes on."""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from digit_recognizer import backend, command, folds, recipes, source
from digit_recognizer.errors import UserError
from digit_recognizer.folds import Fold
from digit_recognizer.run import Run, atomic, find_run

BEGAN = time.monotonic()  # seconds; --time-budget counts from here


def parse() -> argparse.Namespace:
    parser = command.Parser(__doc__)
    add = parser.add_argument
    add("--recipe", metavar="NAME", help=f"one of: {', '.join(recipes.RECIPES)}")
    add(
        "--set", metavar="FIELD=VALUE", nargs="+", action="extend", default=[], help="any field of the recipe"
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
    return options


def chosen(members: list[Fold], numbers: list[int] | None) -> list[Fold]:
    for number in numbers or []:
        if not 0 <= number < len(members):
            raise UserError(f"--fold {number}: this run has the folds 0 to {len(members) - 1}")
    return members if numbers is None else [members[number] for number in sorted(set(numbers))]


def train() -> None:
    options = parse()
    backend.chosen()
    place = source.find(options.input, options.output)
    place.tell()
    run, given = Run(place.output), command.given(options)
    previous = find_run(options.resume_from) if options.resume_from else run
    begun = run if run.settings() else previous  # whose recipe and folds hold
    settings = None if options.overwrite else begun.settings()
    recipe = command.make_recipe(place, settings, options.recipe, given)
    dataset = command.read_dataset(place)
    if begun.folds_csv.exists() and not options.overwrite:
        table = folds.from_csv(begun.folds_csv, dataset.train.labels)
        recipe = folds.adopt(recipe, table, given)
    else:
        table = folds.split(dataset.train.labels, recipe)
    members = chosen(folds.members(table), options.fold)
    identity = recipes.to_json(recipe) | command.identity(dataset) | {"split": folds.fingerprint(table)}
    threads = options.threads or (settings or {}).get("threads") or backend.cores()

    if previous is not run:
        previous.check_identity(identity)
    with run.lock():
        if options.overwrite:
            run.clear()
        run.check_identity(identity)
        if previous is not run:
            run.take_over(previous)
        backend.start(threads)
        changed = run.claim(identity | backend.facts(threads))
        if changed:
            print(f"{run.recipe_json} was begun with other {', '.join(changed)}: the last bits may differ")
        command.keep_dataset(place, dataset)
        if not run.folds_csv.exists():
            with atomic(run.folds_csv) as file:
                folds.to_csv(file, table, dataset.train.labels)
        from digit_recognizer.engine import train_folds  # imports Keras

        left = train_folds(recipe, dataset, members, run, BEGAN + options.time_budget)
    if left:
        names = ", ".join(fold.name for fold in left)
        print(
            f"the time budget is used up; not finished: {names}; the same command goes on, or --resume-from"
        )
    place.tell()


if __name__ == "__main__":
    command.main(train)
