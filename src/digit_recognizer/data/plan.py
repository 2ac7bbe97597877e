"""What a run is, resolved once: its directory, recipe, labels, split and members."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from digit_recognizer import named_recipes, recipes
from digit_recognizer.data import folds
from digit_recognizer.data.digits import Dataset, Labels
from digit_recognizer.data.folds import Member
from digit_recognizer.errors import UserError
from digit_recognizer.files import atomic, read_json
from digit_recognizer.identity import identity
from digit_recognizer.recipes import Recipe
from digit_recognizer.run import ANOTHER_OUTPUT, Run

# What the built-in sample cuts a recipe down to, for a training of two or three minutes on two cores. Its folds
# have few rows, so the batches are small: batch normalisation needs some 600 steps to be of use.
SAMPLE_CUTS = {"folds": 3, "epochs": 8, "batch_size": 8}

_LEAVE_OUT = "leave out the options that differ, or train without --resume-from"

# numbers that every metrics.json has, and the report's columns
METRICS = ("accuracy", "log_loss", "errors", "rows", "best_epoch", "epochs", "seconds")


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Plan:
    """A run as every stage takes it; `make_plan` and `open_plan` make one."""

    run: Run
    recipe: Recipe
    labels: Labels
    split: np.ndarray  # int8 (training rows, repeats): the fold in which a row is validated, -1 for never
    members: list[Member]
    settings: dict[str, Any]  # of recipe.json: the recipe, the data and the split
    recorded: (
        dict[str, Any] | None
    )  # recipe.json as it was, of this run or the one it goes on from; None: new
    identity: str  # SHA-256 of what makes the run this run

    def folder(self, member: Member) -> Path:
        """Returns the member's folder in the run directory."""
        return self.run.folder / member.name

    def is_finished(self, member: Member) -> bool:
        """Returns whether the member's metrics.json, the last of its files, is there."""
        return (self.folder(member) / "metrics.json").exists()

    def metrics(self, member: Member) -> dict[str, Any]:
        """Returns the contents of a finished member's metrics.json."""
        return read_metrics(self.folder(member) / "metrics.json")


def read_metrics(path: Path) -> dict[str, Any]:
    """Returns the contents of a finished member's metrics.json; raises UserError where they are damaged."""
    values = read_json(path)
    for name in METRICS:
        if type(values.get(name)) not in (int, float) or not abs(values[name]) < 1e300:
            again = "delete the file and train again; that fold starts over"
            raise UserError(f"{path}: {name} is no number: {again}")
    return values


@dataclass(frozen=True)
class TrainedModel:
    """A member's saved network, and how it takes part in the ensemble."""

    path: Path  # of model.keras
    weight: float
    recipe: Recipe


def make_recipe(
    settings: dict[str, Any] | None, name: str | None, options: dict[str, Any], is_sample: bool
) -> Recipe:
    """Returns the recipe of a run whose recipe.json has these `settings`, None for a new run.

    `name` and the fields of `options` were asked for; None is the run's own recipe, else the default one. The
    built-in sample cuts a new run down. Raises UserError for an unknown name or an impossible value.
    """
    if settings is not None and name in (None, settings.get("name")):
        return recipes.change(recipes.from_json(settings), options)
    recipe = named_recipes.named(name or named_recipes.DEFAULT)
    if is_sample:
        cuts = {field: min(getattr(recipe, field), most) for field, most in SAMPLE_CUTS.items()}
        recipe = recipes.change(recipe, cuts)
    return recipes.change(recipe, options)


def data_settings(dataset: Dataset) -> dict[str, str]:
    """Returns the entries of recipe.json that tell a run on this data from a run on other data."""
    labels = dataset.labels
    return {"data": labels.kind, "fingerprint": dataset.fingerprint(), "labels": labels.fingerprint()}


def make_plan(
    run: Run,
    dataset: Dataset,
    name: str | None,
    options: dict[str, Any],
    *,
    earlier: Run | None = None,
    overwrite: bool = False,
    split: np.ndarray | None = None,
) -> Plan:
    """Resolves what to train in `run`, whose lock has to be held; writes nothing.

    What is not asked for comes from the recipe.json and folds.csv of the run, else of `earlier`.

    Args:
        run: the run directory.
        dataset: to train on.
        name: of the recipe that was asked for, or None.
        options: the recipe's fields that were asked for.
        earlier: a run to go on from, which stays as it is.
        overwrite: resolve as if `run` were empty.
        split: the folds to take, as `folds.split` returns them; None: the run's folds.

    Raises UserError where the options are impossible, or the run is another one.
    """
    known = {each: each.settings() for each in ([] if overwrite else [run]) + ([earlier] if earlier else [])}
    settings = next(filter(None, known.values()), None)
    recipe = make_recipe(settings, name, options, dataset.labels.is_sample)
    if split is None:
        there = next((each.folds_csv for each in known if each.folds_csv.exists()), None)
        train = dataset.labels.train
        split = folds.from_csv(there, train) if there else folds.split(train, recipe)
    recipe = folds.adopt(recipe, split, options)
    entries = recipes.to_json(recipe) | data_settings(dataset) | {"split": folds.fingerprint(split)}
    for each, own in known.items():
        advice = f"{ANOTHER_OUTPUT}, or --overwrite to remove it" if each is run else _LEAVE_OUT
        each.check_settings(own, entries, advice)
        each.check_members(identity(entries), own is not None, advice)
    return Plan(
        run, recipe, dataset.labels, split, folds.members(split), entries, settings, identity(entries)
    )


def open_plan(run: Run, labels: Labels) -> Plan:
    """Returns the plan of a run that train.py made.

    Raises UserError where it is no run, one of other data, or one whose folds.csv has changed since.
    """
    settings = check_data(run, labels)
    recipe = recipes.from_json(settings)
    split = folds.from_csv(run.folds_csv, labels.train)
    if folds.fingerprint(split) != settings.get("split"):
        raise UserError(
            f"{run.folds_csv} is not the split that this run was trained with: put that back, or train anew "
            "with --overwrite"
        )
    run.check_members(identity(settings), True, "move that folder away, or train anew with --overwrite")
    return Plan(run, recipe, labels, split, folds.members(split), settings, settings, identity(settings))


def check_data(run: Run, labels: Labels) -> dict[str, Any]:
    """Returns the contents of recipe.json; raises UserError where `run` is no run or one of other data."""
    settings = run.require_settings()
    for name, value in (("data", labels.kind), ("labels", labels.fingerprint())):
        if settings.get(name, value) != value:  # earlier versions had no fingerprint of the labels
            raise UserError(
                f"{run.folder} holds a run with {name} {str(settings[name])[:12]}, not {value[:12]}: give the --input "
                "that it was trained on, or another --output"
            )
    return settings


def write_folds(plan: Plan) -> None:
    """Writes folds.csv, unless it is there."""
    if not plan.run.folds_csv.exists():
        with atomic(plan.run.folds_csv) as file:
            folds.to_csv(file, plan.split, plan.labels.train)


def split(run: Run, labels: Labels, options: dict[str, Any]) -> None:
    """Writes folds.csv of a run that has no member yet, with the recipe's fields that were asked for.

    Raises UserError if the run was begun with another split or on other data.
    """
    with run.lock():
        settings = run.settings()
        table = folds.split(labels.train, make_recipe(settings, None, options, labels.is_sample))
        if settings:
            check_data(run, labels)
            run.check_settings(settings, {"split": folds.fingerprint(table)})
        else:
            run.check_members("", may_lack_identity=False)
        with atomic(run.folds_csv) as file:
            folds.to_csv(file, table, labels.train)
    for repeat, column in enumerate(table.T):
        sizes = ", ".join(str(size) for size in np.bincount(column[column >= 0]))
        print(f"{run.folds_csv}: repeat {repeat}: {sizes} of {len(table)} rows validated in each fold")
