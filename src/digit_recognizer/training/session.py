"""A session of training: one recipe in the run directory, or several on the same folds, each in a run below it.

Nothing here imports Keras before options and data are checked, so that a mistake is answered at once.
"""

import dataclasses
import importlib.util
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from digit_recognizer import named_recipes
from digit_recognizer.data import folds
from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import UserError, commit, write_json
from digit_recognizer.recipes import Recipe
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.member import Member
from digit_recognizer.runs.plan import Plan, make_plan, make_recipe, write_folds
from digit_recognizer.training import backend
from digit_recognizer.training.cluster import ClusterOptions, RayExecutor
from digit_recognizer.training.local import LocalExecutor
from digit_recognizer.training.progress import describe


@dataclass(frozen=True)
class TrainingOptions:
    """How to train, beside the recipe."""

    fold_indices: Sequence[int] | None = None  # of the members to train; None: all of them
    threads: int | None = None  # for each member; None: as many as the run had before, else a share of the cores
    resume_from: Run | None = None  # a run to continue from, which stays as it is
    overwrite: bool = False  # remove the run in the directory first
    deadline: float = float("inf")  # seconds of time.monotonic; no epoch begins that would not end by then
    tensorboard: bool = False  # log each epoch for TensorBoard too
    cluster: ClusterOptions | None = None  # train several members at once, on Ray; None: in this process


def train(
    output: Path,
    dataset: Dataset,
    names: Sequence[str | None],
    fields: dict[str, Any],
    options: TrainingOptions = TrainingOptions(),
) -> list[Member]:
    """Trains the members that are not finished, and returns those for which there was no time.

    Args:
        output: the run directory; with several recipes, the folder of their run directories.
        dataset: to train on.
        names: names of recipes; None is that of the run, else the default one.
        fields: fields of the recipes that were asked for.
        options: how to train.

    Raises UserError for what cannot be done: for options and data before Keras is imported, for the device or the
    cluster before anything is written. Also raises UserError if a loss is not a number.
    """
    _check_tensorboard(options)
    home = Run(output)
    with ExitStack() as stack:
        stack.enter_context(home.lock())
        runs = [_single_run(home)] if len(names) == 1 else _child_runs(home, names)
        for run in runs:
            if run is not home:
                stack.enter_context(run.lock())
        plans = _make_plans(home, runs, names, dataset, fields, options)
        chosen = [_choose(plan.members, options.fold_indices) for plan in plans]
        _train_plans(home, plans, chosen, dataset, fields, options)
    return [member for members in chosen for member in members if not member.is_finished]


def _check_tensorboard(options: TrainingOptions) -> None:
    missing = [name for name in ("tensorboard", "tensorflow") if not importlib.util.find_spec(name)]
    if options.tensorboard and missing:
        raise UserError(f"--tensorboard: {missing[0]} is not installed: pip install {missing[0]}, or leave it out")


def _child_runs(home: Run, names: Sequence[str | None]) -> list[Run]:
    """Returns the run directories of several recipes, never below the run of one recipe."""
    if home.holds_one_recipe():
        raise UserError(f"{home.folder} holds a run of one recipe: take another --output for several")
    return [Run(home.folder / named_recipes.named(str(name)).name) for name in names]


def _single_run(home: Run) -> Run:
    """Returns the run directory of one recipe, never the folder of several."""
    children = (Run(home.folder / name) for name in named_recipes.RECIPES)
    several = home.leaderboard.exists() or any(child.recipe_json.exists() for child in children)
    if several and not home.holds_one_recipe():
        raise UserError(f"{home.folder} holds several recipes' runs: give the directory of one as --output")
    return home


def _make_plans(
    home: Run,
    runs: list[Run],
    names: Sequence[str | None],
    dataset: Dataset,
    fields: dict[str, Any],
    options: TrainingOptions,
) -> list[Plan]:
    """Returns the plan of each recipe. Several recipes share the folds of `home`, else the default recipe's folds."""
    split = None
    if len(runs) > 1:
        labels = dataset.train_labels
        if home.folds_csv.exists() and not options.overwrite:
            split = folds.from_csv(home.folds_csv, labels)
        else:
            of_split = {name: value for name, value in fields.items() if name in folds.FIELDS}
            split = folds.split(labels, make_recipe(None, None, of_split, dataset.is_sample))
    plans = [
        make_plan(run, dataset, name, fields, earlier=options.resume_from, overwrite=options.overwrite, split=split)
        for run, name in zip(runs, names, strict=True)
    ]
    for one, other in combinations(plans, 2):
        if _without_description(one.recipe) == _without_description(other.recipe):
            raise UserError(
                f"--recipe {one.recipe.name} {other.recipe.name}: on the same folds they are the same networks: "
                "give one of them"
            )
    return plans


def _without_description(recipe: Recipe) -> Recipe:
    return dataclasses.replace(recipe, name="", citation="", reported_accuracy="")


def _choose(members: list[Member], indices: Sequence[int] | None) -> list[Member]:
    for index in indices or []:
        if not 0 <= index < len(members):
            raise UserError(f"--fold {index}: this run has the folds 0 to {len(members) - 1}")
    return members if indices is None else [members[index] for index in sorted(set(indices))]


def _train_plans(
    home: Run,
    plans: list[Plan],
    chosen: list[list[Member]],
    dataset: Dataset,
    fields: dict[str, Any],
    options: TrainingOptions,
) -> None:
    """Writes what the runs begin with, and trains the chosen members of each plan.

    If everything is finished, neither Keras nor Ray is started.
    """
    if options.resume_from:
        for plan in plans:
            plan.run.take_over(options.resume_from)
    unfinished = [[member for member in members if options.overwrite or not member.is_finished] for members in chosen]
    if not any(unfinished) and all(plan.run.recipe_json.exists() for plan in plans):
        _print_finished(chosen)
        return
    with _open_executor(plans, max(map(len, unfinished)), dataset, options) as executor:
        try:
            facts = [executor.facts(plan.recipe.precision) | {"commit": commit()} for plan in plans]
        except TimeoutError:
            return
        if options.overwrite:
            for run in {home, *(plan.run for plan in plans)}:
                run.clear()
        for plan, of_session, members in zip(plans, facts, chosen, strict=True):
            _begin(home, plan, of_session, dataset, fields)
            _print_finished([members])
            if not executor.train(plan, [member for member in members if not member.is_finished]):
                return


def _print_finished(chosen: list[list[Member]]) -> None:
    for member in (member for members in chosen for member in members if member.is_finished):
        (member.folder / "state.npz").unlink(missing_ok=True)  # if it was killed while it finished
        print(f"{describe(member, member.metrics())}, finished before", flush=True)


def _open_executor(
    plans: list[Plan], at_once: int, dataset: Dataset, options: TrainingOptions
) -> LocalExecutor | RayExecutor:
    """Returns the executor as a context; `at_once` is the largest number of members that can train at once."""
    recorded = [(plan.recorded or {}).get("threads") for plan in plans]
    before = None if options.threads else next(filter(None, recorded), None)
    if before:
        _warn_about_threads(before, options.cluster)
    threads = options.threads or before
    if options.cluster is None:
        return LocalExecutor(dataset, threads or backend.cores(), options.deadline, options.tensorboard)
    return RayExecutor(options.cluster, dataset, threads, at_once, options.deadline, options.tensorboard)


def _warn_about_threads(threads: int, cluster: ClusterOptions | None) -> None:
    """Prints a line if the run was started with a number of threads that is not this machine's share."""
    share = max(1, backend.cores() // ((cluster.workers if cluster else 1) or 1))
    if threads != share and not (cluster and cluster.address):
        print(
            f"the run was started with {threads} threads a fold; --threads {share} would use this machine's share",
            flush=True,
        )


def _begin(home: Run, plan: Plan, facts: dict[str, Any], dataset: Dataset, fields: dict[str, Any]) -> None:
    """Writes recipe.json, with the facts of this session, and folds.csv: a run holds them before its members."""
    run = plan.run
    if run is home and plan.recorded is None and (difference := _other_folds(plan, dataset, fields)):
        print(f"{run.folds_csv} is used as it is: {difference}", flush=True)
    if run is not home:
        print(f"{run.folder}, on the folds of {home.folds_csv}", flush=True)
        if not home.folds_csv.exists():
            write_folds(home, plan.split, dataset)
    if not run.recipe_json.exists():
        write_json(run.recipe_json, plan.settings | facts)
    recorded = plan.recorded or {}  # recipe.json keeps the facts of the first session
    changed = [name for name in facts if name in recorded and recorded[name] != facts[name]]
    if changed:
        print(f"{run.recipe_json} was started with other {', '.join(changed)}: results may differ a little")
    if not run.folds_csv.exists():
        write_folds(run, plan.split, dataset)


def _other_folds(plan: Plan, dataset: Dataset, fields: dict[str, Any]) -> str:
    """Returns in words how folds.csv differs from what recipe and options ask for; empty if it does not."""
    wanted = make_recipe(None, plan.recipe.name, fields, dataset.is_sample)
    values = [(name, getattr(plan.recipe, name), getattr(wanted, name)) for name in folds.FIELDS]
    differences = [f"{name} {own}, not {other} as in {wanted.name}" for name, own, other in values if own != other]
    if not differences and not folds.are_of(plan.split, dataset.train_labels, wanted):
        differences = [f"seed {wanted.seed} makes other folds"]
    return ", ".join(differences)
