"""The numbers of a report and of a comparison: intervals, scores, files, the terminal; runs that are still going."""

import dataclasses
import hashlib
import json
import shutil
import sys
from itertools import combinations
from pathlib import Path

import jsonschema
import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom
from sklearn.metrics import log_loss, precision_recall_fscore_support
from test_ensemble import made_up

from digit_recognizer import named_recipes, recipes
from digit_recognizer.data.digits import Dataset, Labels
from digit_recognizer.files import UserError, read_json, write_json
from digit_recognizer.results import analysis, ensemble, watch
from digit_recognizer.results.compare import compare_runs, format_comparison
from digit_recognizer.results.comparison_page import write_comparison
from digit_recognizer.results.evaluation import evaluate
from digit_recognizer.results.page import command, write_page
from digit_recognizer.results.report import format_report, show, write_report
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.plan import SAMPLE_CUTS, open_plan

SCHEMA = Path(ensemble.__file__).with_name("cv_report.schema.json")


def blended(run, labels, runs=None, weighting="equal"):
    ensemble.blend(run, runs or [run], labels, weighting)
    return run


@pytest.fixture
def run(dataset, recipe, tmp_path):
    """Two repeats of two folds, with an ensemble."""
    made = made_up(dataset, recipes.change(recipe, {"repeats": 2}), tmp_path / "run", sharpness=2)
    return blended(made.run, dataset)


def test_report_adds_up(run, dataset):
    result = write_report(run, dataset)
    jsonschema.validate(result, json.loads(SCHEMA.read_text()))
    assert read_json(run.cv_report_json) == result and result["finished"]

    labels, oof = dataset.train_labels, np.load(run.oof_probabilities)
    predicted = oof.argmax(axis=1)
    wrong = predicted != labels
    assert result["overall"]["errors"] == wrong.sum() > 0
    assert result["overall"]["accuracy"] == pytest.approx(1 - wrong.mean())
    loss = log_loss(labels, oof / oof.sum(axis=1, keepdims=True, dtype=float))
    assert result["overall"]["log_loss"] == pytest.approx(loss, abs=1e-6)
    accuracies = [fold["accuracy"] for fold in result["folds"]]
    assert result["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert result["standard_deviation"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert result["seconds"] == 8 and result["test_rows_also_in_train_csv"] == 0 and result["test"] is None

    matrix = np.array(result["confusion_matrix"])
    assert matrix.sum() == 80 and matrix.trace() == 80 - wrong.sum()
    assert all(
        each["rows"] == matrix[each["label"], each["predicted"]] for each in result["worst_confusions"]
    )
    precision, recall, f1, _ = precision_recall_fscore_support(labels, predicted)
    for name, expected in {"precision": precision, "recall": recall, "f1": f1}.items():
        assert [each[name] for each in result["per_digit"]] == pytest.approx(expected)
    # both repeats averaged are the ensemble, and a member less changes what the others do not outvote
    assert [each["splits"] for each in result["gain"]] == [1, 2]
    assert result["gain"][1]["errors"] == wrong.sum()
    assert result["test_gain"][-1]["changed"] == 0 < result["test_gain"][0]["changed"]
    assert sum(result["disagreement"]["dissenters"]) == sum(result["labels"]["predicted"]) == 20
    sure = [each["probability"] for each in result["least_sure"]]
    assert len(sure) == 20 and sure == sorted(sure)


def test_report_tells_whether_the_epochs_were_chosen(run, dataset):
    for member in open_plan(run, dataset).members:
        lines = ["1,1.0,0.5,1.0,0.5,0.1,1.0", "2,1.0,0.5,0.9,0.5,0.1,1.0"]  # the last epoch has a tenth wrong
        folder = run.folder / member.name
        (folder / "history.csv").write_text(
            "\n".join(["epoch,accuracy,loss,val_accuracy,val_loss,learning_rate,seconds", *lines])
        )
    rows = 2 * len(dataset.train_labels)
    result = write_report(run, dataset)
    found = {"rows": rows, "chosen": 4, "predicting": 0, "last": rows // 10, "best": 0}
    assert result["epoch_choice"] == found  # each member predicts with epoch 1
    assert f"which flatters: 0 rows are wrong in these, {rows // 10} in the last" in format_report(result)
    assert "which flatters" in (run.report / "index.html").read_text()
    for path in run.folder.glob("fold_*/metrics.json"):
        write_json(path, read_json(path) | {"best_epoch": 2})
    result = write_report(run, dataset)
    assert result["epoch_choice"] == found | {"chosen": 0, "predicting": rows // 10}
    assert f"the last epochs predict: {rows // 10} rows" in format_report(result)


def test_files_of_a_report(run, dataset):
    result = write_report(run, dataset)
    table = pd.read_csv(run.cv_report_csv, index_col="fold")
    names = [f"fold_{index:02d}" for index in range(4)]
    assert list(table.index) == [*names, "out-of-fold", "mean", "standard deviation"]
    assert table.loc["out-of-fold", "accuracy"] == pytest.approx(result["overall"]["accuracy"])
    pictures = {"curves.png", "learning_rate.png", "confusion_matrix.png", "errors.png"}
    assert {path.name for path in run.report.iterdir()} == pictures | {"index.html"}
    assert all((run.report / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    said, overall, interval = format_report(result), result["overall"], result["interval"]
    assert f"out-of-fold accuracy {overall['accuracy']:.5f}: {overall['errors']} of 80 rows wrong" in said
    assert f"95 % interval {interval['low']:.5f} to {interval['high']:.5f}" in said
    assert "test accuracy" not in said


def test_report_names_what_is_not_finished(run, dataset):
    plan = open_plan(run, dataset)
    for name in ("fold_01", "fold_03"):
        (run.folder / name / "metrics.json").unlink()
    blended(run, dataset)
    result = write_report(run, dataset)
    uncovered = set(plan.members[1].validation_rows) & set(plan.members[3].validation_rows)
    assert result["overall"]["rows"] == 80 - len(uncovered)
    assert result["missing"] == ["fold_01", "fold_03"] and not result["finished"]
    assert "not finished, and not in this: fold_01, fold_03" in format_report(result)
    page = (run.report / "index.html").read_text()
    assert "fold_01 (1 epoch), fold_03 (1 epoch)</p>" in page
    (run.folder / "fold_03" / "history.csv").unlink()
    write_report(run, dataset)
    assert "fold_01 (1 epoch) and 1 member not yet begun</p>" in (run.report / "index.html").read_text()


def test_a_member_that_is_gone_is_no_part_of_a_report(run, dataset):
    """The ensemble's out-of-fold predictions still have it: a report would mix two ensembles."""
    (run.folder / "fold_03" / "metrics.json").unlink()
    with pytest.raises(
        UserError, match=r"fold_03 of the ensemble is not finished: run scripts/ensemble.py again"
    ):
        write_report(run, dataset)


def test_a_report_is_of_the_pictures_that_were_learned(run, dataset):
    other = dataclasses.replace(dataset, train_images=dataset.train_images[:, ::-1])
    with pytest.raises(UserError, match="was trained on other pictures: give the --input"):
        write_report(run, other)


def test_a_missing_out_of_fold_file_is_named(run, dataset):
    run.oof_probabilities.unlink()
    with pytest.raises(
        UserError, match=r"oof_probabilities.npy is missing, damaged, or not of these training rows"
    ):
        write_report(run, dataset)


def test_each_member_has_its_own_device(run, dataset):
    path = run.folder / "fold_01" / "metrics.json"
    write_json(path, read_json(path) | {"device": "another machine"})
    devices = {fold["member"]: fold["device"] for fold in write_report(run, dataset)["folds"]}
    assert devices["fold_01"] == "another machine" != devices["fold_00"]


def test_report_names_what_was_finished_since(run, dataset, recipe, tmp_path):
    path = run.folder / "fold_02" / "metrics.json"
    second = made_up(dataset, recipe, tmp_path / "second", seed=9).run
    metrics = path.read_bytes()
    path.unlink()
    blend = blended(Run(tmp_path / "blend"), dataset, [run, second])
    blended(run, dataset)
    assert write_report(blend, dataset)["missing"] == ["../run/fold_02"]
    path.write_bytes(metrics)
    for each, name in ((run, "fold_02"), (blend, "../run/fold_02")):
        result = write_report(each, dataset)
        jsonschema.validate(result, json.loads(SCHEMA.read_text()))
        assert (result["missing"], result["finished_since"], result["finished"]) == ([], [name], False)
        said = f"{name}: run scripts/ensemble.py again"
        assert f"finished since, and not in this: {said}" in format_report(result)
        assert "not finished" not in format_report(result)
        page = (each.report / "index.html").read_text()
        assert f"<b>Finished since, and not in this:</b> {said}</p>" in page and "Not finished" not in page
    del result["finished_since"]
    assert "finished since" not in format_report(result)  # as earlier versions wrote it


def test_report_of_a_blend(run, dataset, recipe, tmp_path):
    second = made_up(dataset, recipe, tmp_path / "second", seed=9).run
    blend = blended(Run(tmp_path / "blend"), dataset, [run, second])
    result = write_report(blend, dataset)
    assert len(result["folds"]) == 6 and len(result["gain"]) == 3
    assert result["gain"][-1]["errors"] == result["overall"]["errors"]


def test_report_of_a_blend_of_runs_of_other_folds(dataset, recipe, tmp_path):
    runs = [made_up(dataset, recipe, tmp_path / name, sharpness=2, seed=ord(name)).run for name in "abc"]
    for run, name in zip(runs, ("fold_00", "fold_01"), strict=False):
        (run.folder / name / "metrics.json").unlink()
    blend = blended(Run(tmp_path / "blend"), dataset, runs[:2])
    result = write_report(blend, dataset)
    jsonschema.validate(result, json.loads(SCHEMA.read_text()))
    assert result["overall"]["rows"] == 80 and result["gain"] == []
    assert result["overall"]["errors"] == sum(fold["errors"] for fold in result["folds"])
    table = compare_runs([blend, runs[2]], dataset).runs
    assert table["rows"].tolist() == [80, 80] and table["per_row"].tolist() == [1, 1]
    assert table["common_rows"].tolist() == [80, 80]


def test_a_blend_without_a_predicted_row_is_refused(run, dataset, recipe, tmp_path):
    """As an earlier version wrote it."""
    second = made_up(dataset, recipe, tmp_path / "second", seed=9).run
    blend = blended(Run(tmp_path / "blend"), dataset, [run, second])
    np.save(blend.oof_probabilities, np.full((80, 10), np.nan, np.float32))
    message = r"blend/oof_probabilities.npy has no row that a member predicted: run scripts/ensemble.py again"
    for report in (lambda: write_report(blend, dataset), lambda: compare_runs([blend, run], dataset)):
        with pytest.raises(UserError, match=message):
            report()


def test_a_run_that_only_harms_has_no_part_in_the_report(dataset, recipe, csvs, tmp_path, call):
    runs = [
        made_up(dataset, recipe, tmp_path / name, sharpness, seed).run
        for seed, (name, sharpness) in enumerate({"good": 2, "harmful": -4, "other": 2}.items())
    ]
    blend = blended(Run(tmp_path / "blend"), dataset, runs, "oof")
    weights = [each["weight"] for each in read_json(blend.ensemble_json)["members"]]
    assert weights[2:4] == [0, 0] and min(weights[0], weights[4]) > 0
    outcome = call("report", "--input", csvs, "--output", blend.folder)
    assert (outcome.code, outcome.error) == (0, "")
    result = read_json(blend.cv_report_json)
    names = [f"../{name}/fold_0{index}" for name in ("good", "other") for index in range(2)]
    assert [fold["member"] for fold in result["folds"]] == names and len(result["gain"]) == 2


def test_report_of_a_perfect_single_fold(dataset, recipe, tmp_path):
    made = made_up(dataset, recipes.change(recipe, {"holdout": 0.5}), tmp_path / "run", sharpness=99)
    result = write_report(blended(made.run, dataset), dataset)
    jsonschema.validate(result, json.loads(SCHEMA.read_text()))
    assert result["overall"]["errors"] == 0 and result["overall"]["rows"] == 40
    assert result["standard_deviation"]["accuracy"] is None and result["gain"] == result["test_gain"] == []
    assert "most frequent mistakes: none" in format_report(result)


def test_test_rows_with_labels_are_scored_by_the_weights_of_the_ensemble(labelled, recipe, tmp_path):
    runs = [made_up(labelled, recipe, tmp_path / name, seed=seed).run for seed, name in enumerate("ab")]
    blend = blended(Run(tmp_path / "blend"), labelled.labels, runs, "oof")
    result = write_report(blend, labelled)
    weights = [each["weight"] for each in read_json(blend.ensemble_json)["members"]]
    tests = [
        np.load(run.folder / name / "test_probabilities.npy")
        for run in runs
        for name in ("fold_00", "fold_01")
    ]
    mean = np.average(tests, axis=0, weights=weights)
    errors = int((mean.argmax(axis=1) != labelled.test_labels).sum())
    assert (result["test"]["errors"], result["test"]["rows"]) == (errors, 20)
    assert result["test_gain"][-1]["errors"] == errors
    loss = log_loss(labelled.test_labels, mean, labels=range(10))
    assert result["test"]["log_loss"] == pytest.approx(loss, abs=1e-6)
    assert f"test accuracy {1 - errors / 20:.5f}, log loss {loss:.5f}: {errors} of 20" in format_report(
        result
    )
    assert pd.read_csv(blend.cv_report_csv, index_col="fold").loc["test", "errors"] == errors


def test_report_needs_an_ensemble_of_these_rows(run, dataset):
    np.save(run.oof_probabilities, np.ones((3, 10)))
    with pytest.raises(UserError, match="damaged, or not of these training rows"):
        write_report(run, dataset)
    run.ensemble_json.unlink()
    with pytest.raises(UserError, match=r"run scripts/ensemble.py first"):
        write_report(run, dataset)


def test_damaged_history_is_named(run, dataset):
    (run.folder / "fold_01" / "history.csv").write_text("epoch,loss\n1,a\n")
    with pytest.raises(UserError, match=r"fold_01/history.csv is missing or damaged"):
        write_report(run, dataset)


@pytest.mark.parametrize(
    ("name", "contents", "message"),
    [
        (
            "fold_01/metrics.json",
            {"errors": "<b>", "accuracy": 1, "log_loss": 1.0},
            r"metrics.json: errors is no number",
        ),
        ("ensemble.json", {"members": [{"member": 5}]}, r"ensemble.json is damaged"),
        ("ensemble.json", {"members": 5}, r"ensemble.json is damaged"),
        ("submissions.json", {}, r"submissions.json is damaged"),
    ],
)
def test_damaged_files_are_named(run, dataset, name, contents, message):
    write_json(run.folder / name, contents)
    with pytest.raises(UserError, match=message):
        write_report(run, dataset)


@pytest.mark.parametrize("names", [["fold_01"], ["fold_00", "fold_01", "fold_02", "fold_03"]])
def test_a_finished_member_without_an_epoch_has_no_curve(run, dataset, names):
    for name in names:
        path = run.folder / name / "history.csv"
        path.write_text(path.read_text().splitlines()[0] + "\n")
    write_report(run, dataset)
    found = {path.name for path in run.report.glob("*.png")}
    curves = {"curves.png", "learning_rate.png"} if len(names) < 4 else set()
    assert found == {"confusion_matrix.png", "errors.png"} | curves


def test_the_public_score_is_of_the_present_submission(run, dataset):
    record = {"time": "then", "message": "first", "status": "complete", "public_score": 0.98765}
    sent = record | {"sha256": hashlib.sha256(run.submission.read_bytes()).hexdigest()}
    for records, shown in (([record, sent], True), ([sent, record | {"sha256": 64 * "0"}], False)):
        write_json(run.submissions_json, records)
        result = write_report(run, dataset)
        jsonschema.validate(result, json.loads(SCHEMA.read_text()))
        page = (run.report / "index.html").read_text()
        assert ('id="public-score"' in page) == shown and page.count("<td>first</td>") == 2


def test_pages_say_how_rows_are_numbered(run, dataset, recipe, tmp_path):
    write_report(run, dataset)
    both = Run(tmp_path / "both")
    write_comparison(both, [run, made_up(dataset, recipe, tmp_path / "other").run], dataset)
    for home in (run, both):
        page = (home.report / "index.html").read_text()
        assert page.count("Rows are numbered from 0, as in folds.csv.") == 1


def test_a_member_that_diverged_is_shown(run, dataset):
    path = run.folder / "fold_01" / "history.csv"
    table = pd.read_csv(path).assign(loss=np.nan, val_loss=np.inf, val_accuracy=np.nan, learning_rate=0)
    table.to_csv(path, index=False)
    write_report(run, dataset)
    assert "NaN" not in (run.report / "index.html").read_text()


def test_intervals():
    # Wilson's, from Newcombe (1998), table I: 81 of 263, 15 of 148, 0 of 20
    assert analysis.wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert analysis.wilson_interval(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert analysis.wilson_interval(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)
    # where the training rows are many, what is left is the chance of the new rows: that of a binomial
    low, high = analysis.expected_accuracy(10**7, 10**9, 2000)
    assert (low, high) == pytest.approx(binom.ppf([0.025, 0.975], 2000, 0.99) / 2000)


def test_calibration_is_the_distance_of_confidence_and_accuracy():
    probabilities = np.full((100, 10), 0.1 / 9)
    probabilities[:, 3] = 0.9
    labels = np.where(np.arange(100) < 80, 3, 5)
    found = analysis.calibration(labels, probabilities)
    assert found["ece"] == pytest.approx(0.1) and len(found["bins"]) == 1
    assert found["bins"][0]["rows"] == 100 and found["bins"][0]["accuracy"] == 0.8


def test_mislabelled_rows_are_those_that_all_members_contradict():
    sure = np.full((4, 10), 0.01)
    sure[:, 7] = 0.91
    sure[3] = np.nan
    votes = np.array([[7, 7, 7, -1], [7, 2, -1, -1]])
    assert analysis.likely_mislabelled(np.array([1, 1, 1, 1]), sure, votes).tolist() == [0, 2]
    assert analysis.likely_mislabelled(np.array([7, 7, 7, 7]), sure, votes).tolist() == []


# ---- comparison


def test_pairs_are_compared_on_the_rows_that_both_predicted(dataset, recipe, tmp_path):
    good = made_up(dataset, recipe, tmp_path / "good", sharpness=4).run
    poor = made_up(dataset, recipe, tmp_path / "poor", sharpness=1, seed=5)
    (poor.run.folder / "fold_01" / "metrics.json").unlink()  # one fold only; and no ensemble of either
    comparison = compare_runs([good, poor.run], dataset)
    rows, labels = poor.members[0].validation_rows, dataset.train_labels
    wrong = [each[rows].argmax(axis=1) != labels[rows] for each in comparison.probabilities]
    pair = comparison.pairs.iloc[0]
    assert (pair["first"], pair["second"], pair["rows"]) == ("good", "poor", 40)
    only_second, only_first = (wrong[1] & ~wrong[0]).sum(), (wrong[0] & ~wrong[1]).sum()
    assert (pair["only_first"], pair["only_second"]) == (only_first, only_second)
    assert pair["difference"] == wrong[1].sum() - wrong[0].sum() > 0
    assert 0 < pair["low"] < pair["difference"] < pair["high"] and pair["loss_low"] > 0
    discordant = only_first + only_second
    assert pair["p"] == pytest.approx(min(1, 2 * binom.cdf(only_first, discordant, 0.5)))
    losses = [-np.log(each[rows, labels[rows]]) for each in comparison.probabilities.astype(float)]
    assert pair["loss_difference"] == pytest.approx((losses[1] - losses[0]).mean(), abs=1e-6)
    table = comparison.runs
    assert list(table.index) == ["good", "poor"] and list(table["rows"]) == [80, 40]
    assert list(table["common_rows"]) == [40, 40] and list(table["finished"]) == [2, 1]
    assert f"{pair['errors_second']} errors against {pair['errors_first']}: +" in format_comparison(
        comparison
    )


def test_bootstrap_interval_is_that_of_the_mean(dataset, recipe, tmp_path):
    runs = [made_up(dataset, recipe, tmp_path / name, sharpness=1, seed=i).run for i, name in enumerate("ab")]
    pair = compare_runs(runs, dataset)
    losses = [-np.log(each[np.arange(80), dataset.train_labels]) for each in pair.probabilities.astype(float)]
    deviation = (losses[1] - losses[0]).std() / np.sqrt(80)
    line = pair.pairs.iloc[0]
    assert line["loss_high"] - line["loss_low"] == pytest.approx(2 * 1.96 * deviation, rel=0.15)


def test_the_interval_of_a_pair_does_not_depend_on_the_others(dataset, recipe, tmp_path):
    runs = [made_up(dataset, recipe, tmp_path / name, seed=seed).run for seed, name in enumerate("abc")]
    three, two = compare_runs(runs, dataset), compare_runs(runs[1:], dataset)
    assert list(zip(three.pairs["first"], three.pairs["second"], strict=True)) == list(combinations("abc", 2))
    pd.testing.assert_frame_equal(three.pairs.tail(1).reset_index(drop=True), two.pairs)


def test_runs_without_a_row_in_common(dataset, recipe, tmp_path):
    runs = [made_up(dataset, recipe, tmp_path / name).run for name in "ab"]
    for run, name in zip(runs, ("fold_00", "fold_01"), strict=True):
        (run.folder / name / "metrics.json").unlink()
    comparison = write_comparison(Run(tmp_path / "both"), runs, dataset)
    assert comparison.pairs.loc[0, "rows"] == 0 and comparison.runs["common_errors"].isna().all()
    assert "no row in common" in (tmp_path / "both/report/index.html").read_text()
    assert "0 rows that both predicted" in format_comparison(comparison)


def test_what_can_not_be_compared(dataset, recipe, tmp_path):
    run = made_up(dataset, recipe, tmp_path / "run").run
    with pytest.raises(UserError, match="takes two runs or more"):
        compare_runs([run], dataset)
    with pytest.raises(UserError, match="is given twice"):
        compare_runs([run, Run(run.folder / ".." / "run")], dataset)
    with pytest.raises(UserError, match="holds a run: give the comparison an --output of its own"):
        write_comparison(run, [run, run], dataset)
    other = made_up(dataset, recipe, tmp_path / "other").run
    for path in other.folder.glob("fold_*/metrics.json"):
        path.unlink()
    with pytest.raises(UserError, match="no finished fold yet"):
        compare_runs([run, other], dataset)


def test_comparison_by_the_script(dataset, recipe, csvs, tmp_path, call):
    for name in ("x/run", "y/run"):
        (tmp_path / name).parent.mkdir()
        made_up(dataset, recipe, tmp_path / name, seed=len(name))
    runs = [tmp_path / "x/run", tmp_path / "y/run"]
    refused = call("report", *runs, "--input", csvs)
    assert refused.code == 2 and "give --output DIR" in refused.error
    outcome = call("report", *runs, "--input", csvs, "--output", tmp_path / "both")
    assert (outcome.code, outcome.error) == (0, "")
    assert "y/run against x/run, 80 rows that both predicted" in outcome.out
    report = tmp_path / "both" / "report"
    assert list(pd.read_csv(report / "runs.csv")["rows"]) == [80, 80]
    assert pd.read_csv(report / "pairs.csv").loc[0, "rows"] == 80 and (report / "index.html").exists()


# ---- while a run is going on


def test_watch_follows_a_run_to_its_end(dataset, recipe, tmp_path, monkeypatch, capsys):
    run = made_up(dataset, recipe, tmp_path / "run").run
    page = run.report / "index.html"
    hidden = {
        name: (run.folder / name).read_bytes() for name in ("fold_00/metrics.json", "fold_01/metrics.json")
    }
    hidden |= {"recipe.json": run.recipe_json.read_bytes()}
    for name in hidden:
        (run.folder / name).unlink()
    pages = []

    def later(seconds):
        """What a training does while the watch sleeps."""
        pages.append(page.read_text() if page.exists() else "")
        for name in ("recipe.json", "fold_00/metrics.json", "fold_01/metrics.json"):
            if not (run.folder / name).exists():
                (run.folder / name).write_bytes(hidden[name])
                return

    monkeypatch.setattr(watch.time, "sleep", later)
    watch.watch_run(run, dataset, seconds=3)
    assert pages[0] == "" and "No member is finished yet" in pages[1]
    assert "fold_00 (1 epoch), fold_01 (1 epoch)" in pages[1] and 'data-refresh="3"' in pages[1]
    assert "fold_01 (1 epoch)" in pages[2] and "Unfinished." in pages[2]
    assert "Unfinished." not in page.read_text() and not run.cv_report_json.exists()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("waiting for") and said[-1].startswith(
        "2 of 2 members finished, 2 epochs in all"
    )


def test_watch_of_a_comparison_waits_for_a_member_of_each(dataset, recipe, tmp_path, monkeypatch, capsys):
    runs = [made_up(dataset, recipe, tmp_path / name, seed=ord(name)).run for name in "ab"]
    metrics = [runs[1].folder / f"fold_0{index}" / "metrics.json" for index in range(2)]
    contents = [path.read_bytes() for path in metrics]
    for path in metrics:
        path.unlink()
    home, pages = Run(tmp_path / "both"), []

    def later(seconds):
        pages.append((home.report / "index.html").exists())
        number = len(pages) - 1
        metrics[number].write_bytes(contents[number])

    monkeypatch.setattr(watch.time, "sleep", later)
    watch.watch_comparison(home, runs, dataset, seconds=1)
    assert pages == [False, True]
    assert pd.read_csv(home.report / "pairs.csv").loc[0, "rows"] == 80


def test_watch_of_a_blend_waits_for_nothing(run, dataset, recipe, tmp_path, monkeypatch):
    """It has neither folds nor members of its own."""
    second = made_up(dataset, recipe, tmp_path / "second", sharpness=-4, seed=9).run
    blend = blended(Run(tmp_path / "blend"), dataset, [run, second])
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: pytest.fail("it waits"))
    watch.watch_run(blend, dataset)
    page = (blend.report / "index.html").read_text()
    errors = evaluate(blend, dataset).report["overall"]["errors"]
    assert f'id="error-count">{errors}<' in page and "Unfinished." not in page
    watch.watch_comparison(Run(tmp_path / "both"), [blend, run], dataset)
    assert (tmp_path / "both/report/index.html").exists()


def test_watch_of_several_recipes_runs_waits_for_nothing(run, dataset, tmp_path, monkeypatch, capsys):
    board = Run(tmp_path / "board")
    monkeypatch.setattr(
        watch.time, "sleep", lambda seconds: shutil.copytree(run.folder, board.folder / "bn_cnn")
    )
    with pytest.raises(UserError, match="board holds no run"):
        watch.watch_run(board, dataset)
    assert "waiting for" in capsys.readouterr().out  # as long as there was nothing
    monkeypatch.setattr(watch.time, "sleep", lambda seconds: pytest.fail("it waits"))
    with pytest.raises(UserError, match="board holds no run"):
        watch.watch_comparison(Run(tmp_path / "both"), [Run(tmp_path / "nothing"), board], dataset)


# ---- a notebook, and the page's size


def test_show_displays_the_table_and_the_pictures(run, dataset, monkeypatch, capsys):
    shown = []
    module = type("display", (), {"HTML": str, "Image": lambda path, width: path, "display": shown.append})
    monkeypatch.setitem(sys.modules, "IPython", type("IPython", (), {}))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    with pytest.raises(UserError, match=r"run scripts/report.py"):
        show(run.folder)
    write_report(run, dataset)
    show(run.folder)
    assert "<table" in shown[0] and "out-of-fold" in shown[0]
    assert [Path(each).name for each in shown[1:]] == ["curves.png", "confusion_matrix.png", "errors.png"]
    assert "out-of-fold accuracy" in capsys.readouterr().out


def test_command_names_what_differs_from_the_named_recipe(recipe):
    settings = recipes.to_json(recipe) | {"threads": 2, "name": "bn_cnn"}
    assert command(settings) == (
        "python scripts/train.py --recipe bn_cnn --set folds=2 --set holdout=0.0 --set epochs=2 --set batch_size=16 "
        "--threads 2"
    )
    assert command(settings | {"scaling": "; rm -rf ~"}).count("'scaling=; rm -rf ~'") == 1
    assert command(settings | {"name": "blend"}) is None


def test_command_undoes_the_cuts_of_the_sample():
    settings = recipes.to_json(named_recipes.FAST) | {"data": "sample"}
    command_line = "python scripts/train.py --recipe fast"
    assert command(settings) == f"{command_line} --set folds=5 --set epochs=16 --set batch_size=128"
    assert command(settings | SAMPLE_CUTS) == command_line
    assert command(settings | {"data": "competition"}) == command_line


def test_a_page_of_25_members_and_500_errors_is_below_5_mb(recipe, tmp_path):
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (1000, 28, 28), dtype=np.uint8)  # noise: the largest PNG there is
    labels = Labels(
        np.arange(1000).astype(np.uint8) % 10, None, np.arange(40).astype(str), ("Id", "Label"), "competition"
    )
    dataset = Dataset(images, images[:40], labels)
    large = dataclasses.replace(recipe, folds=5, repeats=5)
    run = made_up(dataset, large, tmp_path / "run", sharpness=0.6).run
    rows = [
        dict(zip(pd.read_csv(run.folder / "fold_00/history.csv"), [e, *random.random(6)], strict=True))
        for e in range(1, 51)
    ]
    for path in run.folder.glob("fold_*/history.csv"):
        pd.DataFrame(rows).to_csv(path, index=False)
    write_json(run.submissions_json, [])
    evaluation = evaluate(blended(run, labels), dataset)
    assert evaluation.report["overall"]["errors"] > 500
    write_page(evaluation, dataset)
    assert (run.report / "index.html").stat().st_size < 5e6


def test_the_page_says_where_the_seed_does_not_make_the_folds(run, dataset):
    """As after split.py with another seed."""
    copied = "with a copy of this run's folds.csv in its --output"
    for path in run.folder.glob("fold_*/metrics.json"):  # of an earlier version, which noted no identity
        write_json(path, {name: value for name, value in read_json(path).items() if name != "identity"})
    for seed, told in ((42, False), (7, True)):
        write_json(run.recipe_json, read_json(run.recipe_json) | {"seed": seed})
        write_page(evaluate(run, dataset), dataset)
        page = (run.report / "index.html").read_text()
        assert (copied in page) == told and "The command that trains this again" in page
