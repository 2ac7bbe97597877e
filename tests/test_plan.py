"""What a run is, resolved once, and the holes through which another run's results could come in."""

import shutil

import pandas as pd
import pytest
from conftest import LIGHT, ROOT, THREADS
from kaggle_server import refused

from digit_recognizer import recipes
from digit_recognizer.files import UserError, read_json, write_json
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.plan import identity, make_plan, open_plan
from digit_recognizer.training import backend, session


@pytest.fixture
def run(light, tmp_path):
    """The options for a copy of a finished run, and the copy."""
    csvs, folder = light
    shutil.copytree(folder, tmp_path / "run")
    return ("--input", csvs, "--output", tmp_path / "run"), Run(tmp_path / "run")


def test_a_plan_is_the_run_that_was_trained(run, dataset):
    _, run = run
    opened, made = open_plan(run, dataset), make_plan(run, dataset, None, {})
    assert opened.identity == made.identity == read_json(run.folder / "fold_00/metrics.json")["identity"]
    assert opened.recipe == made.recipe and opened.recipe.name == "dropout_mlp"
    assert [member.name for member in opened.members] == ["fold_00", "fold_01"]
    assert all(member.is_finished for member in opened.members)
    assert opened.recorded["threads"] == THREADS


def test_members_of_another_recipe_are_not_adopted_when_recipe_json_is_missing(run, call):
    options, run = run
    run.recipe_json.unlink()
    before = (run.folder / "fold_00/metrics.json").read_bytes()
    assert refused(call("train", *options, "--recipe", "mlp"), "fold_00 was trained with another recipe")
    assert not run.recipe_json.exists() and (run.folder / "fold_00/metrics.json").read_bytes() == before
    outcome = call("train", *options, *LIGHT)  # of the recipe that they are of they are
    assert outcome.code == 0 and outcome.out.count("finished before") == 2


def test_a_changed_folds_csv_is_refused(run, call):
    """Two rows of a class change folds: all counts stay the same."""
    options, run = run
    table = pd.read_csv(run.folds_csv)
    rows = [table.index[(table["label"] == 3) & (table["repeat_0"] == fold)][0] for fold in (0, 1)]
    table.loc[rows, "repeat_0"] = [1, 0]
    table.to_csv(run.folds_csv, index=False)
    assert refused(call("ensemble", *options), "folds.csv is not the split that this run was trained with")
    assert refused(call("train", *options), "holds a run with split")


def test_fields_are_those_of_the_run_where_they_are_not_asked_for(run, dataset):
    _, run = run
    plan = make_plan(run, dataset, None, {"precision": "float32"})
    assert plan.recipe == recipes.change(open_plan(run, dataset).recipe, {"precision": "float32"})
    # what a machine makes of `auto` is recorded beside it: the next machine makes its own of it
    settings = read_json(run.recipe_json)
    assert settings["precision"] == "auto" and settings["compute_dtype"] == backend.compute_dtype("auto")
    write_json(run.recipe_json, settings | {"compute_dtype": "float16"})
    assert make_plan(run, dataset, None, {}).recipe.precision == "auto"


def test_nothing_is_resolved_before_the_lock_is_held(run, dataset, monkeypatch):
    """Another process may have changed recipe.json and folds.csv until then."""
    _, run = run
    held = []

    def watched(*arguments, **options):
        with pytest.raises(UserError, match="another process"), Run(run.folder).lock():
            pass
        held.append(True)
        return make_plan(*arguments, **options)

    monkeypatch.setattr(session, "make_plan", watched)
    session.train(run.folder, dataset, [None], {})
    assert held == [True]


def test_the_reference_run_is_what_its_members_say():
    folder = ROOT / "output/reference"
    identities = {read_json(path)["identity"] for path in folder.glob("fold_*/metrics.json")}
    assert identities == {identity(read_json(folder / "recipe.json"))}


def test_a_split_of_a_begun_run_stays(run, call):
    options, run = run
    assert call("split", *options).code == 0
    assert refused(call("split", *options, "--folds", 3), "holds a run with split")
    run.recipe_json.unlink()
    assert refused(call("split", *options), "fold_00 was trained with another recipe")
