"""From the folds' probabilities to a submission and a report, with probabilities made up here."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import log_loss

from digit_recognizer import recipes
from digit_recognizer.data.digits import Digits
from digit_recognizer.data.folds import members, split
from digit_recognizer.data.scores import scores
from digit_recognizer.errors import UserError
from digit_recognizer.files import read_json, write_json
from digit_recognizer.results import ensemble, report, submission
from digit_recognizer.run import Run


def made_up(dataset, recipe, folder, sharpness=3.0, seed=0):
    """A run whose members are right most of the time."""
    random = np.random.default_rng(seed)
    folds = members(split(dataset.labels.train, recipe))

    def probabilities(labels):
        logits = random.normal(size=(len(labels), 10)) + sharpness * np.eye(10)[labels]
        return (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).astype(np.float32)

    for fold in folds:
        path = folder / fold.name
        path.mkdir(parents=True)
        validation = probabilities(dataset.labels.train[fold.validation_rows])
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
        found = scores(dataset.labels.train[fold.validation_rows], validation)
        write_json(path / "metrics.json", found | {"best_epoch": 1, "epochs": 1, "seconds": 2.0})
    return Run(folder), folds


@pytest.fixture
def run(dataset, recipe, tmp_path):
    return made_up(dataset, recipes.change(recipe, {"repeats": 2}), tmp_path / "run")


def test_ensemble_is_the_mean_of_its_members(run, dataset):
    run, folds = run
    prediction = ensemble.predict(run, folds, dataset)
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


def test_unfinished_members_are_left_out_and_named(run, dataset):
    run, folds = run
    for name in ("fold_01", "fold_03"):
        (run.folder / name / "metrics.json").unlink()
    prediction = ensemble.predict(run, folds, dataset)
    assert prediction.missing == ["fold_01", "fold_03"] and len(prediction.members) == 2
    uncovered = set(folds[1].validation_rows) & set(folds[3].validation_rows)
    assert set(np.flatnonzero(np.isnan(prediction.oof).any(axis=1))) == uncovered
    ensemble.write(run, dataset, [prediction], np.ones(1))
    result = report.write(run, dataset)
    assert result["overall"]["rows"] == 80 - len(uncovered) and result["missing"] == ["fold_01", "fold_03"]
    assert "not finished, and not in this: fold_01, fold_03" in report.text(result)


def test_nothing_finished(run, dataset):
    run, folds = run
    for fold in folds:
        (run.folder / fold.name / "metrics.json").unlink()
    with pytest.raises(UserError, match="no finished fold yet"):
        ensemble.predict(run, folds, dataset)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.unlink(),
        lambda path: path.write_bytes(path.read_bytes()[:99]),
        lambda path: np.save(path, np.ones((3, 10))),
        lambda path: np.save(path, np.full((20, 10), np.nan)),
    ],
)
def test_damaged_probabilities_are_named(run, dataset, damage):
    run, folds = run
    damage(run.folder / "fold_01" / "test_probabilities.npy")
    with pytest.raises(
        UserError, match=r"fold_01/test_probabilities.npy is missing or damaged: delete .*metrics.json"
    ):
        ensemble.predict(run, folds, dataset)


def test_several_runs_weigh_by_their_members(run, dataset, recipe, tmp_path):
    first = ensemble.predict(*run, dataset)
    second = ensemble.predict(*made_up(dataset, recipe, tmp_path / "second", seed=9), dataset)
    assert ensemble.equal_weights([first, second]) == pytest.approx([4 / 6, 2 / 6])
    blend = Run(tmp_path / "blend")
    blend.folder.mkdir()
    ensemble.write(blend, dataset, [first, second], ensemble.equal_weights([first, second]))
    listed = read_json(blend.ensemble_json)["members"]
    assert [each["weight"] for each in listed] == pytest.approx([1 / 6] * 6)
    tests = [np.load(blend.folder / each["member"] / "test_probabilities.npy") for each in listed]
    assert (pd.read_csv(blend.submission)["Label"] == np.mean(tests, axis=0).argmax(axis=1)).all()
    assert len(report.write(blend, dataset)["folds"]) == 6


def test_oof_weights_are_the_best_on_the_rows_validated(dataset, recipe, tmp_path):
    good = ensemble.predict(*made_up(dataset, recipe, tmp_path / "good", sharpness=4), dataset)
    poor = ensemble.predict(*made_up(dataset, recipe, tmp_path / "poor", sharpness=1, seed=5), dataset)
    labels = dataset.labels.train

    def loss(weight):
        mean = weight * good.oof + (1 - weight) * poor.oof
        return -np.log(mean[np.arange(80), labels]).mean()

    weights = ensemble.oof_weights([good, poor], labels)
    assert weights.sum() == pytest.approx(1) and weights[0] > weights[1] >= 0
    assert loss(weights[0]) == pytest.approx(min(loss(each) for each in np.linspace(0, 1, 1001)), abs=1e-6)


def test_oof_weights_need_rows_in_common(run, dataset):
    prediction = ensemble.predict(*run, dataset)
    other = dataclasses.replace(prediction, oof=np.full_like(prediction.oof, np.nan))
    with pytest.raises(UserError, match="no validated row in common"):
        ensemble.oof_weights([prediction, other], dataset.labels.train)


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
    kannada = dataclasses.replace(
        dataset, test=Digits(dataset.test_images, None, ids), columns=("id", "label")
    )
    submission.write(tmp_path / "s.csv", kannada, np.eye(10)[np.arange(20) % 10])
    assert (tmp_path / "s.csv").read_text().startswith("id,label\nimg_0,0\nimg_1,1\n")


def test_report_adds_up(run, dataset):
    run, folds = run
    prediction = ensemble.predict(run, folds, dataset)
    ensemble.write(run, dataset, [prediction], np.ones(1))
    result = report.write(run, dataset)
    oof = np.load(run.oof_probabilities)
    wrong = oof.argmax(axis=1) != dataset.labels.train
    assert result["overall"]["accuracy"] == pytest.approx(1 - wrong.mean())
    loss = log_loss(dataset.labels.train, oof / oof.sum(axis=1, keepdims=True, dtype=float))
    assert result["overall"]["log_loss"] == pytest.approx(loss, abs=1e-6)
    accuracies = [fold["accuracy"] for fold in result["folds"]]
    assert result["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert result["standard_deviation"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert (
        0
        < sum(each["rows"] for each in result["worst_confusions"])
        <= wrong.sum()
        == result["overall"]["errors"]
    )
    assert result["test_rows_also_in_train_csv"] == 0 and result["seconds"] == 8
    assert read_json(run.cv_report_json) == result
    assert result["test"] is None and "test accuracy" not in report.text(result)

    table = pd.read_csv(run.cv_report_csv, index_col="fold")
    assert list(table.index) == [*(fold.name for fold in folds), "out-of-fold", "mean", "standard deviation"]
    assert table.loc["out-of-fold", "accuracy"] == pytest.approx(result["overall"]["accuracy"])
    assert f"out-of-fold accuracy {1 - wrong.mean():.5f}" in report.text(result)
    pictures = {path.name for path in run.report.iterdir()}
    assert pictures == {"curves.png", "learning_rate.png", "confusion_matrix.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in run.report.iterdir())


def test_report_of_a_perfect_single_fold(dataset, recipe, tmp_path):
    run, folds = made_up(dataset, recipes.change(recipe, {"holdout": 0.5}), tmp_path / "run", sharpness=99)
    prediction = ensemble.predict(run, folds, dataset)
    ensemble.write(run, dataset, [prediction], np.ones(1))
    result = report.write(run, dataset)
    assert result["overall"]["errors"] == 0 and result["overall"]["rows"] == 40
    assert result["standard_deviation"]["accuracy"] is None
    assert "most frequent mistakes: none" in report.text(result)


def test_test_rows_with_labels_are_scored_by_the_weights_of_the_ensemble(dataset, labelled, recipe, tmp_path):
    folders = [made_up(dataset, recipe, tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    predictions = [ensemble.predict(*each, labelled) for each in folders]
    blend = Run(tmp_path / "blend")
    blend.folder.mkdir()
    ensemble.write(blend, labelled, predictions, np.array([0.9, 0.1]))
    result = report.write(blend, labelled)

    tests = [
        np.load(run.folder / fold.name / "test_probabilities.npy") for run, folds in folders for fold in folds
    ]
    mean = np.average(tests, axis=0, weights=[0.45, 0.45, 0.05, 0.05])
    errors = int((mean.argmax(axis=1) != labelled.test.labels).sum())
    assert result["test"]["errors"] == errors and result["test"]["rows"] == 20
    assert result["test"]["accuracy"] == pytest.approx(1 - errors / 20)
    loss = log_loss(labelled.test.labels, mean, labels=range(10))
    assert result["test"]["log_loss"] == pytest.approx(loss, abs=1e-6)
    assert f"test accuracy {1 - errors / 20:.5f}, log loss {loss:.5f}: {errors} of 20 rows" in report.text(
        result
    )
    assert pd.read_csv(blend.cv_report_csv, index_col="fold").loc["test", "errors"] == errors
    assert read_json(blend.cv_report_json) == result


def test_report_needs_an_ensemble_of_these_rows(run, dataset):
    run, folds = run
    with pytest.raises(UserError, match=r"run scripts/ensemble.py first"):
        report.write(run, dataset)
    prediction = ensemble.predict(run, folds, dataset)
    ensemble.write(run, dataset, [prediction], np.ones(1))
    np.save(run.oof_probabilities, np.ones((3, 10)))
    with pytest.raises(UserError, match="is not of these training rows"):
        report.write(run, dataset)


def test_scores():
    probabilities = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]], np.float32)
    found = scores(np.array([0, 2]), probabilities)
    assert (found["rows"], found["errors"], found["accuracy"]) == (2, 1, 0.5)
    assert found["log_loss"] == pytest.approx(-(np.log(0.5) + np.log(0.1)) / 2)
