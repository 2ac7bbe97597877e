"""Trains the folds that are not finished yet, one network each. The same command again goes on.

With several recipes, all learn from the same folds, each in a run directory of its name in --output, and a
leaderboard compares them.
"""

import argparse
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import numpy as np

from digit_recognizer import backend, command, folds, leaderboard, recipes, source
from digit_recognizer.digits import Dataset
from digit_recognizer.errors import UserError
from digit_recognizer.folds import Fold
from digit_recognizer.recipes import Recipe
from digit_recognizer.run import Run, atomic, find_run
from digit_recognizer.source import Source

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


def chosen(members: list[Fold], numbers: list[int] | None) -> list[Fold]:
    for number in numbers or []:
        if not 0 <= number < len(members):
            raise UserError(f"--fold {number}: this run has the folds 0 to {len(members) - 1}")
    return members if numbers is None else [members[number] for number in sorted(set(numbers))]


@dataclass
class Training:
    run: Run
    previous: Run  # to go on from: --resume-from, else the run itself
    recipe: Recipe
    table: np.ndarray  # of folds.split
    members: list[Fold]  # those to train
    identity: dict[str, Any]
    threads: int | None  # of the session before

    @property
    def unfinished(self) -> list[Path]:
        return [self.run.folder / fold.name for fold in self.members if not self.run.is_finished(fold.name)]


def common_split(options: argparse.Namespace, place: Source, labels: np.ndarray) -> np.ndarray:
    """The split of several recipes: folds.csv in --output, else that of the default recipe and the options."""
    home = Run(place.output)
    if "network" in (home.settings() or {}):
        raise UserError(f"{home.folder} holds a run of one recipe: take another --output for several")
    if home.folds_csv.exists() and not options.overwrite:
        return folds.from_csv(home.folds_csv, labels)
    return folds.split(labels, command.make_recipe(place, None, None, command.given(options)))


def prepare(
    options: argparse.Namespace,
    place: Source,
    dataset: Dataset,
    run: Run,
    name: str | None,
    table: np.ndarray | None,
) -> Training:
    """What to do in `run`; raises UserError where that can't be. `table` is the split, where it is given."""
    given = command.given(options)
    previous = find_run(options.resume_from) if options.resume_from else run
    begun = run if run.settings() else previous  # whose recipe and folds hold
    settings = None if options.overwrite else begun.settings()
    recipe = command.make_recipe(place, settings, name, given)
    if table is None and begun.folds_csv.exists() and not options.overwrite:
        table = folds.from_csv(begun.folds_csv, dataset.train.labels)
    if table is None:
        table = folds.split(dataset.train.labels, recipe)
    else:
        recipe = folds.adopt(recipe, table, given)
    members = chosen(folds.members(table), options.fold)
    identity = recipes.to_json(recipe) | command.identity(dataset) | {"split": folds.fingerprint(table)}
    if not options.overwrite:
        previous.check_identity(identity)
    return Training(run, previous, recipe, table, members, identity, (settings or {}).get("threads"))


def carry_out(
    training: Training, threads: int, options: argparse.Namespace, place: Source, dataset: Dataset
) -> None:
    run, previous = training.run, training.previous
    if options.overwrite:
        run.clear()
    run.check_identity(training.identity)
    if previous is not run:
        run.take_over(previous)
    backend.start(threads)
    changed = run.claim(training.identity | backend.facts(threads, training.recipe.precision))
    if changed:
        print(f"{run.recipe_json} was begun with other {', '.join(changed)}: the last bits may differ")
    command.keep_dataset(place, dataset)
    write_folds(run, training.table, dataset)
    from digit_recognizer.engine import train_folds  # imports Keras

    train_folds(training.recipe, dataset, training.members, run, BEGAN + options.time_budget)


def write_folds(run: Run, table: np.ndarray, dataset: Dataset) -> None:
    if not run.folds_csv.exists():
        with atomic(run.folds_csv) as file:
            folds.to_csv(file, table, dataset.train.labels)


def train_one(options: argparse.Namespace, place: Source, dataset: Dataset) -> list[Path]:
    """Returns the folders of the folds for which there was no time."""
    run = Run(place.output)
    if run.leaderboard.exists() and not options.overwrite:
        raise UserError(f"{run.folder} holds several recipes' runs: give the directory of one as --output")
    training = prepare(options, place, dataset, run, options.recipe[0], None)
    threads = options.threads or training.threads or backend.cores()
    with run.lock():
        carry_out(training, threads, options, place, dataset)
    return training.unfinished


def train_several(options: argparse.Namespace, place: Source, dataset: Dataset) -> list[Path]:
    """Returns the folders of the folds for which there was no time."""
    home, table = Run(place.output), common_split(options, place, dataset.train.labels)
    trainings = [
        prepare(options, place, dataset, Run(home.folder / name), name, table) for name in options.recipe
    ]
    # a backend takes them once
    threads = options.threads or next((each.threads for each in trainings if each.threads), backend.cores())
    with home.lock():
        if options.overwrite:
            home.clear()
        write_folds(home, table, dataset)
        for training in trainings:
            own = recipes.named(training.recipe.name)
            instead = f" in place of its own holdout of {own.holdout:.2g}" if own.holdout else ""
            print(f"{training.run.folder}, on the rows of {home.folds_csv}{instead}", flush=True)
            with training.run.lock():
                carry_out(training, threads, options, place, dataset)
            if training.unfinished:
                break
        runs = [training.run for training in trainings]
        board = leaderboard.write(home, runs, folds.members(table), dataset)
    print(f"{home.leaderboard}, out-of-fold:\n{leaderboard.text(board)}")
    return [path for training in trainings for path in training.unfinished]


def train() -> None:
    options = parse()
    if options.list:
        print(recipes.listing())
        return
    backend.chosen()
    place = source.find(options.input, options.output)
    place.tell()
    carry = train_one if len(options.recipe) == 1 else train_several
    left = carry(options, place, command.read_dataset(place))
    if left:
        names = ", ".join(str(path.relative_to(place.output)) for path in left)
        print(
            f"the time budget is used up; not finished: {names}; the same command goes on, or --resume-from"
        )
    place.tell()


if __name__ == "__main__":
    command.main(train)
