"""explore.py: what it says and draws of data with known faults, of the sample, and where it writes."""

import dataclasses
import sys

import numpy as np
import pytest
from conftest import write_csvs, write_npz
from kaggle_server import refused

from digit_recognizer.data import digits, explore
from digit_recognizer.data.digits import Dataset
from digit_recognizer.data.paths import SAMPLE_NOTICE
from digit_recognizer.files import write_json
from digit_recognizer.runs.directory import Run

PICTURES = {"labels.png", "first_15.png", "random_25.png", "means.png"}


def repeated(dataset) -> Dataset:
    """Row 80 is row 3 with another label, row 81 row 7; a test row is there twice, the last is training row 0."""
    rows = [*range(80), 3, 7]
    labels = dataset.train_labels[rows]
    labels[80] = 9 - labels[80]
    images = np.concatenate([dataset.test_images, dataset.test_images[:1], dataset.train_images[:1]])
    ids = np.arange(1, 23).astype(str)
    return Dataset(
        dataset.train_images[rows], images, dataclasses.replace(dataset, train=labels, ids=ids)
    )


@pytest.fixture
def without_keras(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras", None)
    monkeypatch.delitem(sys.modules, "digit_recognizer.data.explore")


def test_explore(call, dataset, labelled, tmp_path, without_keras):
    data, run = repeated(dataset), Run(tmp_path / "run")
    places = ("--input", write_csvs(tmp_path / "input", data), "--output", run.folder)
    run.folder.mkdir()
    write_json(run.recipe_json, {"data": "competition", "labels": data.labels.fingerprint()})
    outcome = call("explore", *places)
    assert (outcome.code, outcome.error) == (0, ""), outcome.error
    for line in (
        "training pictures  82 x 28 x 28  uint8",
        "test pictures      22 x 28 x 28  uint8",
        "training rows that repeat an earlier one: 2, pictures with several labels: 1 (rows 3 = 80, 7 = 81, counted from 0)",
        "test rows that repeat an earlier one: 1 (rows 0 = 20, counted from 0)",
        "test rows that are training rows too: 1 of 22 (rows 21 = 0, counted from 0)",
    ):
        assert line in outcome.out
    assert "test labels" not in outcome.out and "pictures without ink: 0 training, 0 test" in outcome.out
    written = {path for path in run.folder.rglob("*") if path.is_file()}
    assert written == {run.recipe_json, *(run.explore / name for name in PICTURES)}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written - {run.recipe_json})

    other = write_npz(tmp_path / "npz", labelled)
    assert refused(call("explore", "--input", other, *places[2:]), "a run with data competition, not mnist")
    (tmp_path / "file").write_text("")
    assert refused(call("explore", *places[:2], "--output", tmp_path / "file"), "file")
    run.clear()
    assert not run.explore.exists()


def test_explore_the_sample(call, tmp_path, monkeypatch):
    monkeypatch.setattr("digit_recognizer.data.paths.ROOT", tmp_path)
    outcome = call("explore")
    assert outcome.code == 0 and outcome.out.splitlines()[0] == outcome.out.splitlines()[-1] == SAMPLE_NOTICE
    assert "1300 x 28 x 28" in outcome.out and "497 x 28 x 28" in outcome.out
    assert {path.name for path in (tmp_path / "output/sample/explore").iterdir()} == PICTURES


def test_label_counts_are_those_of_the_rows(labelled):
    rows = np.flatnonzero(labelled.train_labels != 2)
    labels = dataclasses.replace(labelled.labels, train=labelled.train_labels[rows])
    some = Dataset(labelled.train_images[rows], labelled.test_images, labels)
    lines = explore.describe(some).splitlines()
    assert "the most frequent label is 0 (8 rows), the rarest 2 (0 rows)" in lines
    assert any(line.split()[:4] == ["test", "labels", "20", "uint8"] for line in lines)
    start = next(number for number, line in enumerate(lines) if line.startswith("label"))
    table = np.array([line.split() for line in lines[start + 1 : start + 11]], float)
    counts = np.array([[8, 8, 0, 8, 8, 8, 8, 8, 8, 8], np.bincount(labels.test, minlength=10)])
    assert (table[:, [1, 3]] == counts.T).all()
    bars = [[bar.get_height() for bar in bars] for bars in explore.draw_labels(labels).axes[0].containers]
    for percent in (table[:, [2, 4]].T, bars):
        assert percent == pytest.approx(100 * counts / counts.sum(axis=1, keepdims=True), abs=0.01)


def test_pictures_show_their_rows(labelled):
    """The ink on a sheet is that of its pictures, whatever their number."""
    images, labels = labelled.train_images, labelled.train_labels
    for count in (1, 15, 25):
        figure = explore.draw_pictures(images, labels, np.arange(count), "")
        (axes,) = figure.axes
        assert axes.images[0].get_array().sum() == images[:count].astype(int).sum()
        assert [text.get_text().split()[0] for text in axes.texts] == [str(label) for label in labels[:count]]
    sample = digits.sample()
    sheet = explore.draw_means(sample.train_images, sample.train_labels).axes[0].images[0].get_array()
    mean = sample.train_images[sample.train_labels == 7].mean(axis=0)
    windows = np.lib.stride_tricks.sliding_window_view(sheet, (28, 28))
    assert (np.abs(windows - mean).max(axis=(2, 3)) < 1e-9).sum() == 1


def test_explore_waits_for_no_other_command(call, csvs, tmp_path):
    """One process writes a run directory at a time."""
    run = Run(tmp_path / "run")
    with run.lock():
        outcome = call("explore", "--input", csvs, "--output", run.folder)
    assert outcome.code == 2 and not run.explore.exists()
