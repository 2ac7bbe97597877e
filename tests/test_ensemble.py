"""From the members' probabilities to a submission, with probabilities made up here."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from digit_recognizer import recipes
from digit_recognizer.data.folds import fingerprint, members, split, to_csv
from digit_recognizer.data.scores import scores
from digit_recognizer.files import UserError, read_json, write_json
from digit_recognizer.identity import identity
from digit_recognizer.results import ensemble, submission
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.plan import data_settings, open_plan


def made_up(dataset, recipe, folder, sharpness=3.0, seed=0):
    """The plan of a run whose members are right most of the time."""
    random = np.random.default_rng(seed)
    table = split(dataset.train_labels, recipe)
    settings = recipes.to_json(recipe) | data_settings(dataset) | {"split": fingerprint(table)}
    folder.mkdir()
    write_json(folder / "recipe.json", settings)
    to_csv(folder / "folds.csv", table, dataset.train_labels)

    def probabilities(labels):
        logits = random.normal(size=(len(labels), 10)) + sharpness * np.eye(10)[labels]
        return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)

    for fold in members(table):
        path = folder / fold.name
        path.mkdir()
        validation = probabilities(dataset.train_labels[fold.validation_rows])
        np.save(path / "validation_probabilities.npy", validation)
        np.save(
            path / "test_probabilities.npy", probabilities(random.integers(0, 10, len(dataset.test_images)))
        )
        row = {
            "epoch": 1,
            "accuracy": 0.5,
            "loss": 1,
            "val_accuracy": 0.6,
            "val_loss": 0.9,
            "learning_rate": 0.001,
            "seconds": 2,
        }
        pd.DataFrame([row]).to_csv(path / "history.csv", index=False)
        found = scores(dataset.train_labels[fold.validation_rows], validation)
        found |= {"identity": identity(settings), "best_epoch": 1, "epochs": 1, "seconds": 2.0}
        write_json(path / "metrics.json", found)
    return open_plan(Run(folder), dataset)


@pytest.fixture
def plan(dataset, recipe, tmp_path):
    return made_up(dataset, recipes.change(recipe, {"repeats": 2}), tmp_path / "run")


def test_ensemble_is_the_mean_of_its_members(plan, dataset):
    run, folds = plan.run, plan.members
    prediction = ensemble.average_members(plan)
    ensemble.write(run, dataset, [prediction], ensemble.equal_weights([prediction]))

    tests = [np.load(run.folder / fold.name / "test_probabilities.npy") for fold in folds]
    table = pd.read_csv(run.submission)
    assert (table["Label"] == np.mean(tests, axis=0).argmax(axis=1)).all()
    assert list(table.columns) == ["ImageId", "Label"] and list(table["ImageId"]) == list(range(1, 21))
    listed = read_json(run.ensemble_json)
    assert listed["missing"] == [] and [each["member"] for each in listed["members"]] == [
        fold.name for fold in folds
    ]
    assert sum(each["weight"] for each in listed["members"]) == pytest.approx(1)

    oof = np.load(run.oof_probabilities)
    expected = np.zeros((80, 10))
    for fold in folds:
        expected[fold.validation_rows] += np.load(run.folder / fold.name / "validation_probabilities.npy") / 2
    assert oof.dtype == np.float32 and oof == pytest.approx(expected, abs=1e-6)


def test_unfinished_members_are_left_out_and_named(plan, dataset):
    run, folds = plan.run, plan.members
    for name in ("fold_01", "fold_03"):
        (run.folder / name / "metrics.json").unlink()
    prediction = ensemble.average_members(plan)
    assert prediction.missing == ["fold_01", "fold_03"] and len(prediction.members) == 2
    uncovered = set(folds[1].validation_rows) & set(folds[3].validation_rows)
    assert set(np.flatnonzero(np.isnan(prediction.oof).any(axis=1))) == uncovered


def test_nothing_finished(plan, dataset):
    run, folds = plan.run, plan.members
    for fold in folds:
        (run.folder / fold.name / "metrics.json").unlink()
    with pytest.raises(UserError, match="no finished fold yet"):
        ensemble.average_members(plan)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:99]),
        lambda path: np.save(path, np.ones((3, 10))),
        lambda path: np.save(path, np.full((20, 10), np.nan)),
    ],
)
def test_damaged_probabilities_are_named(plan, dataset, damage):
    run = plan.run
    damage(run.folder / "fold_01" / "test_probabilities.npy")
    with pytest.raises(
        UserError, match=r"fold_01/test_probabilities.npy is missing or damaged: delete .*metrics.json"
    ):
        ensemble.average_members(plan)


def test_several_runs_weigh_by_their_members(plan, dataset, recipe, tmp_path):
    first = ensemble.average_members(plan)
    second = ensemble.average_members(made_up(dataset, recipe, tmp_path / "second", seed=9))
    assert ensemble.equal_weights([first, second]) == pytest.approx([4 / 6, 2 / 6])
    blend = Run(tmp_path / "blend")
    blend.folder.mkdir()
    ensemble.write(blend, dataset, [first, second], ensemble.equal_weights([first, second]))
    listed = read_json(blend.ensemble_json)["members"]
    assert [each["weight"] for each in listed] == pytest.approx([1 / 6] * 6)
    tests = [np.load(blend.folder / each["member"] / "test_probabilities.npy") for each in listed]
    assert (pd.read_csv(blend.submission)["Label"] == np.mean(tests, axis=0).argmax(axis=1)).all()


def only(plan, *names):
    """The prediction of a run in which these members alone are finished."""
    for member in plan.members:
        if member.name not in names:
            (plan.run.folder / member.name / "metrics.json").unlink()
    return ensemble.average_members(plan)


def test_runs_of_other_folds_cover_all_rows_together(dataset, recipe, tmp_path):
    """The weights of a row are shared by the runs that cover it; no run at all is no number."""
    whole, part, nothing = (
        made_up(dataset, recipe, tmp_path / name, seed=seed) for seed, name in enumerate(("a", "b", "c"))
    )
    rows = [member.validation_rows for member in part.members]
    first, second = ensemble.average_members(whole), only(part, "fold_01")
    blend = Run(tmp_path / "blend")
    blend.folder.mkdir()
    ensemble.write(blend, dataset, [first, second], np.array([0.75, 0.25]))
    oof = np.load(blend.oof_probabilities)
    assert (oof[rows[0]] == first.oof[rows[0]]).all()
    expected = 0.75 * first.oof[rows[1]] + 0.25 * second.oof[rows[1]]
    assert oof.dtype == np.float32 and oof[rows[1]] == pytest.approx(expected, abs=1e-6)

    third = only(nothing, "fold_00")
    for other, weight, covered in ((third, 0.5, range(80)), (third, 0, rows[1]), (second, 0.5, rows[1])):
        ensemble.write(blend, dataset, [second, other], np.array([1 - weight, weight]))
        found = np.isfinite(np.load(blend.oof_probabilities)).all(axis=1)
        assert np.flatnonzero(found).tolist() == list(covered)


def test_what_a_blend_lacks_is_named_by_its_run(dataset, recipe, tmp_path):
    predictions = [only(made_up(dataset, recipe, tmp_path / name), "fold_00") for name in "ab"]
    blend = Run(tmp_path / "blend")
    blend.folder.mkdir()
    ensemble.write(blend, dataset, predictions, ensemble.equal_weights(predictions))
    assert read_json(blend.ensemble_json)["missing"] == ["../a/fold_01", "../b/fold_01"]


def test_a_blend_is_not_blended_again(plan, dataset, recipe, tmp_path):
    second = made_up(dataset, recipe, tmp_path / "second", seed=9).run
    blend = Run(tmp_path / "blend")
    ensemble.blend(blend, [plan.run, second], dataset, "equal")
    with pytest.raises(UserError, match="blend is a blend itself: name the runs that it was made of"):
        ensemble.blend(Run(tmp_path / "another"), [blend, second], dataset, "equal")


def test_a_run_given_twice_is_refused(plan, dataset, tmp_path):
    same = Run(plan.run.folder / ".." / plan.run.folder.name)
    with pytest.raises(UserError, match="run is given twice"):
        ensemble.blend(Run(tmp_path / "blend"), [plan.run, same], dataset, "equal")
    assert not (tmp_path / "blend").exists()


def test_oof_weights_are_the_best_on_the_rows_validated(dataset, recipe, tmp_path):
    good = ensemble.average_members(made_up(dataset, recipe, tmp_path / "good", sharpness=4))
    poor = ensemble.average_members(made_up(dataset, recipe, tmp_path / "poor", sharpness=1, seed=5))
    labels = dataset.train_labels

    def loss(weight):
        mean = weight * good.oof + (1 - weight) * poor.oof
        return -np.log(mean[np.arange(80), labels]).mean()

    weights = ensemble.oof_weights([good, poor], labels)
    assert weights.sum() == pytest.approx(1) and weights[0] > weights[1] >= 0
    assert loss(weights[0]) == pytest.approx(min(loss(each) for each in np.linspace(0, 1, 1001)), abs=1e-6)


def test_oof_weights_are_as_they_are_printed(dataset, recipe, tmp_path):
    """To four decimals, within the bounds: a run that only harms has none."""
    runs = {"good": 2, "other": 2, "harmful": -4}
    predictions = [
        ensemble.average_members(made_up(dataset, recipe, tmp_path / name, sharpness=sharpness, seed=seed))
        for seed, (name, sharpness) in enumerate(runs.items())
    ]
    weights = ensemble.oof_weights(predictions, dataset.train_labels)
    assert weights[2] == 0 and (weights[:2] > 0).all()
    assert weights == pytest.approx(np.round(weights, 4), abs=1e-12) and weights.sum() == pytest.approx(1)


def test_oof_weights_need_rows_in_common(plan, dataset):
    prediction = ensemble.average_members(plan)
    other = dataclasses.replace(prediction, oof=np.full_like(prediction.oof, np.nan))
    with pytest.raises(UserError, match="no validated row in common"):
        ensemble.oof_weights([prediction, other], dataset.train_labels)


@pytest.mark.parametrize(
    ("probabilities", "message"),
    [
        (np.ones((19, 10)), r"predictions of shape \(19, 10\) for 20 test rows"),
        (np.ones((20, 9)), r"predictions of shape \(20, 9\)"),
        (
            np.where(np.arange(20)[:, None] == 4, np.nan, np.ones((20, 10))),
            "test row 5 has probabilities that are no numbers",
        ),
    ],
)
def test_submission_refuses_what_the_competition_would(dataset, tmp_path, probabilities, message):
    with pytest.raises(UserError, match=message):
        submission.write(tmp_path / "submission.csv", dataset, probabilities)
    assert not [*tmp_path.iterdir()]


def test_submission_has_the_names_and_ids_of_the_competition(dataset, tmp_path):
    ids = np.array([f"img_{number}" for number in range(20)])
    kannada = dataclasses.replace(dataset, ids=ids, columns=("id", "label"))
    submission.write(tmp_path / "s.csv", kannada, np.eye(10)[np.arange(20) % 10])
    assert (tmp_path / "s.csv").read_text().startswith("id,label\nimg_0,0\nimg_1,1\n")


def test_scores():
    probabilities = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], np.float32)
    found = scores(np.array([0, 2]), probabilities)
    assert (found["rows"], found["errors"], found["accuracy"]) == (2, 1, 0.5)
    assert found["log_loss"] == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2)
