"""predict.py as a person runs it, with runs that were trained here on the sample."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import THREADS
from kaggle_server import refused
from PIL import Image
from sklearn.datasets import load_digits
from test_pictures import coverage, digits_in, half_in_shadow, scaled, sheet

from digit_recognizer import named_recipes, recipes
from digit_recognizer.data import digits
from digit_recognizer.files import UserError, read_json, write_json
from digit_recognizer.inference import recognize
from digit_recognizer.results import ensemble
from digit_recognizer.runs.directory import Run
from digit_recognizer.training import backend, session
from digit_recognizer.training.predict import Ensemble, load_model, predict_with_tta, views_of

SPLIT = {"folds": 2, "batch_size": 16, "learning_rate": 2e-3}
AUGMENTED = dict(epochs=10, filters=(8, 16), dropout=0.2, rotation=10.0, zoom=0.2, shift=0.1, tta_views=4)


@pytest.fixture(scope="module")
def board(tmp_path_factory):
    """A folder with the runs of two recipes, as train.py makes them."""
    folder = tmp_path_factory.mktemp("board")
    for name, options in (("lenet", AUGMENTED), ("mlp", {"epochs": 2})):
        session.train(folder / name, digits.sample(), [name], SPLIT | options, session.TrainingOptions(threads=THREADS))
    return folder


@pytest.fixture(scope="module")
def run(board):
    return Run(board / "lenet")


@pytest.fixture(scope="module")
def scans():
    """100 of the sample's digits that no network has seen, in ten rows on a sheet, and their labels."""
    drawn = [scaled(image, 4) for image in digits.sample().test_images[:100]]
    labels = load_digits().target[1300:1400]
    return sheet([drawn[row : row + 10] for row in range(0, 100, 10)], pitch=118, noise=3), labels


@pytest.fixture
def scan(scans, tmp_path):
    """The first two rows of them as a file."""
    path = tmp_path / "scan.png"
    Image.fromarray(scans[0][:236]).save(path)
    return path


def table(outcome, path):
    """The rows of predict.py's table: digits int (n,), probabilities float (n,)."""
    rows = [line.split() for line in outcome.out.splitlines() if line.lstrip().startswith(f"{path} ")]
    assert [int(row[1]) for row in rows] == list(range(1, len(rows) + 1))
    return np.array([int(row[2]) for row in rows]), np.array([float(row[3]) for row in rows])


def test_clean_scans_are_read(run, scans):
    images = np.array([digit.image for digit in digits_in(scans[0])])
    assert len(images) == 100
    probabilities, _ = Ensemble(ensemble.trained_models(run)).predict(images)
    assert (probabilities.argmax(axis=1) == scans[1]).mean() >= 0.95


def test_the_table_and_the_picture(call, run, scans, tmp_path):
    paths = [tmp_path / name for name in ("first.png", "blank.jpg", "touching.png")]
    eights = np.hstack([coverage("sans", "8")] * 2)
    eights[50:58, 40:110] = 1
    pictures = scans[0][:236], np.full((90, 90, 3), 200, np.uint8), sheet([[eights]], 300)
    for path, picture in zip(paths, pictures, strict=True):
        Image.fromarray(picture).save(path)
    outcome = call("predict", *paths, "--output", run.folder)
    assert outcome.code == 0, outcome.error
    lines = outcome.out.splitlines()
    assert lines[0] == lines[-1] and lines[0].startswith("THIS IS THE BUILT-IN SAMPLE")
    found, probabilities = table(outcome, paths[0])
    assert len(found) == 20 and (found == scans[1][:20]).mean() >= 0.9
    assert (probabilities > 0).all() and (probabilities <= 1).all()
    assert f"{paths[1]}: no digit" in outcome.out
    assert f"{paths[2]}: number 1 is wider than a digit is" in outcome.out
    with Image.open(run.predictions) as picture:
        assert picture.format == "PNG" and picture.width == 1210


def by_hand(path, images):
    """The probabilities of a saved network, with the views of its own run's recipe."""
    recipe = recipes.from_json(Run(path.parents[1]).require_settings())
    return predict_with_tta(load_model(path, recipe), images, views_of(recipe))


@pytest.mark.parametrize("home", ["board", "elsewhere/blend"])
def test_a_blend_reads_with_the_members_of_its_runs(call, board, scan, scans, tmp_path, home):
    """Wherever the blend is, and as test rows are predicted."""
    home, runs = tmp_path / home, shutil.copytree(board, tmp_path / "board")
    if home == runs:
        assert refused(call("predict", scan, "--output", home), "(lenet, mlp)", "scripts/ensemble.py --output")
    ensemble.blend(Run(home), [Run(runs / "lenet"), Run(runs / "mlp")], digits.sample(), "oof")
    members = read_json(home / "ensemble.json")["members"]
    assert len(members) == 4 and all(("lenet" in each["member"]) or each["weight"] < 0.2 for each in members)

    outcome = call("predict", scan, "--output", home)
    assert outcome.code == 0, outcome.error
    images = np.array([digit.image for digit in digits_in(scans[0][:236])])
    expected = sum(each["weight"] * by_hand(home / each["member"] / "model.keras", images) for each in members)
    found, probabilities = table(outcome, scan)
    assert list(found) == list(expected.argmax(axis=1))
    assert probabilities == pytest.approx(expected.max(axis=1), abs=2e-4)


def test_a_run_is_enough(call, run, scan, tmp_path, monkeypatch):
    """No data, with or without credentials: the default run predicts, or the sample's where it alone is there."""
    monkeypatch.setattr("digit_recognizer.data.paths.ROOT", tmp_path / "checkout")
    assert refused(call("predict", scan), "holds no run")
    for name in ("sample", "run"):
        shutil.copytree(run.folder, tmp_path / "checkout" / "output" / name)
        outcome = call("predict", scan)
        assert outcome.code == 0, outcome.error
        assert (tmp_path / "checkout" / "output" / name / "report" / "predictions.png").exists()
        assert f"{name}/report/predictions.png: what was found" in outcome.out
        monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")


def test_a_picture_after_unreadable_ones_is_drawn(call, run, tmp_path, monkeypatch):
    monkeypatch.setattr(recognize, "MAX_DRAWN_PICTURES", 1)
    good, bad, drawn = tmp_path / "good.png", tmp_path / "bad.png", tmp_path / "drawn.png"
    Image.fromarray(sheet([[coverage("sans", "3")]])).save(good)
    bad.write_bytes(b"no picture")
    outcome = call("predict", bad, good, "--output", run.folder, "--save", drawn)
    assert outcome.code == 0 and drawn.exists() and "is no picture" in outcome.out, outcome


def test_refusals_and_pictures_without_ink_need_no_network_and_write_nothing(call, run, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "start", lambda threads: pytest.fail("Keras is started"))
    good, bad, saved = tmp_path / "good.png", tmp_path / "bad.png", tmp_path / "saved.png"
    Image.fromarray(sheet([[coverage("sans", "3")]], light=half_in_shadow)).save(good)
    bad.write_bytes(good.read_bytes()[:500])
    (tmp_path / "empty").mkdir()
    for arguments, words in (
        ((bad, "--save", saved), f"{bad} is damaged"),
        ((bad, tmp_path / "no.png", "--save", saved), "(nor can the other 1 pictures)"),
        ((good, tmp_path / "empty", "--save", saved), f"{tmp_path / 'empty'} holds no pictures"),
        ((good, "--csv", good), f"--csv {good}: that is a picture to read"),
        ((good, "--save", good), f"--save {good}: that is a picture to read"),
        ((good, "--save", tmp_path / "saved.txt"), "its name has to end in .png"),
        ((good, "--save", tmp_path / "no" / "saved.png"), "make it first"),
        ((), "the following arguments are required: PICTURE"),
    ):
        assert refused(call("predict", *arguments, "--output", run.folder), words)
    assert refused(call("predict", good, "--output", tmp_path / "nowhere"), "holds no run", "run scripts/train.py")
    Image.new("RGB", (300, 200), "white").save(tmp_path / "blank.png")
    outcome = call("predict", tmp_path / "blank.png", "--output", run.folder, "--save", saved)
    assert outcome.code == 0 and "blank.png: no digit: nothing stands out from the paper" in outcome.out
    assert {path.name for path in tmp_path.iterdir()} == {"good.png", "bad.png", "empty", "blank.png"}


def test_the_members_are_those_of_ensemble_json_or_the_finished_ones(tmp_path):
    run = Run(tmp_path)
    write_json(run.recipe_json, recipes.to_json(named_recipes.named("fast")))
    with pytest.raises(UserError, match="no finished fold yet"):
        ensemble.trained_models(run)
    for name in ("fold_00", "fold_01", "fold_02"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.keras").write_bytes(b"")
    for name in ("fold_00", "fold_02"):
        (tmp_path / name / "metrics.json").write_text("{}")
    models = ensemble.trained_models(run)
    assert {path.parent.name: weight for path, weight in models.items()} == {"fold_00": 0.5, "fold_02": 0.5}
    with pytest.raises(UserError, match=r"fold_00/model.keras is damaged .*metrics.json and train again"):
        Ensemble(models)
    write_json(run.ensemble_json, {"members": [{"member": "fold_01", "weight": 1.0}], "missing": []})
    assert ensemble.trained_models(run) == {tmp_path / "fold_01" / "model.keras": 1.0}
    (tmp_path / "fold_01/model.keras").unlink()
    with pytest.raises(UserError, match=r"fold_01/model.keras is missing"):
        ensemble.trained_models(run)


def test_a_folder_with_a_damaged_picture_gives_records_of_every_picture(call, run, scan, tmp_path):
    folder = tmp_path / "photos"
    (folder / ".hidden").mkdir(parents=True)
    for name in ("a.png", ".hidden/no.png", "notes.txt"):
        shutil.copy(scan, folder / name)
    (folder / "damaged.PNG").write_bytes(scan.read_bytes()[:500])
    Image.new("L", (300, 200), 255).save(folder / "empty.png")
    outcome = call("predict", folder, "--output", run.folder, "--json", "--csv", tmp_path / "table.csv")
    assert outcome.code == 0, outcome.error
    records = json.loads(outcome.out)
    assert [Path(each["file"]).name for each in records] == ["a.png"] * 20 + ["damaged.PNG", "empty.png"]
    first, (damaged, empty) = records[0], records[-2:]
    assert sum(first["probabilities"]) == pytest.approx(1, abs=1e-4)
    assert np.argmax(first["probabilities"]) == first["digit"]
    top, left, bottom, right = first["box"]
    assert 0 <= top < bottom <= 118 and 0 <= left < right <= 118
    assert damaged["digit"] is None and "damaged.PNG is damaged" in damaged["notes"][0]
    assert empty["notes"] == ["no digit: nothing stands out from the paper"]
    with (tmp_path / "table.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    expected = ["" if each["digit"] is None else str(each["digit"]) for each in records]
    assert [row["digit"] for row in rows] == expected
    assert float(rows[0]["probability_3"]) == first["probabilities"][3]
