"""Pictures in folders as data, and as an addition to other data."""

import importlib.util
import io
import shutil

import numpy as np
import pandas as pd
import pytest
from conftest import LIGHT, THREADS, write_csvs
from kaggle_server import refused
from PIL import Image

from digit_recognizer import named_recipes
from digit_recognizer.data import digits, folds, image_folder
from digit_recognizer.files import UserError, read_json
from digit_recognizer.results import ensemble
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.plan import open_plan
from digit_recognizer.training import session
from digit_recognizer.training.session import TrainingOptions

FIELDS = {"folds": 2, "epochs": 2, "batch_size": 16}


def write_pictures(folder, images, labels, name="{:03}.png".format):
    """Writes each picture, numbered, into the folder of its label, or into `folder` itself."""
    for row, image in enumerate(images):
        path = folder / ("" if labels is None else str(labels[row])) / name(row)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return folder


def photo(image):
    """A photographed digit: dark on paper, far from the middle."""
    page = np.full((400, 300, 3), 210, np.uint8)
    page[200:340, 30:170] -= np.asarray(Image.fromarray(image).resize((140, 140)))[..., None] // 2
    return page


@pytest.fixture
def home(dataset, tmp_path):
    """The data set of the tests, without test rows, as pictures in folders."""
    write_pictures(tmp_path / "home/train", dataset.train_images, dataset.train_labels)
    return tmp_path / "home"


@pytest.fixture
def added(dataset, tmp_path):
    """Ten more pictures, upside down and one of each digit, in folders without train above them."""
    rows = [np.flatnonzero(dataset.train_labels == label)[0] for label in range(10)]
    return write_pictures(tmp_path / "added", dataset.train_images[rows, ::-1], np.arange(10))


def test_pictures_in_mnists_form_are_the_same_rows_as_in_csvs(dataset, home):
    loaded = digits.load(home)
    assert (loaded.train_images == dataset.train_images).all() and (loaded.train_labels == dataset.train_labels).all()
    assert loaded.kind == "folder" and loaded.train_names[:2].tolist() == ["0/000.png", "1/001.png"]
    assert loaded.test_images.shape == (0, 28, 28) and loaded.test_labels is None and not len(loaded.ids)
    write_pictures(home / "Test", dataset.test_images, None, "{:03}.bmp".format)
    (home / "train/0/.DS_Store").write_bytes(b"x")
    with_test = digits.load(home)
    assert (with_test.test_images == dataset.test_images).all() and with_test.ids[1] == "001.bmp"
    assert with_test.fingerprint != loaded.fingerprint
    shutil.rmtree(home / "Test")
    write_pictures(home / "test", dataset.test_images, np.arange(20) % 10)
    labelled = digits.load(home.parent)  # one folder further up
    assert (labelled.test_labels == np.arange(20) % 10).all() and labelled.ids[1] == "1/001.png"


def test_other_pictures_are_what_predict_finds_in_them(dataset, home):
    Image.fromarray(photo(dataset.train_images[5])).save(home / "train/5/photo.jpg")
    loaded = digits.load(home)
    assert loaded.train_names[-1] == "5/photo.jpg" and loaded.train_labels[-1] == 5
    assert np.corrcoef(loaded.train_images[-1].ravel(), dataset.train_images[5].ravel())[0, 1] > 0.5


def test_all_pictures_that_do_not_show_one_digit_are_named_at_once(dataset, home, call, tmp_path):
    page = np.full((100, 100, 3), 255, np.uint8)
    bad = {
        "train/0/blank.png": page,
        "train/1/two.png": np.hstack([photo(image) for image in dataset.train_images[:2]]),
    }
    for name, pixels in bad.items():
        Image.fromarray(pixels).save(home / name)
    huge, jpeg = io.BytesIO(), io.BytesIO()
    Image.new("1", (20_000, 10_000)).save(huge, "PNG")  # 200 megapixels
    Image.fromarray(photo(dataset.train_images[0])).save(jpeg, "JPEG")
    (home / "train/2/huge.png").write_bytes(huge.getvalue())
    (home / "train/3/cut.jpg").write_bytes(jpeg.getvalue()[: len(jpeg.getvalue()) // 2])
    write_pictures(home / "test", [page] * 9, None)
    outcome = call("train", "--input", home, "--output", tmp_path / "run")
    words = ("13 of 93 pictures", "train/0/blank.png shows no digit", "train/1/two.png shows 2 digits")
    words += ("train/2/huge.png has more than", "train/3/cut.jpg is damaged", "test/003.png", "; and 5 others")
    assert refused(outcome, *words) and not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda train: (train / "3").rename(train / "cat"), ["train/cat is no folder 0 to 9"]),
        (lambda train: (train / "notes.txt").write_text("x"), ["train/notes.txt is no folder 0 to 9"]),
        (lambda train: [path.unlink() for path in (train / "4").iterdir()], ["train/4 holds no picture"]),
        (lambda train: [shutil.rmtree(path) for path in train.iterdir() if path.name != "7"], ["the label 7"]),
        (
            lambda train: train.rename(train.with_name("test")),
            ["looked for unpacked folders train/0", "test/0/000.png"],
        ),
        (lambda train: [path.rename(train.with_name(path.name)) for path in train.iterdir()], ["found 0/000.png"]),
        (
            lambda train: write_csvs(train.parent, digits.sample()),
            ["the competition's CSVs in", "pictures in folders in"],
        ),
    ],
)
def test_folders_that_are_not_understood_are_refused(home, call, change, words):
    change(home / "train")
    outcome = call("explore", "--input", home, "--output", home.parent / "run")
    assert refused(outcome, str(home), *words) and "download" not in outcome.error
    assert not (home.parent / "run").exists()


def test_the_whole_way_without_test_pictures(home, call, tmp_path):
    run, places, dataset = tmp_path / "run", ("--input", home, "--output", tmp_path / "run"), digits.load(home)
    printed = ""
    for stage, options in (
        ("explore", ()),
        ("split", ("--folds", 2)),
        ("train", LIGHT),
        ("ensemble", ()),
        ("report", ()),
    ):
        outcome = call(stage, *places, *options)
        assert outcome.code == 0, outcome.error
        printed += outcome.out
    assert "no test pictures, so no submission.csv" in printed and not (run / "submission.csv").exists()
    assert read_json(run / "cv_report.json")["expected_test_accuracy"] is None
    page = (run / "report/index.html").read_text()
    assert "There are no test rows, so there is no submission.csv." in page
    wrong = np.flatnonzero(np.load(run / "oof_probabilities.npy").argmax(axis=1) != dataset.train_labels)
    assert dataset.train_names[wrong[0]] in page and f"row {wrong[0]}" not in page
    assert refused(call("submit", *places, "--dry-run"), "folder data is never sent")


def test_submission_csv_has_the_file_names(dataset, home, call, tmp_path):
    write_pictures(home / "test", dataset.test_images, None, "é, {}.png".format)
    shutil.copy(home / "test/é, 3.png", home / "train/3")
    places = ("--input", home, "--output", tmp_path / "run")
    assert "(é, 3.png = 3/é, 3.png)" in call("explore", *places).out
    assert call("train", *places, *LIGHT, "--fold", 0).code == call("ensemble", *places).code == 0
    submission = pd.read_csv(tmp_path / "run/submission.csv")
    assert sorted(submission["ImageId"]) == sorted(f"é, {row}.png" for row in range(20))


def test_few_pictures_are_trained_longer_and_options_win(home, tmp_path, capsys):
    dataset, options = digits.load(home), TrainingOptions(threads=THREADS, deadline=0)
    session.train(tmp_path / "few", dataset, ["fast"], {"folds": 2}, options)
    assert "80 training rows: epochs=125, batch_size=32; --set takes other values" in capsys.readouterr().out
    settings = read_json(tmp_path / "few/recipe.json")
    assert (settings["epochs"], settings["batch_size"]) == (125, 32)
    session.train(tmp_path / "given", dataset, ["fast"], FIELDS, options)
    assert "training rows:" not in capsys.readouterr().out


def test_a_holdout_of_the_first_rows_leaves_rows_of_each_label(dataset):
    with pytest.raises(UserError, match="no other has the label 0: add --set holdout_rows=random"):
        folds.split(np.sort(dataset.train_labels), named_recipes.named("dropout_mlp"))


# ---- --add


def test_added_pictures_are_learned_by_every_member_and_never_validated(light, added, tmp_path):
    (csvs, plain), run = light, Run(tmp_path / "run")
    dataset, with_added = digits.load(csvs), digits.load(csvs, added)
    assert with_added.fingerprint == dataset.fingerprint and with_added.added_rows == 10
    images, labels = with_added.training_data(np.array([3, 5]))
    assert (images[2:] == image_folder.read_added(added).images).all() and labels[2:].tolist() == list(range(10))
    session.train(run.folder, with_added, ["dropout_mlp"], FIELDS, TrainingOptions(threads=THREADS))
    ensemble.blend(run, [run], dataset, "equal")  # no stage but training needs the pictures
    assert run.folds_csv.read_bytes() == Run(plain).folds_csv.read_bytes()
    oof = [np.load(home.oof_probabilities) for home in (Run(plain), run)]
    assert oof[0].shape == oof[1].shape == (80, 10) and (oof[0] != oof[1]).any(axis=1).all()
    assert open_plan(run, dataset).identity != open_plan(Run(plain), dataset).identity


def test_a_run_goes_on_with_the_pictures_it_was_started_with(csvs, added, call, tmp_path):
    places = [("--input", csvs, "--output", tmp_path / name) for name in ("whole", "parts", "plain")]
    outcome = call("train", *places[0], *LIGHT, "--add", added)
    assert outcome.code == 0 and f"10 pictures of {added} join the training rows" in outcome.out
    assert call("train", *places[1], *LIGHT, "--add", added, "--fold", 0).code == 0
    on_ray = ("--workers", 1) if importlib.util.find_spec("ray") else ()
    assert call("train", *places[1], *on_ray).code == 0
    whole, parts = (tmp_path / name / "fold_01/test_probabilities.npy" for name in ("whole", "parts"))
    assert whole.read_bytes() == parts.read_bytes()
    assert call("train", *places[2], *LIGHT, "--time-budget", "0s").code == 0
    assert refused(call("train", *places[2], "--add", added), "a run with added pictures none, not ")
    (added / "3/more.png").write_bytes((added / "4/004.png").read_bytes())
    assert refused(call("train", *places[1]), "a run with added pictures ", "take another --output, or --overwrite")
    shutil.rmtree(added)
    assert refused(call("train", *places[1]), f"--add {added} is no folder")
    for stage in ("ensemble", "report"):  # they need no added pictures
        assert call(stage, *places[1]).code == 0
    assert f"--add {added}" in (tmp_path / "parts/report/index.html").read_text()


def test_added_pictures_are_refused_as_data_is(csvs, added, call, tmp_path):
    places = ("--input", csvs, "--output", tmp_path / "run", "--add")
    Image.new("L", (50, 50)).save(added / "0/blank.png")
    assert refused(call("train", *places, added), f"{added}: 1 of 11 pictures", "0/blank.png shows no digit")
    (tmp_path / "empty").mkdir()
    assert refused(call("train", *places, tmp_path / "empty"), "empty is empty: put pictures into folders 0 to 9")
