"""From the members' probabilities to a submission; the probabilities are made up here."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from digit_recognizer import recipes
from digit_recognizer.data.folds import fingerprint, split
from digit_recognizer.files import UserError, read_json, write_array, write_json
from digit_recognizer.results import ensemble
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.member import HISTORY, scores
from digit_recognizer.runs.plan import identity, make_members, open_plan, write_folds

EPOCH = dict(zip(HISTORY, (1, 0.5, 1.0, 0.6, 0.9, 0.001, 2.0), strict=True))  # a line of history.csv


def write_history(member, *lines):
    """Writes history.csv with a line for each change of EPOCH."""
    table = [EPOCH | {"epoch": number} | line for number, line in enumerate(lines, start=1)]
    pd.DataFrame(table, columns=HISTORY).to_csv(member.folder / "history.csv", index=False)


def made_up(dataset, recipe, folder, sharpness=3.0, seed=0) -> Run:
    """A run whose members are right most of the time."""
    random, run, rows = np.random.default_rng(seed), Run(folder), split(dataset.train_labels, recipe)
    settings = recipes.to_json(recipe) | {"data": dataset.kind, "fingerprint": dataset.fingerprint}
    settings |= {"split": fingerprint(rows)}
    folder.mkdir()
    write_json(run.recipe_json, settings)
    write_folds(run, rows, dataset)

    def probabilities(labels):
        logits = random.normal(size=(len(labels), 10)) + sharpness * np.eye(10)[labels]
        return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)

    for member in make_members(rows, folder):
        member.folder.mkdir()
        labels = dataset.train_labels[member.validation_rows]
        validation, test = probabilities(labels), probabilities(random.integers(0, 10, len(dataset.ids)))
        write_array(member.folder / "validation_probabilities.npy", validation)
        write_array(member.folder / "test_probabilities.npy", test)
        write_history(member, {})
        metrics = {"identity": identity(settings), "best_epoch": 1, "epochs": 1, "seconds": 2.0}
        write_json(member.folder / "metrics.json", scores(labels, validation) | metrics)
    return run


def members_of(run, dataset):
    return open_plan(run, dataset).members


def unfinish(run, *names):
    """Makes members unfinished, and returns what makes them finished again."""
    paths = [run.folder / name / "metrics.json" for name in names]
    contents = {path: path.read_bytes() for path in paths}
    for path in paths:
        path.unlink()
    return contents


def blended(run, dataset, runs=None, weighting="equal") -> Run:
    """The run with what ensemble.py writes: of its own members, or of those of other runs."""
    ensemble.blend(run, runs or [run], dataset, weighting)
    return run


@pytest.fixture
def run(dataset, recipe, tmp_path):
    """Two repeats of two folds."""
    return made_up(dataset, recipes.change(recipe, {"repeats": 2}), tmp_path / "run")


def test_ensemble_is_the_mean_of_its_members(run, dataset):
    blended(run, dataset)
    members = members_of(run, dataset)
    tests = [np.load(member.folder / "test_probabilities.npy") for member in members]
    table = pd.read_csv(run.submission)
    assert (table["Label"] == np.mean(tests, axis=0).argmax(axis=1)).all()
    assert list(table.columns) == ["ImageId", "Label"] and list(table["ImageId"]) == list(range(1, 21))
    listed = read_json(run.ensemble_json)
    assert listed["missing"] == [] and listed["members"] == [
        {"member": f"fold_0{index}", "weight": 0.25} for index in range(4)
    ]

    oof, expected = np.load(run.oof_probabilities), np.zeros((80, 10))
    for member in members:
        expected[member.validation_rows] += np.load(member.folder / "validation_probabilities.npy") / 2
    assert oof.dtype == np.float32 and oof == pytest.approx(expected, abs=1e-6)


def test_damaged_probabilities_are_named(run, dataset):
    blended(run, dataset)  # has read the file before
    path = run.folder / "fold_01" / "test_probabilities.npy"
    for damaged in (np.ones((3, 10)), np.full((20, 10), np.nan)):
        write_array(path, damaged)
        with pytest.raises(UserError, match=r"fold_01/test_probabilities.npy is damaged .*: delete .*metrics.json"):
            blended(run, dataset)
    path.unlink()
    with pytest.raises(UserError, match=r"fold_01/test_probabilities.npy is missing: delete .*metrics.json"):
        blended(run, dataset)


def test_several_runs_weigh_by_their_members(run, dataset, recipe, tmp_path):
    second = made_up(dataset, recipe, tmp_path / "second", seed=9)
    blend = blended(Run(tmp_path / "blend"), dataset, [run, second])
    listed = read_json(blend.ensemble_json)["members"]
    assert [line["weight"] for line in listed] == pytest.approx([1 / 6] * 6)
    tests = [np.load(blend.folder / line["member"] / "test_probabilities.npy") for line in listed]
    assert (pd.read_csv(blend.submission)["Label"] == np.mean(tests, axis=0).argmax(axis=1)).all()
    with pytest.raises(UserError, match="blend is a blend itself: name the runs that it was made of"):
        blended(Run(tmp_path / "another"), dataset, [blend, second])
    same = Run(run.folder / ".." / run.folder.name)
    with pytest.raises(UserError, match="run is given twice"):
        blended(Run(tmp_path / "another"), dataset, [run, same])
    assert not (tmp_path / "another").exists()


def test_runs_of_other_folds_cover_all_rows_together(dataset, recipe, tmp_path):
    """The runs that cover a row share its weight; a row that no run covers is NaN."""
    whole, part, other = (
        made_up(dataset, recipe, tmp_path / name, seed=seed) for seed, name in enumerate(("whole", "part", "other"))
    )
    rows = [member.validation_rows for member in members_of(part, dataset)]
    unfinish(part, "fold_00")
    unfinish(other, "fold_01")
    first, second, third = (ensemble.average_members(run, dataset) for run in (whole, part, other))
    blend = Run(tmp_path / "blend")
    blend.folder.mkdir()
    ensemble.write(blend, [first, second], np.array([0.75, 0.25]))
    assert read_json(blend.ensemble_json)["missing"] == ["../part/fold_00"]
    oof = np.load(blend.oof_probabilities)
    assert (oof[rows[0]] == first.oof[rows[0]]).all()
    expected = 0.75 * first.oof[rows[1]] + 0.25 * second.oof[rows[1]]
    assert oof.dtype == np.float32 and oof[rows[1]] == pytest.approx(expected, abs=1e-6)
    for prediction, weight, covered in ((third, 0.5, range(80)), (third, 0, rows[1]), (second, 0.5, rows[1])):
        ensemble.write(blend, [second, prediction], np.array([1 - weight, weight]))
        is_covered = np.isfinite(np.load(blend.oof_probabilities)).all(axis=1)
        assert np.flatnonzero(is_covered).tolist() == list(covered)


def test_oof_weights_are_the_best_on_the_rows_validated(dataset, recipe, tmp_path):
    """They have four decimals, and a run that only harms has the weight 0."""
    runs = {
        name: made_up(dataset, recipe, tmp_path / name, size) for name, size in (("good", 4), ("poor", 1), ("bad", -4))
    }
    good, poor, bad = (ensemble.average_members(run, dataset) for run in runs.values())
    rows, labels = np.arange(80), dataset.train_labels

    def loss(weight):
        return -np.log((weight * good.oof + (1 - weight) * poor.oof)[rows, labels]).mean()

    weights = ensemble.oof_weights([good, poor, bad], labels)
    assert weights[0] > weights[1] >= weights[2] == 0
    assert weights == pytest.approx(np.round(weights, 4), abs=1e-12) and weights.sum() == pytest.approx(1)
    assert loss(weights[0]) == pytest.approx(min(map(loss, np.linspace(0, 1, 1001))), abs=1e-6)
    nothing = dataclasses.replace(good, oof=np.full_like(good.oof, np.nan))
    with pytest.raises(UserError, match="no validated row in common"):
        ensemble.oof_weights([good, nothing], labels)


def test_submission_has_the_names_and_ids_of_the_competition(dataset, recipe, tmp_path):
    ids = np.array([f"img_{number}" for number in range(20)])
    kannada = dataclasses.replace(dataset, ids=ids, columns=("id", "label"))
    lines = blended(made_up(kannada, recipe, tmp_path / "run"), kannada).submission.read_text().splitlines()
    assert lines[0] == "id,label" and [line.partition(",")[0] for line in lines[1:]] == list(ids)
