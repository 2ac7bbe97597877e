"""What a run trains, resolved once: its recipe, split and members, and the check that files belong to the run."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from digit_recognizer import named_recipes, recipes
from digit_recognizer.data import folds
from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import UserError, atomic, read_json
from digit_recognizer.runs.directory import Run, is_blend
from digit_recognizer.runs.member import Member, state_facts

# What the built-in sample cuts a recipe down to, for a training of a minute on two cores.
SAMPLE_CUTS = {"folds": 3, "epochs": 8, "batch_size": 32}

# For few pictures in folders: small batches, and enough epochs to show the network that many pictures.
_FEW, _BATCH_SIZE, _SEEN = 5000, 32, 10_000  # rows

# Fields of a recipe in which two runs may differ and still be the same run. Another precision rounds otherwise, and
# another machine may have to continue with it.
_NOT_IDENTIFYING = ("citation", "reported_accuracy", "precision")

_ADDED = "added pictures"  # in recipe.json: the SHA-256 of them
_ANOTHER_OUTPUT = "take another --output"


@dataclass(frozen=True, eq=False)  # arrays do not compare
class Plan:
    """A run as every stage takes it. `make_plan` makes that of a training, `open_plan` that of an existing run."""

    run: Run
    recipe: recipes.Recipe
    split: np.ndarray  # int8 (training rows, repeats): the fold in which a row is validated, -1 for never
    members: list[Member]
    settings: dict[str, Any]  # of recipe.json: the recipe, the data and the split
    recorded: dict[str, Any] | None  # recipe.json as it is in this run or in the one it continues; None: new

    @property
    def identity(self) -> str:
        """The SHA-256 of what makes the run this run; its members record it."""
        return identity(self.settings)

    @property
    def finished(self) -> int:
        """The number of finished members."""
        return sum(member.is_finished for member in self.members)


def identity(settings: dict[str, Any]) -> str:
    """Returns the SHA-256 of the recipe, the data and the split; `settings` are the contents of recipe.json."""
    entries = {name: value for name, value in _identifying(settings).items() if value is not None}
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _identifying(settings: dict[str, Any]) -> dict[str, Any]:
    """The entries of recipe.json that tell runs apart; the name is first, because it explains the others."""
    names = [name for name in recipes.Recipe.__dataclass_fields__ if name not in _NOT_IDENTIFYING]
    return {name: settings.get(name) for name in (*names, "data", "fingerprint", _ADDED, "split")}


def refuse_another_run(
    run: Run, known: dict[str, Any] | None, wanted: dict[str, Any], advice: str = _ANOTHER_OUTPUT
) -> None:
    """Raises UserError, with the first difference and the `advice`, if the directory belongs to another run.

    `known` are the contents of its recipe.json, None if there is none, `wanted` those, or some, of the run asked for.
    """
    for name, value in _identifying(known or wanted).items():
        if name in wanted and value != wanted[name]:
            texts = ("none" if entry is None else recipes.format_value(entry) for entry in (value, wanted[name]))
            known_text, wanted_text = (text[:12] if re.fullmatch("[0-9a-f]{64}", text) else text for text in texts)
            raise UserError(f"{run.folder} holds a run with {name} {known_text}, not {wanted_text}: {advice}")


def refuse_other_members(run: Run, own: str, advice: str = _ANOTHER_OUTPUT) -> None:
    """Raises UserError if a member, finished or not, has another identity than the run's `own`."""
    identities = {path: read_json(path).get("identity") for path in run.folder.glob("fold_*/metrics.json")}
    for path in run.folder.glob("fold_*/state.npz"):
        if facts := state_facts(path):  # a damaged state is started over
            identities[path] = facts.get("identity")
    for path in sorted(identities):
        if identities[path] != own:
            raise UserError(f"{path.parent} was trained with another recipe, split or data: {advice}")


def fit_to_rows(recipe: recipes.Recipe, dataset: Dataset) -> dict[str, Any]:
    """Returns the fields to change in a recipe for the built-in sample or for few pictures in folders."""
    fields, rows = {}, len(dataset.train_labels)
    if dataset.is_sample:
        fields = {name: min(getattr(recipe, name), most) for name, most in SAMPLE_CUTS.items()}
    elif dataset.kind == "folder" and rows < _FEW:
        epochs = max(recipe.epochs, -(-_SEEN // rows))
        fields = {"epochs": epochs, "batch_size": min(recipe.batch_size, _BATCH_SIZE)}
    return {name: value for name, value in fields.items() if value != getattr(recipe, name)}


def make_recipe(
    settings: dict[str, Any] | None, name: str | None, options: dict[str, Any], dataset: Dataset
) -> recipes.Recipe:
    """Returns the recipe of a run with these contents of recipe.json, None for a new one, which `fit_to_rows` fits.

    `name` and `options` are the recipe and the fields that were asked for; a name of None is that of the run, else the
    default one. Raises UserError for an unknown name or an impossible value.
    """
    if settings is not None and is_blend(settings):
        raise UserError(f"--output holds a blend of runs, not the run of one recipe: {_ANOTHER_OUTPUT}")
    if settings is not None and name in (None, settings.get("name")):
        return recipes.change(recipes.from_json(settings), options)
    recipe = named_recipes.named(name or named_recipes.DEFAULT)
    return recipes.change(recipes.change(recipe, fit_to_rows(recipe, dataset)), options)


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
    """Returns what to train in `run`, whose lock has to be held; writes nothing.

    `name` and `options` are the recipe and the fields that were asked for. The rest comes from the recipe.json and
    folds.csv of `run`, unless it is to `overwrite`, else of `earlier`, a run to continue from. `split` are folds to
    train on, None: the run's. Raises UserError if the options are impossible, or if the directory holds another run.
    """
    sources = ([] if overwrite else [run]) + ([earlier] if earlier else [])
    recorded = {source: source.settings() for source in sources}
    settings = next(filter(None, recorded.values()), None)
    recipe = make_recipe(settings, name, options, dataset)
    if split is None:
        folds_csv = next((source.folds_csv for source in sources if source.folds_csv.exists()), None)
        labels = dataset.train_labels
        split = folds.from_csv(folds_csv, labels) if folds_csv else folds.split(labels, recipe)
    recipe = folds.adopt(recipe, split, options)
    entries = recipes.to_json(recipe) | _data_settings(dataset) | {"split": folds.fingerprint(split)}
    if dataset.added:
        entries |= {"add": str(dataset.added.folder.resolve()), _ADDED: dataset.added.fingerprint}
    for source, known in recorded.items():
        advice = f"{_ANOTHER_OUTPUT}, or --overwrite to remove it"
        if source is earlier:
            advice = "leave out the options that differ, or train without --resume-from"
        refuse_another_run(source, known, {_ADDED: None} | entries, advice)
        refuse_other_members(source, identity(entries), advice)
    return Plan(run, recipe, split, make_members(split, run.folder), entries, settings)


def open_plan(run: Run, dataset: Dataset) -> Plan:
    """Returns the plan of a run; raises UserError if there is none, if it is of other data, or if folds.csv changed."""
    settings = check_data(run, dataset)
    split = folds.from_csv(run.folds_csv, dataset.train_labels)
    if folds.fingerprint(split) != settings.get("split"):
        problem = f"{run.folds_csv} is not the split that this run was trained with"
        raise UserError(f"{problem}: restore it, or train anew with --overwrite")
    refuse_other_members(run, identity(settings), "move that folder away, or train anew with --overwrite")
    return Plan(run, recipes.from_json(settings), split, make_members(split, run.folder), settings, settings)


def make_members(split: np.ndarray, folder: Path) -> list[Member]:
    """Returns the members that a split makes, in the order of their index; `folder` is the run directory."""
    members: list[Member] = []
    for repeat, column in enumerate(split.T):
        for fold in range(int(split.max()) + 1):
            index, validated = len(members), column == fold
            rows = np.flatnonzero(~validated), np.flatnonzero(validated)
            members.append(Member(repeat, fold, index, *rows, folder / f"fold_{index:02d}"))
    return members


def _data_settings(dataset: Dataset) -> dict[str, str]:
    return {"data": dataset.kind, "fingerprint": dataset.fingerprint}


def check_data(run: Run, dataset: Dataset) -> dict[str, Any]:
    """Returns the contents of recipe.json; raises UserError if `run` is no run, or one of other data."""
    settings = run.require_settings()
    advice = "give the --input that it was trained on, or another --output"
    refuse_another_run(run, settings, _data_settings(dataset), advice)
    return settings


def write_folds(run: Run, split: np.ndarray, dataset: Dataset) -> None:
    """Writes folds.csv."""
    with atomic(run.folds_csv) as file:
        folds.to_csv(file, split, dataset.train_labels)


def split_rows(run: Run, dataset: Dataset, options: dict[str, Any]) -> None:
    """Writes folds.csv for these fields; raises UserError if the run has begun with another split or other data."""
    with run.lock():
        settings = run.settings()
        split = folds.split(dataset.train_labels, make_recipe(settings, None, options, dataset))
        if settings:
            check_data(run, dataset)
            refuse_another_run(run, settings, {"split": folds.fingerprint(split)})
        else:
            refuse_other_members(run, "")
        write_folds(run, split, dataset)
    for repeat, column in enumerate(split.T):
        sizes = ", ".join(str(size) for size in np.bincount(column[column >= 0]))
        print(f"{run.folds_csv}: repeat {repeat}: {sizes} of {len(split)} rows validated in each fold")
