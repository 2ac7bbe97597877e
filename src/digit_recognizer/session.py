"""A session of training: one recipe in the run directory, or several on the same folds, each in a run below it."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from digit_recognizer import backend, command, folds, leaderboard, recipes
from digit_recognizer.digits import Dataset
from digit_recognizer.errors import UserError
from digit_recognizer.folds import Fold
from digit_recognizer.recipes import Recipe
from digit_recognizer.run import Run, atomic
from digit_recognizer.source import Source


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Session:
    """What is asked for: to train the recipes `names`, with their fields as `given`."""

    source: Source
    dataset: Dataset
    names: list[str | None]  # None: the recipe that the run has, or else the default
    given: dict[str, Any]
    members: list[int] | None = None  # numbers of those to train; None: all
    threads: int | None = None  # of the backend; None: as many as before, or else the cores there are
    earlier: Run | None = None  # to go on from, with one recipe; it stays as it is
    overwrite: bool = False  # as if there were no run yet
    deadline: float = float("inf")  # seconds, as time.monotonic counts them


def train(session: Session) -> list[Path]:
    """Trains what is not finished; several recipes are then compared in leaderboard.csv.

    Returns the folders of the members for which there was no time. Raises UserError for what can't be
    done, before Keras is imported and before anything is written.
    """
    home = Run(session.source.output)
    runs, table = _runs(session, home), _split(session, home)
    planned = [_planned(session, *each, table) for each in zip(runs, session.names, strict=True)]
    members = _chosen(folds.members(table), session.members)
    before = [(_settings(session, run) or {}).get("threads") for run in runs]
    threads = next(filter(None, [session.threads, *before]), backend.cores())  # a backend takes them once
    with ExitStack() as locks:
        held = dict.fromkeys([home, *runs])  # of one recipe they are the same
        for run in held:
            locks.enter_context(run.lock())
        for run in held if session.overwrite else ():
            run.clear()
        backend.start(threads)
        from digit_recognizer.engine import train_folds  # imports Keras

        for run, (recipe, identity) in zip(runs, planned, strict=True):
            _begin(session, run, identity | backend.facts(threads, recipe.precision), table)
            if train_folds(recipe, session.dataset, members, run, session.deadline):
                break
        if len(runs) > 1:
            board = leaderboard.write(home, runs, folds.members(table), session.dataset)
            print(f"{home.leaderboard}, out-of-fold:\n{leaderboard.text(board)}")
    return [run.folder / fold.name for run in runs for fold in members if not run.is_finished(fold.name)]


def _runs(session: Session, home: Run) -> list[Run]:
    """Where the recipes are trained: never several in the directory of one, nor one in that of several."""
    several = len(session.names) > 1
    if several and "network" in (home.settings() or {}):
        raise UserError(f"{home.folder} holds a run of one recipe: take another --output for several")
    board = home.leaderboard.exists() or any(Run(home.folder / name).settings() for name in recipes.RECIPES)
    if not several and board:
        raise UserError(f"{home.folder} holds several recipes' runs: give the directory of one as --output")
    return [Run(home.folder / name) for name in session.names] if several else [home]


def _begun(session: Session, run: Run) -> list[Run]:
    """What there may be to go on with."""
    return [] if session.overwrite else [each for each in (run, session.earlier) if each]


def _settings(session: Session, run: Run) -> dict[str, Any] | None:
    return next(filter(None, (each.settings() for each in _begun(session, run))), None)


def _recipe(session: Session, run: Run, name: str | None) -> Recipe:
    return command.make_recipe(session.source, _settings(session, run), name, session.given)


def _split(session: Session, home: Run) -> np.ndarray:
    """That of folds.csv, else that of the recipe; of several recipes, that of the default one."""
    labels = session.dataset.train.labels
    for run in _begun(session, home):
        if run.folds_csv.exists():
            return folds.from_csv(run.folds_csv, labels)
    name = recipes.DEFAULT if len(session.names) > 1 else session.names[0]
    return folds.split(labels, _recipe(session, home, name))


def _planned(
    session: Session, run: Run, name: str | None, table: np.ndarray
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe to train in `run`, and what of recipe.json tells it from others."""
    recipe = folds.adopt(_recipe(session, run, name), table, session.given)
    identity = recipes.to_json(recipe) | command.identity(session.dataset)
    identity |= {"split": folds.fingerprint(table)}
    for each in _begun(session, run):
        each.check_identity(identity)
    return recipe, identity


def _chosen(members: list[Fold], numbers: list[int] | None) -> list[Fold]:
    for number in numbers or []:
        if not 0 <= number < len(members):
            raise UserError(f"--fold {number}: this run has the folds 0 to {len(members) - 1}")
    return members if numbers is None else [members[number] for number in sorted(set(numbers))]


def _begin(session: Session, run: Run, settings: dict[str, Any], table: np.ndarray) -> None:
    """Writes what a run holds before its folds, with `settings` as its recipe.json."""
    home = Run(session.source.output)
    if len(session.names) > 1:
        own = recipes.named(settings["name"]).holdout
        instead = f" in place of its own holdout of {own:.2g}" if own else ""
        print(f"{run.folder}, on the rows of {home.folds_csv}{instead}", flush=True)
    if session.earlier:
        run.take_over(session.earlier)
    changed = run.claim(settings)
    if changed:
        print(f"{run.recipe_json} was begun with other {', '.join(changed)}: the last bits may differ")
    command.keep_dataset(session.source, session.dataset)
    for path in (home.folds_csv, run.folds_csv):
        if not path.exists():
            with atomic(path) as file:
                folds.to_csv(file, table, session.dataset.train.labels)
