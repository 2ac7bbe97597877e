"""The numbers of a report and of a comparison: intervals, scores, files, the terminal; runs in training."""

import dataclasses
import hashlib
import re
import shutil
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from kaggle_server import refused
from scipy.stats import binom
from sklearn.metrics import log_loss, precision_recall_fscore_support
from test_ensemble import blended, made_up, members_of, unfinish, write_history

from digit_recognizer import named_recipes, recipes
from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import UserError, read_json, write_array, write_json
from digit_recognizer.results import charts, report
from digit_recognizer.results.compare import compare_runs, format_comparison
from digit_recognizer.results.ensemble import open_ensemble
from digit_recognizer.results.evaluation import evaluate
from digit_recognizer.results.page import command, write_comparison
from digit_recognizer.results.report import format_report, write_report
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.member import METRICS


@pytest.fixture
def run(dataset, recipe, tmp_path):
    """Two repeats of two folds, with an ensemble."""
    made = made_up(dataset, recipes.change(recipe, {"repeats": 2}), tmp_path / "run", sharpness=2)
    return blended(made, dataset)


@pytest.fixture
def second(dataset, recipe, tmp_path):
    return made_up(dataset, recipe, tmp_path / "second", seed=9)


def page_of(run) -> str:
    return (run.report / "index.html").read_text()


def test_report_adds_up(run, dataset):
    path = run.folder / "fold_01" / "metrics.json"
    write_json(path, read_json(path) | {"device": "another machine"})
    result = write_report(run, dataset)
    assert read_json(run.cv_report_json) == result and result["finished"]
    assert {path.name for path in run.report.iterdir()} == {
        *("curves.png", "confusion_matrix.png", "errors.png"),
        "index.html",
    }

    labels, oof = dataset.train_labels, np.load(run.oof_probabilities)
    predicted = oof.argmax(axis=1)
    wrong, overall = predicted != labels, result["overall"]
    assert overall["errors"] == wrong.sum() > 0 and overall["accuracy"] == pytest.approx(1 - wrong.mean())
    loss = log_loss(labels, oof / oof.sum(axis=1, keepdims=True, dtype=float))
    assert overall["log_loss"] == pytest.approx(loss, abs=1e-6)
    accuracies = [fold["accuracy"] for fold in result["folds"]]
    assert result["mean"]["accuracy"] == pytest.approx(np.mean(accuracies))
    assert result["standard_deviation"]["accuracy"] == pytest.approx(np.std(accuracies, ddof=1))
    assert result["seconds"] == 8 and result["test_rows_also_in_train_csv"] == 0 and result["test"] is None
    assert [fold["device"] for fold in result["folds"]] == ["", "another machine", "", ""]
    table = pd.read_csv(run.cv_report_csv, index_col="fold")
    names = [f"fold_{index:02d}" for index in range(4)]
    assert list(table.index) == [*names, "out-of-fold", "mean", "standard deviation"]
    assert table.loc["out-of-fold", "accuracy"] == pytest.approx(overall["accuracy"])

    matrix = np.array(result["confusion_matrix"])
    assert matrix.sum() == 80 and matrix.trace() == 80 - wrong.sum()
    for pair in result["worst_confusions"]:
        assert pair["rows"] == matrix[pair["label"], pair["predicted"]]
    scores = precision_recall_fscore_support(labels, predicted)
    for name, expected in zip(("precision", "recall", "f1", "rows"), scores, strict=True):
        assert [line[name] for line in result["per_digit"]] == pytest.approx(expected)
    tests = [np.load(member.folder / "test_probabilities.npy") for member in members_of(run, dataset)]
    votes = (np.argmax(tests, axis=2) == np.mean(tests, axis=0).argmax(axis=1)).sum(axis=0)
    assert [line["votes"] for line in result["least_sure"]] == [votes[line["row"]] for line in result["least_sure"]]
    confidence = [line["probability"] for line in result["least_sure"]]
    assert len(confidence) == 20 and confidence == sorted(confidence)

    # the test rows' accuracy: its probability, of which the training rows tell, and the chance in 20 rows
    random = np.random.default_rng(0)
    drawn = random.binomial(20, random.beta(80 - wrong.sum() + 0.5, wrong.sum() + 0.5, 10**5)) / 20
    assert [*result["expected_test_accuracy"].values()] == pytest.approx(np.quantile(drawn, [0.025, 0.975]))
    text, interval = format_report(result), result["interval"]
    assert f"out-of-fold accuracy {overall['accuracy']:.5f}: {overall['errors']} of 80 rows wrong" in text
    assert f"95 % interval {interval['low']:.5f} to {interval['high']:.5f}" in text


def test_every_entry_of_cv_report_is_described(run, dataset):
    write_json(run.submissions_json, [{"time": "then", "sha256": "0"}])
    described = {}
    for line in Path(report.__file__).with_name("cv_report.md").read_text().splitlines():
        if line.startswith("| `"):
            names, text = line.strip("| ").split(" | ", 1)
            keys = set(re.findall(r"`(\w+)`", text))
            described |= dict.fromkeys(re.findall(r"`(\w+)(?:\[\])?`", names), keys)
    for name in ("mean", "standard_deviation"):
        described[name] |= set(METRICS)
    result = write_report(run, dataset)
    assert set(result) == set(described)
    for name, value in result.items():
        entries = value if isinstance(value, list) else [value]
        assert {key for entry in entries if isinstance(entry, dict) for key in entry} <= described[name]


def test_warnings_about_the_accuracy(run, dataset, recipe, tmp_path):
    """If the scored rows chose the epochs, and if the accuracy is far higher in training."""
    flatters, wrong = "(kept_epoch=best), which flatters.", "the accuracy is 0.99 in training and"
    text = format_report(write_report(run, dataset))
    assert text.endswith(flatters) and flatters in page_of(run) and wrong not in text

    last = made_up(dataset, recipes.change(recipe, {"kept_epoch": "last"}), tmp_path / "last", sharpness=0)
    for member in members_of(last, dataset):
        write_history(member, {}, {"accuracy": 0.99})
    result = write_report(blended(last, dataset), dataset)
    assert result["training_accuracy"] == pytest.approx(0.99) and result["overall"]["accuracy"] < 0.5
    for text in (format_report(result), page_of(last)):
        assert wrong in text and "try more --epochs" in text and flatters not in text


def test_members_outside_the_ensemble_are_named(run, second, dataset, tmp_path):
    """They were not finished when ensemble.py ran; some may have finished since."""
    hidden, blend = unfinish(run, "fold_01", "fold_03"), Run(tmp_path / "blend")
    blended(blend, dataset, [run, second])
    blended(run, dataset)
    members = members_of(run, dataset)
    (members[3].folder / "history.csv").unlink()
    for is_finished in (False, True):
        result = write_report(run, dataset)
        uncovered = set(members[1].validation_rows) & set(members[3].validation_rows)
        assert result["overall"]["rows"] == 80 - len(uncovered)
        assert result["missing"] == ["fold_01", "fold_03"] and not result["finished"]
        assert "not included: fold_01, fold_03: run scripts/train.py, then" in format_report(result)
        shown = "fold_01 (epoch 1), fold_03 (epoch 1)" if is_finished else "fold_01 (epoch 1), fold_03"
        assert f"<b>Not included:</b> {shown}: run scripts/train.py" in page_of(run)
        assert write_report(blend, dataset)["missing"] == ["../run/fold_01", "../run/fold_03"]
        write_history(members[3], {})
        restore(hidden)


def test_the_public_score_is_of_the_present_submission(run, dataset):
    record = {"time": "then", "message": "first", "status": "complete", "public_score": 0.98765}
    sent = record | {"sha256": hashlib.sha256(run.submission.read_bytes()).hexdigest()}
    for records, is_shown in (([record, sent], True), ([sent, record], False)):
        write_json(run.submissions_json, records)
        write_report(run, dataset)
        assert ('id="public-score"' in page_of(run)) == is_shown and page_of(run).count("<td>first</td>") == 2


def test_report_of_blends(run, second, dataset, recipe, tmp_path):
    result = write_report(blended(Run(tmp_path / "blend"), dataset, [run, second]), dataset)
    assert len(result["folds"]) == 6

    harmful = made_up(dataset, recipe, tmp_path / "harmful", sharpness=-4)
    blend = blended(Run(tmp_path / "weighted"), dataset, [second, harmful], "oof")  # the weight is 0
    folds = write_report(blend, dataset)["folds"]
    assert [fold["member"] for fold in folds] == ["../second/fold_00", "../second/fold_01"]

    other = made_up(dataset, recipe, tmp_path / "other", sharpness=2)
    unfinish(second, "fold_00")
    unfinish(other, "fold_01")  # together they cover all rows
    blend = blended(Run(tmp_path / "both"), dataset, [second, other])
    result = write_report(blend, dataset)
    assert result["overall"]["rows"] == 80
    assert result["overall"]["errors"] == sum(fold["errors"] for fold in result["folds"])
    table = compare_runs([blend, run], dataset).runs
    assert table["rows"].tolist() == [80, 80] and sorted(table["members_per_row"]) == [1, 2]

    write_array(blend.oof_probabilities, np.full((80, 10), np.nan, np.float32))
    for use in (lambda: write_report(blend, dataset), lambda: compare_runs([blend, run], dataset)):
        with pytest.raises(UserError, match=r"both/oof_probabilities.npy has no row that a member predicted: run"):
            use()


def test_report_of_a_perfect_single_fold(dataset, recipe, tmp_path):
    single = recipes.change(recipe, {"holdout": 0.5})
    result = write_report(blended(made_up(dataset, single, tmp_path / "run", sharpness=99), dataset), dataset)
    assert (result["overall"]["errors"], result["overall"]["rows"]) == (0, 40)
    assert result["standard_deviation"]["accuracy"] is None and "mistakes: none" in format_report(result)


def test_test_rows_with_labels_are_scored_by_the_weights_of_the_ensemble(labelled, recipe, tmp_path):
    runs = [made_up(labelled, recipe, tmp_path / name, seed=seed) for seed, name in enumerate("ab")]
    blend = blended(Run(tmp_path / "blend"), labelled, runs, "oof")
    result, members = write_report(blend, labelled), read_json(blend.ensemble_json)["members"]
    tests = [np.load(blend.folder / line["member"] / "test_probabilities.npy") for line in members]
    mean = np.average(tests, axis=0, weights=[line["weight"] for line in members])
    errors = int((mean.argmax(axis=1) != labelled.test_labels).sum())
    loss = log_loss(labelled.test_labels, mean, labels=range(10))
    assert (result["test"]["errors"], result["test"]["rows"]) == (errors, 20)
    assert result["test"]["log_loss"] == pytest.approx(loss, abs=1e-6)
    line = f"test accuracy {1 - errors / 20:.5f}, log loss {loss:.5f}: {errors} of 20"
    assert line in format_report(result)
    assert pd.read_csv(blend.cv_report_csv, index_col="fold").loc["test", "errors"] == errors


def test_missing_files_and_other_data_are_named(run, dataset):
    other = dataclasses.replace(dataset, train_images=dataset.train_images[:, ::-1])
    with pytest.raises(UserError, match="give the --input that it was trained on"):
        write_report(run, other)
    for name, message in {
        "oof_probabilities.npy": "oof_probabilities.npy is missing: run scripts/ensemble.py again",
        "fold_01/history.csv": "fold_01/history.csv is missing: delete .*metrics.json and train again",
        "fold_01/metrics.json": "fold_01 of the ensemble is not finished: run scripts/ensemble.py again",
        "ensemble.json": "has no ensemble yet: run scripts/ensemble.py first",
    }.items():
        contents = {run.folder / name: (run.folder / name).read_bytes()}
        (run.folder / name).unlink()
        with pytest.raises(UserError, match=message):
            write_report(run, dataset)
        restore(contents)
    assert not run.cv_report_json.exists()


def test_curves_show_the_histories():
    table = pd.DataFrame({"epoch": [1, 2, 3], "learning_rate": [0.1, 0.2, 0.05]})
    table = table.assign(accuracy=[0.5, 0.8, 0.9], val_accuracy=[0.6, 0.9, 0.95])
    table = table.assign(loss=[2, 1, 0.5], val_loss=[1, 0.5, 0.4])
    curves = charts.learning_curves({"fold_00": table, "a$b": table.assign(loss=4)}, {})
    loss, accuracy, rate = charts.draw_curves(curves).axes
    for axes, quantity in ((loss, "loss"), (accuracy, "accuracy")):
        training, validation, *others = axes.lines
        assert (training.get_linestyle(), validation.get_linestyle(), len(others)) == ("--", "-", 2)
        for line, column in ((training, quantity), (validation, f"val_{quantity}")):
            assert list(line.get_xdata()) == [1, 2, 3] and list(line.get_ydata()) == list(table[column])
    assert list(rate.lines[0].get_ydata()) == [0.1, 0.2, 0.05] and rate.get_yscale() == "linear"
    assert [text.get_text() for text in rate.get_legend().get_texts()] == ["fold_00", r"a\$b"]
    loss, _, _ = charts.learning_curves(dict.fromkeys("0123456789ab", table), {})
    assert loss.legend[0].name == "mean of 12"


def test_the_matrix_shows_its_numbers():
    matrix = np.diag(np.arange(10, 20))
    matrix[3, 8] = 4
    [axes] = charts.draw_confusions(matrix).axes
    texts = {tuple(map(int, text.get_position())): text.get_text() for text in axes.texts}
    assert texts == {(i, i): str(10 + i) for i in range(10)} | {(8, 3): "4"}  # x is the prediction
    shades = axes.images[0].get_array()
    assert shades[3, 8] == 4 and shades.sum() == 4 and "4 of 149 wrong" in axes.get_title()


@pytest.mark.parametrize("has_epoch", [False, True])
def test_members_without_an_epoch_or_that_diverged(run, dataset, has_epoch):
    diverged = dict.fromkeys(("loss", "accuracy", "val_accuracy"), np.nan) | {"val_loss": np.inf, "learning_rate": 0}
    for number, member in enumerate(members_of(run, dataset)):
        write_history(member, *([diverged] if has_epoch else []))
        if number in (0, 3):  # one member, all members
            write_report(run, dataset)
            assert "nan" not in page_of(run).lower()
    assert evaluate(open_ensemble(run, dataset))["training_accuracy"] is None


def test_confident_errors_are_those_that_all_members_make(run, dataset):
    result = evaluate(open_ensemble(run, dataset))
    oof, labels = np.load(run.oof_probabilities), dataset.train_labels
    votes = np.full((4, 80), -1)
    for line, member in zip(votes, members_of(run, dataset), strict=True):
        line[member.validation_rows] = member.validation_probabilities().argmax(axis=1)
    agree = ((votes == oof.argmax(axis=1)) | (votes < 0)).all(axis=0)
    rows = np.flatnonzero(agree & (oof.argmax(axis=1) != labels) & (oof.max(axis=1) >= 0.9))
    assert {error["row"] for error in result["confident_errors"]} == set(rows)


@pytest.mark.parametrize(("wrong", "is_likely"), [(1, True), (5, False)])
def test_only_networks_that_are_right_on_nearly_all_rows_doubt_labels(recipe, tmp_path, wrong, is_likely):
    """Others are often wrong with confidence, which says nothing about the labels."""
    images = np.random.default_rng(0).integers(0, 256, (420, 28, 28), dtype=np.uint8)
    labels, ids = np.arange(400).astype(np.uint8) % 10, np.arange(20).astype(str)
    dataset = Dataset(images[:400], labels, images[400:], None, ids)
    run = made_up(dataset, recipe, tmp_path / "run", sharpness=99)
    for member in members_of(run, dataset):
        probabilities = member.validation_probabilities().copy()
        is_wrong = member.validation_rows < wrong
        probabilities[is_wrong] = np.roll(probabilities[is_wrong], 1, axis=1)
        write_array(member.folder / "validation_probabilities.npy", probabilities)
    result = write_report(blended(run, dataset), dataset)
    assert sorted(error["row"] for error in result["confident_errors"]) == list(range(wrong))
    assert result["likely_mislabelled"] == is_likely == ("Likely mislabelled" in page_of(run))
    name = "likely mislabelled training rows" if is_likely else "confident errors"
    assert f"{name}: {wrong}\n" in format_report(result)
    assert ("Confident errors" in page_of(run)) != is_likely


def test_pairs_are_compared_on_the_rows_that_both_predicted(dataset, recipe, tmp_path):
    good = made_up(dataset, recipe, tmp_path / "good", sharpness=4)
    poor = made_up(dataset, recipe, tmp_path / "poor", sharpness=1, seed=5)
    unfinish(poor, "fold_01")  # one fold only; and no ensemble of either
    comparison = compare_runs([good, poor], dataset)
    rows, labels = members_of(poor, dataset)[0].validation_rows, dataset.train_labels
    oof = [comparison.ensembles[name].oof[rows].astype(float) for name in ("good", "poor")]
    wrong = [probabilities.argmax(axis=1) != labels[rows] for probabilities in oof]
    pair = comparison.pairs.iloc[0]
    assert (pair["first"], pair["second"], pair["rows"]) == ("good", "poor", 40)
    only_second, only_first = (wrong[1] & ~wrong[0]).sum(), (wrong[0] & ~wrong[1]).sum()
    assert (pair["wrong_only_in_first"], pair["wrong_only_in_second"]) == (only_first, only_second)
    assert pair["error_difference"] == wrong[1].sum() - wrong[0].sum() > 0
    assert 0 < pair["error_difference_low"] < pair["error_difference"] < pair["error_difference_high"]
    assert pair["log_loss_difference_low"] > 0
    p = 2 * binom.cdf(only_first, only_first + only_second, 0.5)
    assert pair["mcnemar_p"] == pytest.approx(min(1, p))
    losses = [-np.log(probabilities[np.arange(40), labels[rows]]) for probabilities in oof]
    assert pair["log_loss_difference"] == pytest.approx((losses[1] - losses[0]).mean(), abs=1e-6)
    table = comparison.runs
    assert list(table["run"]) == ["good", "poor"] and list(table["rows"]) == [80, 40]
    assert list(table["shared_rows"]) == [40, 40] and list(table["finished"]) == [2, 1]
    line = f"{pair['errors_second']} errors against {pair['errors_first']}: +"
    assert line in format_comparison(comparison)


def test_the_bootstrap_interval_is_that_of_the_mean_whatever_else_is_compared(dataset, recipe, tmp_path):
    runs = [made_up(dataset, recipe, tmp_path / name, 1, seed) for seed, name in enumerate("abc")]
    three, two = compare_runs(runs, dataset), compare_runs(runs[1:], dataset)
    assert list(zip(three.pairs["first"], three.pairs["second"], strict=True)) == list(combinations("abc", 2))
    pd.testing.assert_frame_equal(three.pairs.tail(1).reset_index(drop=True), two.pairs)
    b, c = (-np.log(two.ensembles[name].oof.astype(float)[np.arange(80), dataset.train_labels]) for name in "bc")
    [width] = two.pairs["log_loss_difference_high"] - two.pairs["log_loss_difference_low"]
    assert width == pytest.approx(2 * 1.96 * (c - b).std() / np.sqrt(80), rel=0.15)


def test_what_cannot_be_compared(run, second, dataset, recipe, tmp_path):
    with pytest.raises(UserError, match="takes two runs or more"):
        write_comparison(Run(tmp_path / "one"), [run], dataset)
    with pytest.raises(UserError, match="is given twice"):
        compare_runs([run, Run(run.folder / ".." / "run")], dataset)
    with pytest.raises(UserError, match="holds a run: give the comparison an --output of its own"):
        write_comparison(run, [run, second], dataset)
    other, both = made_up(dataset, recipe, tmp_path / "other"), Run(tmp_path / "both")
    unfinish(second, "fold_00")
    unfinish(other, "fold_01")
    comparison = write_comparison(both, [second, other], dataset)  # no row in common
    assert comparison.pairs.loc[0, "rows"] == 0 and comparison.runs["shared_errors"].isna().all()
    assert "no row in common" in page_of(both)
    assert "0 rows that both predicted" in format_comparison(comparison)
    unfinish(second, "fold_01")
    with pytest.raises(UserError, match="no finished fold yet"):
        compare_runs([run, second], dataset)


def test_comparison_by_the_script(dataset, recipe, csvs, tmp_path, call):
    runs, both = [tmp_path / "x/run", tmp_path / "y/run"], Run(tmp_path / "both")
    for seed, folder in enumerate(runs):
        folder.parent.mkdir()
        made_up(dataset, recipe, folder, seed=seed)
    assert refused(call("report", *runs, "--input", csvs), "give --output DIR")
    outcome = call("report", *runs, "--input", csvs, "--output", both.folder)
    assert (outcome.code, outcome.error) == (0, "")
    assert "y/run against x/run, 80 rows that both predicted" in outcome.out
    assert list(pd.read_csv(both.report / "runs.csv")["rows"]) == [80, 80]
    assert pd.read_csv(both.report / "pairs.csv").loc[0, "rows"] == 80
    assert "x/run, y/run" in page_of(both)
    folder = tmp_path / "x"
    made_up(dataset, recipes.change(recipe, {"dropout": 0.25}), folder / "other")
    outcome = call("report", "--input", csvs, "--output", folder)  # a folder of several runs
    for text in (outcome.out, page_of(Run(folder)), (folder / "report/runs.csv").read_text()):
        assert f"dropout={recipe.dropout}" in text and "dropout=0.25" in text and "rotation=" not in text


@pytest.fixture
def asleep(monkeypatch):
    """A list of functions: each sleep between two looks calls the next one. To sleep once more is a failure."""
    actions = []
    sleep = lambda seconds: actions.pop(0)() if actions else pytest.fail("it waits")  # noqa: E731
    monkeypatch.setattr(time, "sleep", sleep)
    return actions


def restore(contents):
    for path, data in contents.items():
        path.write_bytes(data)


@pytest.fixture
def watch(call, csvs):
    """Runs report.py --watch on a directory."""
    return lambda home, *runs: call("report", *runs, "--watch", "--input", csvs, "--output", home.folder)


def test_watch_follows_a_run_to_its_end(dataset, recipe, tmp_path, asleep, watch):
    run, pages = made_up(dataset, recipe, tmp_path / "run"), []
    hidden = [unfinish(run, name) for name in ("fold_00", "fold_01")]
    hidden.insert(0, {run.recipe_json: run.recipe_json.read_bytes()})
    run.recipe_json.unlink()

    def act():
        pages.append(page_of(run) if run.report.exists() else "")
        restore(hidden[len(pages) - 1])

    asleep += [act, act, act]
    lines = watch(run).out.splitlines()
    assert pages[0] == "" and "No member is finished yet" in pages[1]
    assert "fold_00 (epoch 1), fold_01 (epoch 1)" in pages[1] and "data-refresh=" in pages[1]
    assert "fold_01 (epoch 1)" in pages[2] and "Unfinished." in pages[2]
    assert "Unfinished." not in page_of(run) and not run.cv_report_json.exists()
    assert 'http-equiv="refresh"' not in page_of(run)  # it does not read itself again
    assert lines[0].startswith("waiting for")
    assert lines[-1].startswith("2 of 2 members finished, 2 epochs in all")


def test_watch_of_a_comparison_waits_for_a_member_of_each(dataset, recipe, tmp_path, asleep, watch):
    runs = [made_up(dataset, recipe, tmp_path / name, seed=ord(name)) for name in "ab"]
    hidden = [unfinish(runs[1], name) for name in ("fold_00", "fold_01")]
    home, pages = Run(tmp_path / "both"), []
    asleep += [lambda: restore(hidden[0]), lambda: [pages.append(page_of(home)), restore(hidden[1])]]
    assert watch(home, *(run.folder for run in runs)).code == 0
    assert "Unfinished." in pages[0] and "Unfinished." not in page_of(home)
    assert pd.read_csv(home.report / "pairs.csv").loc[0, "rows"] == 80


def test_watch_of_a_blend_or_of_a_folder_of_runs_waits_for_nothing(run, second, dataset, tmp_path, asleep, watch):
    """A blend has no folds and no members of its own; a folder of runs never has any."""
    blend, board = blended(Run(tmp_path / "blend"), dataset, [run, second]), Run(tmp_path / "board")
    assert watch(blend).code == 0
    errors = evaluate(open_ensemble(blend, dataset))["overall"]["errors"]
    assert f'id="error-count">{errors}<' in page_of(blend) and "Unfinished." not in page_of(blend)
    asleep.append(lambda: shutil.copytree(run.folder, board.folder / "bn_cnn"))
    outcome = watch(board)
    assert refused(outcome, "board holds no run") and "waiting for" in outcome.out  # as long as there was nothing


WRITER = """
import sys
from pathlib import Path
from digit_recognizer.data import digits
from digit_recognizer.results import ensemble, evaluation, page
from digit_recognizer.runs.directory import Run
dataset, runs = digits.load(Path(sys.argv[1])), [Run(Path(name)) for name in sys.argv[3:]]
for _ in range(8):
    members = ensemble.average_members(runs[0], dataset)
    page.write_page(members, evaluation.evaluate(members))
    page.write_comparison(Run(Path(sys.argv[2])), runs, dataset)
"""


def test_two_processes_write_the_same_pages(run, second, csvs, tmp_path):
    """As two report.py --watch on one run, and two comparisons with one --output."""
    home = Run(tmp_path / "both")
    line = [sys.executable, "-c", WRITER, csvs, home.folder, run.folder, second.folder]
    options = {"stderr": subprocess.PIPE, "text": True, "env": {"PYTHONPATH": str(ROOT / "src")}}
    processes = [subprocess.Popen(line, **options) for _ in range(2)]
    while any(process.poll() is None for process in processes):
        for path in [*run.report.glob("[!.]*"), *home.report.glob("[!.]*")]:
            assert path.read_text().endswith("</html>" if path.suffix == ".html" else "\n"), path
        time.sleep(0.01)
    assert [process.communicate()[1] for process in processes] == ["", ""]
    assert {path.name for path in home.report.iterdir()} == {"index.html", "runs.csv", "pairs.csv"}


def test_command_names_what_differs_from_the_named_recipe(recipe, dataset):
    settings = recipes.to_json(recipe) | {"threads": 2, "name": "bn_cnn"}
    fields = "--set folds=2 holdout=0.0 epochs=2 batch_size=16 --threads 2"
    assert command(settings, dataset) == f"bash scripts/run_all.sh --recipe bn_cnn {fields} --output output/again"
    assert command(settings | {"scaling": "; rm -rf ~"}, dataset).count("'scaling=; rm -rf ~'") == 1
    assert command(settings | {"name": "blend"}, dataset) is None
    fast = recipes.to_json(named_recipes.FAST)
    assert command(fast, dataset) == "bash scripts/run_all.sh --recipe fast --output output/again"
