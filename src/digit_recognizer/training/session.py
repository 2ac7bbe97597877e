"""A session of training: one recipe in the run directory, or several on the same folds, each in a run below it.

Nothing here imports Keras before options and data are checked, so that a mistake is answered at once.
"""

import importlib.util
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from digit_recognizer import named_recipes
from digit_recognizer.data import folds, image_folder
from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import UserError, commit, write_json
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.member import Member
from digit_recognizer.runs.plan import Plan, fit_to_rows, make_plan, make_recipe, write_folds
from digit_recognizer.training import backend
from digit_recognizer.training.cluster import ClusterOptions, RayExecutor
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
    cluster: ClusterOptions | None = None  # train several members at once, on Ray; None: one on each GPU


def train(
    output: Path,
    dataset: Dataset,
    names: Sequence[str | None],
    fields: dict[str, Any],
    options: TrainingOptions = TrainingOptions(),
) -> list[Member]:
    """Trains the members that are not finished, and returns those for which there was no time.

    `output` is the run directory or, with several recipes, the folder of theirs. A name of None is that of the run's
    recipe, else of the default one. `fields` are the recipe fields that the options set. Raises UserError if a loss is
    not a number and, before that recipe's run is removed, for options that are impossible.
    """
    missing = [name for name in ("tensorboard", "tensorflow") if not importlib.util.find_spec(name)]
    if options.tensorboard and missing:
        raise UserError(f"--tensorboard: {missing[0]} is not installed: pip install {missing[0]}, or leave it out")
    home = Run(output)
    if len(names) > 1:
        split = _common_split(home, dataset, fields, options)
        unfinished: list[Member] = []
        for name in names:
            run = Run(home.folder / str(name))
            print(f"{run.folder}, on the folds of {home.folds_csv}", flush=True)
            unfinished += _train_run(run, dataset, name, fields, options, split)
        return unfinished
    children = (Run(home.folder / name) for name in named_recipes.RECIPES)
    if any(child.recipe_json.exists() for child in children) and not home.holds_one_recipe():
        raise UserError(f"{home.folder} holds several recipes' runs: give the directory of one as --output")
    return _train_run(home, dataset, names[0], fields, options)


def _common_split(home: Run, dataset: Dataset, fields: dict[str, Any], options: TrainingOptions) -> np.ndarray:
    """Returns the folds of several recipes, those of the folder or of the default recipe, and writes folds.csv."""
    with home.lock():
        if home.holds_one_recipe():
            raise UserError(f"{home.folder} holds a run of one recipe: take another --output for several")
        if home.folds_csv.exists() and not options.overwrite:
            return folds.from_csv(home.folds_csv, dataset.train_labels)
        of_split = {name: value for name, value in fields.items() if name in folds.FIELDS}
        split = folds.split(dataset.train_labels, make_recipe(None, None, of_split, dataset))
        if options.overwrite:
            home.clear()
        write_folds(home, split, dataset)
    return split


def _train_run(
    run: Run,
    dataset: Dataset,
    name: str | None,
    fields: dict[str, Any],
    options: TrainingOptions,
    split: np.ndarray | None = None,
) -> list[Member]:
    """Trains a run, on the folds `split` if given; returns the members for which there was no time."""
    earlier, overwrite = options.resume_from, options.overwrite
    with run.lock():
        dataset = _with_recorded_pictures(dataset, [] if overwrite else [run], earlier)
        plan = make_plan(run, dataset, name, fields, earlier=earlier, overwrite=overwrite, split=split)
        for index in options.fold_indices or []:
            if not 0 <= index < len(plan.members):
                raise UserError(f"--fold {index}: this run has the folds 0 to {len(plan.members) - 1}")
        members = [plan.members[i] for i in sorted(set(options.fold_indices or range(len(plan.members))))]
        if earlier:
            run.take_over(earlier)
        count = len(members) if overwrite else sum(not member.is_finished for member in members)
        if not count and run.recipe_json.exists():
            _print_finished(members)
            return []
        with ExitStack() as stack:
            executor = _start_executor(stack, plan, count, dataset, options)
            try:
                facts = executor.facts(plan.recipe.precision) | {"commit": commit()}
            except TimeoutError:
                return members
            if overwrite:
                run.clear()
            _begin(plan, facts, dataset, is_shared=split is not None)
            _print_finished(members)
            executor.train(plan, [member for member in members if not member.is_finished])
        return [member for member in members if not member.is_finished]


def _with_recorded_pictures(dataset: Dataset, runs: list[Run], earlier: Run | None) -> Dataset:
    """Returns the data with the pictures that the first of these runs added to it, unless it has added ones."""
    for run in [*runs, *([earlier] if earlier else [])]:
        folder = (run.settings() or {}).get("add")
        if folder and not dataset.added:
            return replace(dataset, added=image_folder.read_added(Path(folder)))
    return dataset


def _print_finished(members: list[Member]) -> None:
    for member in members:
        if member.is_finished:
            (member.folder / "state.npz").unlink(missing_ok=True)  # if it was killed while it finished
            print(f"{describe(member, member.metrics())}, finished before", flush=True)


def _start_executor(stack: ExitStack, plan: Plan, at_once: int, dataset: Dataset, options: TrainingOptions) -> Any:
    """Enters the LocalExecutor or the RayExecutor; at most `at_once` members can train at once.

    By default each of several GPUs trains a member, on Ray. If Ray does not start, a line says why.
    """
    gpus = backend.count_gpus() if options.cluster is None and at_once > 1 else 1
    if gpus > 1:
        on_gpus = replace(options, cluster=ClusterOptions(workers=min(gpus, at_once)))
        try:
            return stack.enter_context(_open_executor(plan, at_once, dataset, on_gpus))
        except Exception as error:  # Ray's exceptions have no common class
            idle = f"{gpus - 1} of {gpus} GPUs ({1 - 1 / gpus:.0%}) stay idle"
            print(f"{idle}, and the folds train one after the other: {error}", flush=True)
    return stack.enter_context(_open_executor(plan, at_once, dataset, options))


def _open_executor(plan: Plan, at_once: int, dataset: Dataset, options: TrainingOptions) -> AbstractContextManager:
    cluster, threads = options.cluster, options.threads or (plan.recorded or {}).get("threads")
    share = max(1, backend.cores() // ((cluster.workers if cluster else 1) or 1))
    if threads not in (None, options.threads, share) and not (cluster and cluster.address):
        advice = f"--threads {share} would use this machine's share"
        print(f"the run was started with {threads} threads a fold; {advice}", flush=True)
    if cluster in (None, ClusterOptions(workers=1)):
        backend.start(threads or share)
        from digit_recognizer.training.local import LocalExecutor  # with Keras

        return nullcontext(LocalExecutor(dataset, threads or share, options.deadline, options.tensorboard))
    return RayExecutor(cluster, dataset, threads, at_once, options.deadline, options.tensorboard)


def _begin(plan: Plan, facts: dict[str, Any], dataset: Dataset, is_shared: bool) -> None:
    """Writes recipe.json, with the facts of this session, and folds.csv: a run holds them before its members.

    Prints what the user may not expect. `is_shared`: several recipes have the same folds.
    """
    run, recipe, recorded = plan.run, plan.recipe, plan.recorded or {}
    usual, shape = named_recipes.named(recipe.name), folds.FIELDS[:-1]  # not the seed
    differing = [f"{name}={getattr(recipe, name)}" for name in shape if getattr(recipe, name) != getattr(usual, name)]
    if differing and not recorded and not is_shared and run.folds_csv.exists():
        print(f"{run.folds_csv} is used as it is: {', '.join(differing)}", flush=True)
    if not run.recipe_json.exists():
        fitted = fit_to_rows(named_recipes.named(recipe.name), dataset)
        values = ", ".join(f"{name}={value}" for name, value in fitted.items() if getattr(recipe, name) == value)
        if values and not dataset.is_sample:
            print(f"{len(dataset.train_labels)} training rows: {values}; --set takes other values", flush=True)
        if dataset.added:
            print(f"{dataset.added_rows} pictures of {dataset.added.folder} join the training rows", flush=True)
        write_json(run.recipe_json, plan.settings | facts)
    # recipe.json keeps the facts of the first session
    if changed := [name for name in facts if name in recorded and recorded[name] != facts[name]]:
        print(f"{run.recipe_json} was started with other {', '.join(changed)}: results may differ a little")
    if not run.folds_csv.exists():
        write_folds(run, plan.split, dataset)
