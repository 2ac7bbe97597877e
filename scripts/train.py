"""Trains the folds that are not finished yet, one network each. The same command again goes on."""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

from digit_recognizer import backend, command, folds, recipes, source
from digit_recognizer.errors import UserError
from digit_recognizer.folds import Fold
from digit_recognizer.run import Run, atomic


def parse() -> argparse.Namespace:
    parser = command.Parser(__doc__)
    parser.add_argument("--recipe", metavar="NAME", help=f"one of: {', '.join(recipes.RECIPES)}")
    parser.add_argument(
        "--set", metavar="FIELD=VALUE", nargs="+", action="extend", default=[], help="any field of the recipe"
    )
    parser.add_argument(
        "--fold", metavar="N", type=int, nargs="+", help="only these members, numbered from 0"
    )
    command.add_recipe_option(parser, "epochs", "at most so many for each fold")
    command.add_recipe_option(parser, "batch_size", "rows in a step of training")
    command.add_split_options(parser)
    parser.add_argument(
        "--threads", metavar="T", type=int, help="for each fold (default: the cores there are)"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="remove the run that is there and start anew"
    )
    options = parser.parse_args()
    if options.threads is not None and options.threads < 1:
        raise UserError(f"--threads {options.threads}: it must be at least 1")
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
    settings = None if options.overwrite else run.settings()
    recipe = command.make_recipe(place, settings, options.recipe, given)
    dataset = command.read_dataset(place)
    if run.folds_csv.exists() and not options.overwrite:
        table = folds.from_csv(run.folds_csv, dataset.train.labels)
        recipe = folds.adopt(recipe, table, given)
    else:
        table = folds.split(dataset.train.labels, recipe)
    members = chosen(folds.members(table), options.fold)
    identity = recipes.to_json(recipe) | command.identity(dataset) | {"split": folds.fingerprint(table)}
    threads = options.threads or (settings or {}).get("threads") or backend.cores()

    with run.lock():
        if options.overwrite:
            run.clear()
        run.check_identity(identity)
        backend.start(threads)
        changed = run.claim(identity | backend.facts(threads))
        if changed:
            print(f"{run.recipe_json} was begun with other {', '.join(changed)}: the last bits may differ")
        command.keep_dataset(place, dataset)
        if not run.folds_csv.exists():
            with atomic(run.folds_csv) as file:
                folds.to_csv(file, table, dataset.train.labels)
        from digit_recognizer.engine import train_folds  # imports Keras

        train_folds(recipe, dataset, members, run)
    place.tell()


if __name__ == "__main__":
    command.main(train)
