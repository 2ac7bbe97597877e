"""A session of training: one recipe in the run directory, or several on the same folds, each in a run below it.

Nothing here imports Keras before options and data are checked, so that a mistake is answered at once.
"""

import dataclasses
import importlib.util
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from digit_recognizer import named_recipes
from digit_recognizer.data import folds
from digit_recognizer.data.digits import Dataset
from digit_recognizer.data.folds import Member
from digit_recognizer.data.plan import Plan, make_plan, make_recipe, write_folds
from digit_recognizer.errors import UserError
from digit_recognizer.files import atomic, commit, write_json
from digit_recognizer.recipes import Recipe
from digit_recognizer.run import Run
from digit_recognizer.training import backend, cluster, dispatch
from digit_recognizer.training.display import describe

if TYPE_CHECKING:
    from digit_recognizer.training.callbacks import TimeBudget


@dataclass(frozen=True)
class Session:
    """What a session of training did: the runs it trained, and the members for which there was no time."""

    plans: list[Plan]
    unfinished: list[Path]  # folders of members


def train(
    output: Path,
    dataset: Dataset,
    names: list[str | None],
    options: dict[str, Any],
    *,
    indices: list[int] | None = None,
    threads: int | None = None,
    earlier: Run | None = None,
    overwrite: bool = False,
    deadline: float = float("inf"),
    tensorboard: bool = False,
    where: cluster.Where | None = None,
) -> Session:
    """Trains the members that are not finished.

    Args:
        output: the run directory; with several recipes, the folder of their run directories.
        dataset: to train on.
        names: names of recipes; None is that of the run, else the default one.
        options: fields of the recipes that were asked for.
        indices: indices of the members to train; None: all of them.
        threads: for each member; None: as many as the run had before, else the cores there are, shared out.
        earlier: a run to go on from, with one recipe; it stays as it is.
        overwrite: remove the run that is there.
        deadline: no epoch is begun that would not end by then, in seconds of time.monotonic.
        tensorboard: whether each epoch is logged for TensorBoard too; that needs TensorFlow.
        where: members are trained at once; None: one after the other, in this process.

    Raises UserError for what can't be done: for options and data before Keras is imported, and for what the
    device or the cluster can't do before anything is written; and where a loss is no number.
    """
    missing = [name for name in ("tensorboard", "tensorflow") if not importlib.util.find_spec(name)]
    if tensorboard and missing:
        raise UserError(
            f"--tensorboard: {missing[0]} is not installed: pip install {missing[0]}, or leave it out"
        )
    home = Run(output)
    with ExitStack() as locks:
        locks.enter_context(home.lock())
        runs = _child_runs(home, names) if len(names) > 1 else [_single_run(home)]
        for run in runs if len(names) > 1 else []:
            locks.enter_context(run.lock())
        plans = _make_plans(home, runs, names, dataset, options, earlier, overwrite)
        members = _choose(plans[0].members, indices)
        recorded = [plan.recorded or {} for plan in plans]
        before = (
            None if threads else next((each["threads"] for each in recorded if each.get("threads")), None)
        )
        threads, pool = threads or before, None
        if where:
            wanted = max(sum(not plan.is_finished(each) for each in members) for plan in plans)
            wanted = len(members) if overwrite else wanted
            pool = locks.enter_context(cluster.open_pool(where, dataset, threads, wanted))
        if before:
            _tell_threads(before, where)
        threads = pool.threads if pool else threads or backend.cores()  # a backend takes them once
        budget = None if pool else _start_backend(threads, deadline)
        made_by = {"commit": commit()}
        facts = [(pool or backend).session_facts(threads, plan.recipe.precision) | made_by for plan in plans]
        if overwrite:
            for run in {home, *runs}:
                _tell_lost_folds(run, plans[0])
                run.clear()
        for plan, of_session in zip(plans, facts, strict=True):
            _begin(plan, home, of_session, earlier, options)
            if pool:
                in_time = dispatch.train_members(pool, plan, members, deadline, tensorboard)
            else:
                in_time = train_members(plan, members, dataset, budget, tensorboard)
            if not in_time:
                break
    unfinished = [plan.folder(each) for plan in plans for each in members if not plan.is_finished(each)]
    return Session(plans, unfinished)


def _tell_threads(threads: int, where: cluster.Where | None) -> None:
    """Says where the run goes on with other threads than this machine's share, because it was begun with them."""
    share = max(1, backend.cores() // (where.workers or 1 if where else 1))
    if threads != share and not (where and where.address):
        print(
            f"{threads} threads a fold, with which the run was begun: --threads {share} takes this machine's share",
            flush=True,
        )


def _start_backend(threads: int, deadline: float) -> "TimeBudget":
    """Starts the backend in this process, and returns the time budget of all that is trained in it."""
    backend.start(threads)
    from digit_recognizer.training.callbacks import TimeBudget  # with Keras

    return TimeBudget(deadline)


def _tell_lost_folds(run: Run, plan: Plan) -> None:
    """Says where --overwrite removes a folds.csv that the plan's recipe does not make anew."""
    with suppress(UserError):  # a damaged one, or of other data
        labels = plan.labels.train
        if run.folds_csv.exists() and not np.array_equal(folds.from_csv(run.folds_csv, labels), plan.split):
            print(f"{run.folds_csv} is made anew, with other folds", flush=True)


def _child_runs(home: Run, names: list[str]) -> list[Run]:
    """The run directories of several recipes, never in that of one recipe."""
    if home.is_of_one_recipe():
        raise UserError(f"{home.folder} holds a run of one recipe: take another --output for several")
    for name in names:
        named_recipes.named(name)
    return [Run(home.folder / name) for name in names]


def _single_run(home: Run) -> Run:
    """The run directory of one recipe, never that of several."""
    if home.is_of_one_recipe():
        return home
    children = (Run(home.folder / name) for name in named_recipes.RECIPES)
    if home.leaderboard.exists() or any(child.recipe_json.exists() for child in children):
        raise UserError(f"{home.folder} holds several recipes' runs: give the directory of one as --output")
    return home


def _make_plans(
    home: Run,
    runs: list[Run],
    names: list[str | None],
    dataset: Dataset,
    options: dict[str, Any],
    earlier: Run | None,
    overwrite: bool,
) -> list[Plan]:
    """The plan of each recipe; several recipes have the folds of `home`, else the default recipe's folds."""
    split = None
    if len(runs) > 1:
        labels = dataset.labels
        if home.folds_csv.exists() and not overwrite:
            split = folds.from_csv(home.folds_csv, labels.train)
        else:
            of_split = {name: value for name, value in options.items() if name in folds.FIELDS}
            split = folds.split(labels.train, make_recipe(None, None, of_split, labels.is_sample))
    plans = [
        make_plan(run, dataset, name, options, earlier=earlier, overwrite=overwrite, split=split)
        for run, name in zip(runs, names, strict=True)
    ]
    for one, other in combinations(plans, 2):
        if _trains_as(one) == _trains_as(other):
            raise UserError(
                f"--recipe {one.recipe.name} {other.recipe.name}: on the same folds they are the same networks: "
                "give one of them"
            )
    return plans


def _trains_as(plan: Plan) -> Recipe:
    """The plan's recipe without its description."""
    return dataclasses.replace(plan.recipe, name="", citation="", reported_accuracy="")


def _choose(members: list[Member], indices: list[int] | None) -> list[Member]:
    for index in indices or []:
        if not 0 <= index < len(members):
            raise UserError(f"--fold {index}: this run has the folds 0 to {len(members) - 1}")
    return members if indices is None else [members[index] for index in sorted(set(indices))]


def _begin(
    plan: Plan, home: Run, facts: dict[str, Any], earlier: Run | None, options: dict[str, Any]
) -> None:
    """Writes recipe.json, with the facts of this session, and folds.csv: a run holds them before its members."""
    run = plan.run
    if run is home and plan.recorded is None and (other := _other_folds(plan, options)):
        print(f"{run.folds_csv} is taken as it is: {other}", flush=True)
    if run is not home:
        named = named_recipes.named(plan.recipe.name)
        own = [f"holdout of {named.holdout:.2g}"] if named.holdout else []
        own += [f"repeats of {named.repeats}"] if named.repeats != plan.recipe.repeats else []
        instead = f" in place of its own {', '.join(own)}" if own else ""
        print(f"{run.folder}, on the rows of {home.folds_csv}{instead}", flush=True)
        if not home.folds_csv.exists():
            with atomic(home.folds_csv) as file:
                folds.to_csv(file, plan.split, plan.labels.train)
    if earlier:
        run.take_over(earlier)
    if plan.recorded is None:
        write_json(run.recipe_json, plan.settings | facts)
    # recipe.json keeps the facts of the first session
    changed = [name for name in facts if name in (plan.recorded or {}) and plan.recorded[name] != facts[name]]
    if changed:
        print(f"{run.recipe_json} was begun with other {', '.join(changed)}: results may differ a little")
    write_folds(plan)


def _other_folds(plan: Plan, options: dict[str, Any]) -> str | None:
    """In words, how the split that is there differs from what recipe and options ask for; None if it does not."""
    asked = make_recipe(None, plan.recipe.name, options, plan.labels.is_sample)
    values = [(name, *(getattr(each, name) for each in (plan.recipe, asked))) for name in folds.FIELDS]
    other = [f"{name} {there}, not {own} as in {asked.name}" for name, there, own in values if there != own]
    if not other and not folds.are_of(plan.split, plan.labels.train, asked):
        other = [f"seed {asked.seed} makes other folds"]
    return ", ".join(other) or None


def train_members(
    plan: Plan, members: list[Member], dataset: Dataset, budget: "TimeBudget", tensorboard: bool = False
) -> bool:
    """Trains the `members` that are not finished, one after the other; needs `backend.start`.

    Returns False if there was no time for all of them in the `budget`.
    """
    # with Keras, which is imported once options and data are known to be good
    from digit_recognizer.training.callbacks import OutOfTimeError, tensorboard_log
    from digit_recognizer.training.fold import FoldTrainer
    from digit_recognizer.training.progress import Progress

    unfinished = [member for member in members if not plan.is_finished(member)]
    for member in members:
        if member not in unfinished:
            (plan.folder(member) / "state.npz").unlink(missing_ok=True)  # if killed while finishing
            print(f"{describe(member, plan.metrics(member))}, finished before")
    progress, trainer = Progress(plan.recipe, unfinished), None
    try:
        for member in unfinished:
            budget.check()
            rows = len(member.train_rows)
            if trainer is None or not trainer.fits(rows):
                trainer = FoldTrainer(plan.recipe, rows)
            callbacks = [budget, *progress.callbacks(member)]
            if tensorboard:
                callbacks.append(tensorboard_log(plan.run.tensorboard / member.name))
            metrics = trainer.train(member, dataset, plan.folder(member), plan.identity, callbacks)
            progress.end_member(member, metrics)
    except OutOfTimeError:
        return False
    finally:
        progress.close()
    return True
