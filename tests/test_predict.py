"""predict.py as a person runs it, with an ensemble trained here on the sample."""

import numpy as np
import pytest
from conftest import THREADS
from PIL import Image
from sklearn.datasets import load_digits
from test_pictures import coverage, half_in_shadow, scaled, sheet

from digit_recognizer.data import digits
from digit_recognizer.errors import UserError
from digit_recognizer.files import write_json
from digit_recognizer.pictures import find
from digit_recognizer.results import ensemble
from digit_recognizer.run import Run
from digit_recognizer.training import backend


def network(seed):
    """A small network without batch normalisation: that of the recipe needs ten times the steps to be of use."""
    import keras

    from digit_recognizer.training.layers import RandomDistortion

    keras.utils.set_random_seed(seed)
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28), dtype="uint8"),
            layers.Reshape((28, 28, 1)),
            layers.Rescaling(1 / 255),
            RandomDistortion(rotation=10, zoom=0.2, shift=0.1),
            layers.Conv2D(16, 3, strides=2, activation="relu"),
            layers.Conv2D(32, 3, strides=2, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two small networks, each trained for seconds on the sample's training rows."""
    import keras

    run, train = Run(tmp_path_factory.mktemp("predict")), digits.sample().train
    for seed in (0, 1):
        folder = run.folder / f"fold_{seed:02}"
        folder.mkdir()
        model = network(seed)
        model.compile(keras.optimizers.Adam(2e-3), "sparse_categorical_crossentropy")
        model.fit(train.images, train.labels, batch_size=32, epochs=7, verbose=0)
        model.save(folder / "model.keras")
        write_json(folder / "metrics.json", {})
    write_json(run.recipe_json, {"data": "sample", "threads": THREADS})
    return run


@pytest.fixture(scope="module")
def scans():
    """100 of the sample's digits that no network has seen, in ten rows on a sheet, and their labels."""
    drawn = [scaled(image, 4) for image in digits.sample().test.images[:100]]
    labels = load_digits().target[1300:1400]
    return sheet([drawn[row : row + 10] for row in range(0, 100, 10)], pitch=118, noise=3), labels


def test_clean_scans_are_read(run, scans):
    picture, labels = scans
    found = find.find(picture)
    assert len(found) == 100
    given = ensemble.predict_images(ensemble.trained_models(run), np.array([each.image for each in found]))
    assert given.shape == (100, 10) and given.sum(axis=1) == pytest.approx(np.ones(100), abs=1e-5)
    assert (given.argmax(axis=1) == labels).mean() >= 0.95


def test_the_table_and_the_picture(call, run, scans, tmp_path):
    paths = [tmp_path / name for name in ("first.png", "blank.jpg", "touching.png")]
    eights = np.hstack([coverage("sans", "8")] * 2)
    eights[50:58, 40:110] = 1
    for path, picture in zip(
        paths, [scans[0][:236], np.full((90, 90, 3), 200, np.uint8), sheet([[eights]], 300)], strict=True
    ):
        Image.fromarray(picture).save(path)
    outcome = call("predict", *paths, "--output", run.folder)
    assert outcome.code == 0, outcome.error
    lines = outcome.out.splitlines()
    assert lines[0] == lines[-1] and lines[0].startswith("THIS IS THE BUILT-IN SAMPLE")
    rows = [line.split() for line in lines if line.lstrip().startswith(str(paths[0]))]
    assert [int(row[1]) for row in rows] == list(range(1, 21))
    assert (np.array([int(row[2]) for row in rows]) == scans[1][:20]).mean() >= 0.9
    assert all(row[2] != row[4] and 0 < float(row[3]) <= 1 for row in rows)
    assert f"{paths[1]}: no digit" in outcome.out
    assert f"{paths[2]}: number 1 is wider than a digit is" in outcome.out
    with Image.open(run.predictions) as picture:
        assert picture.format == "PNG" and picture.width == 1210


def test_a_picture_without_ink_needs_no_network(call, run, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "start", lambda threads: pytest.fail("Keras is started"))
    Image.new("RGB", (300, 200), "white").save(tmp_path / "blank.png")
    outcome = call("predict", tmp_path / "blank.png", "--output", run.folder, "--save", tmp_path / "p.svg")
    assert outcome.code == 0 and "blank.png: no digit" in outcome.out
    assert (tmp_path / "p.svg").exists()


def test_refusals_come_first_and_write_nothing(call, run, tmp_path, monkeypatch):
    monkeypatch.setattr(backend, "start", lambda threads: pytest.fail("Keras is started"))
    good, bad, saved = tmp_path / "good.png", tmp_path / "bad.png", tmp_path / "saved.png"
    Image.fromarray(sheet([[coverage("sans", "3")]], light=half_in_shadow)).save(good)
    bad.write_bytes(good.read_bytes()[:500])
    for arguments, words in (
        ((good, bad, "--save", saved), f"{bad} is damaged"),
        ((good, tmp_path, "--save", saved), f"{tmp_path} is a folder"),
        ((good, "--save", good), f"--save {good}: that is a picture to read"),
        ((good, "--save", tmp_path / "saved.txt"), "its name has to end in .png"),
        ((good, "--save", tmp_path / "no" / "saved.png"), "make it first"),
        ((), "the following arguments are required: PICTURE"),
    ):
        outcome = call("predict", *arguments, "--output", run.folder)
        assert outcome.code == 2 and outcome.error.count("\n") == 1 and words in outcome.error
    outcome = call("predict", good, "--output", tmp_path / "nowhere")
    assert outcome.code == 2 and "holds no run (no recipe.json): run scripts/train.py" in outcome.error
    assert {path.name for path in tmp_path.iterdir()} == {"good.png", "bad.png"}


def test_the_members_are_those_of_ensemble_json_or_the_finished_ones(tmp_path):
    run = Run(tmp_path)
    write_json(run.recipe_json, {})
    with pytest.raises(UserError, match="no finished fold yet"):
        ensemble.trained_models(run)
    for name in ("fold_00", "fold_01", "fold_02"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.keras").write_bytes(b"")
    for name in ("fold_00", "fold_02"):
        (tmp_path / name / "metrics.json").write_text("{}")
    models = ensemble.trained_models(run)
    assert models == {tmp_path / name / "model.keras": 0.5 for name in ("fold_00", "fold_02")}
    with pytest.raises(UserError, match=r"fold_00/model.keras is damaged \(.*metrics.json and train again"):
        ensemble.predict_images(models, np.zeros((1, 28, 28), np.uint8))
    write_json(run.ensemble_json, {"members": [{"member": "fold_01", "weight": 1.0}], "missing": []})
    assert ensemble.trained_models(run) == {tmp_path / "fold_01/model.keras": 1.0}
    (tmp_path / "fold_01/model.keras").unlink()
    with pytest.raises(UserError, match=r"fold_01/model.keras is missing"):
        ensemble.trained_models(run)
