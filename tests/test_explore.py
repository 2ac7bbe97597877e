"""explore.py: what it says and draws of data with known faults, of the sample, and where it writes."""

import dataclasses

import numpy as np
from conftest import write_csvs, write_npz
from kaggle_server import refused

from digit_recognizer import recipes
from digit_recognizer.data import explore
from digit_recognizer.data.digits import Dataset
from digit_recognizer.data.paths import SAMPLE_NOTICE
from digit_recognizer.files import write_json
from digit_recognizer.runs.directory import Run

PICTURES = {"digits.png"}


def repeated(dataset) -> Dataset:
    """Row 80 is row 3 with another label, row 81 row 7; a test row occurs twice, the last is training row 0."""
    rows = [*range(80), 3, 7]
    labels = dataset.train_labels[rows]
    labels[80] = 9 - labels[80]
    images = np.concatenate([dataset.test_images, dataset.test_images[:1], dataset.train_images[:1]])
    return Dataset(dataset.train_images[rows], labels, images, None, np.arange(1, 23).astype(str))


def test_explore(call, dataset, labelled, recipe, tmp_path):
    data, run = repeated(dataset), Run(tmp_path / "run")
    options = ("--input", write_csvs(tmp_path / "input", data), "--output", run.folder)
    run.folder.mkdir()
    settings = recipes.to_json(recipe) | {"data": "competition", "fingerprint": data.fingerprint}
    write_json(run.recipe_json, settings)
    outcome = call("explore", *options)
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
    written = {path for path in run.folder.rglob("*") if path.is_file() and not path.name.startswith(".")}
    assert written == {run.recipe_json, *(run.explore / name for name in PICTURES)}

    other = write_npz(tmp_path / "npz", labelled)
    assert refused(call("explore", "--input", other, *options[2:]), "a run with data competition, not mnist")
    (tmp_path / "file").write_text("")
    assert refused(call("explore", *options[:2], "--output", tmp_path / "file"), "file")
    with run.lock():  # one process writes a run directory at a time
        assert refused(call("explore", *options), str(run.folder))
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
    images, labels = labelled.train_images[rows], labelled.train_labels[rows]
    some = dataclasses.replace(labelled, train_images=images, train_labels=labels)
    lines = explore.describe(some).splitlines()
    assert any(line.split()[:4] == ["test", "labels", "20", "uint8"] for line in lines)
    start = next(number for number, line in enumerate(lines) if line.startswith("label"))
    table = np.array([line.split() for line in lines[start + 1 : start + 11]], float)
    counts = np.array([[8, 8, 0, 8, 8, 8, 8, 8, 8, 8], np.bincount(some.test_labels, minlength=10)])
    assert (table[:, [1, 3]] == counts.T).all()
    percent = 100 * counts / counts.sum(axis=1, keepdims=True)
    assert np.abs(table[:, [2, 4]].T - percent).max() <= 0.01


def drawn(figure):
    """The pictures on a sheet, each after its title."""
    return [(axes.get_title(), np.asarray(axes.images[0].get_array())) for axes in figure.axes if axes.images]


def test_pictures_show_their_rows(labelled):
    images, labels = labelled.train_images, labelled.train_labels
    for rows in (np.array([5]), np.arange(3, 28)):
        sheet = drawn(explore.draw_pictures(images, labels, rows))
        assert [title for title, _ in sheet] == [f"{labels[row]}  (row {row})" for row in rows]
        assert all((image == images[row]).all() for (_, image), row in zip(sheet, rows, strict=True))
