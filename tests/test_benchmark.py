"""The benchmark: what it times, what it keeps, and PyTorch's network if PyTorch is installed."""

import functools
import importlib.util

import numpy as np
import pandas as pd
import pytest
from kaggle_server import refused

from digit_recognizer import benchmark, recipes
from digit_recognizer.benchmark import ways
from digit_recognizer.data import digits, paths

QUICK = ("--quick", "--threads", 2)


@pytest.fixture
def empty_checkout(monkeypatch, tmp_path):
    """No data in input/, and output/ in a temporary folder."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # ImageDataGenerator's own
def test_training_and_prediction_on_the_sample(call, empty_checkout, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))
    outcome = call("benchmark", *QUICK)
    assert outcome.code == 0, outcome.error
    rows = pd.read_csv(empty_checkout / "output/benchmark_quick/benchmark.csv")
    ways_of_keras = ["bn_cnn, as published", "bn_cnn, ours", "fast, ours"]
    assert rows["what"].tolist() == ["train"] * 3 + ["predict"] * 3
    assert rows["way"].tolist() == ways_of_keras * 2
    for _, row in rows.iterrows():
        values = [float(value) for value in row["values"].split()]
        assert len(values) == 2 and row["median"] == pytest.approx(np.median(values), rel=1e-3)
        assert row["unit"] == "images/s" and row["ratio"] > 0
    assert rows.groupby("what")["ratio"].first().tolist() == [1, 1]
    assert rows["machine"].str.contains("2 threads").all() and rows["machine"].str.endswith("quick").all()
    assert outcome.out.count("left out: PyTorch") == 2 and "left out: reading" in outcome.out
    assert all(way in outcome.out.partition("ratio")[2] for way in ways_of_keras)


def test_rows_of_other_measurements_stay(call, csvs, tmp_path):
    place, path = ("--input", csvs, "--output", tmp_path / "out"), tmp_path / "out/benchmark.csv"
    assert call("benchmark", *QUICK, *place, "--only", "read").code == 0
    rows = pd.read_csv(path)
    assert rows["way"].tolist() == ["pandas.read_csv", "ours"]
    assert set(rows["what"]) == {"read"} and set(rows["unit"]) == {"s"} and rows["ratio"][0] == 1
    assert list(path.parent.iterdir()) == [path]

    old = rows.assign(median=77.0)
    pd.concat([old, old.assign(machine="another processor")]).to_csv(path, index=False)
    outcome = call("benchmark", *QUICK, *place, "--only", "read")
    assert outcome.code == 0 and "77.00" not in outcome.out
    rows = pd.read_csv(path)
    assert rows["machine"].eq("another processor").tolist() == [True, True, False, False]
    assert rows["median"][:2].tolist() == [77, 77] and (rows["median"][2:] < 77).all()


def test_from_the_csvs_to_submission_csv(call, csvs, tmp_path):
    line = ("benchmark", *QUICK, "--input", csvs, "--output", tmp_path / "out", "--only", "submission")
    assert call(*line).code == 0
    (row,) = pd.read_csv(tmp_path / "out/benchmark.csv").to_dict("records")
    assert (row["what"], row["unit"]) == ("2 folds to submission.csv", "s") and row["median"] > 1
    assert [0 <= float(accuracy) <= 1 for accuracy in row["values"].split()] == [True] * 2


def test_an_interruption_keeps_each_training(call, csvs, tmp_path, monkeypatch):
    results = iter([(9.0, [0.9, 0.994]), (2.0, [0.995]), None, (8.0, [0.9]), (2.0, [0.995])])
    trained = []

    def train(way, dataset, recipe, accuracy):
        assert (recipe.holdout, recipe.folds, accuracy) == (0.15, 1, 0.994)
        trained.append((recipe.seed, recipe.name))
        if (result := next(results)) is None:
            raise KeyboardInterrupt
        return result

    monkeypatch.setattr(ways, "train_to_accuracy", train)
    place = ("--input", csvs, "--output", tmp_path / "out", "--only", "accuracy")
    outcome = call("benchmark", *QUICK, *place, "--seeds", 42, 43)
    assert outcome.code == 130 and "accuracy goes on" in outcome.error
    assert call("benchmark", *QUICK, *place, "--seeds", 42, 43).code == 0
    assert trained == [(42, "bn_cnn"), (42, "fast"), (43, "bn_cnn"), (43, "bn_cnn"), (43, "fast")]
    rows = pd.read_csv(tmp_path / "out/benchmark.csv")
    assert rows["what"].tolist() == ["to 0.9940, seed 42"] * 2 + ["to 0.9940, seed 43"] * 2
    assert rows["median"].tolist() == [9, 2, 8, 2] and rows["ratio"].tolist() == [1, 4.5, 1, 4]
    assert rows["unit"].tolist() == ["s", "s", "s, not reached", "s"]
    assert rows["values"].tolist() == ["0.9000 0.9940", "0.9950", "0.9000", "0.9950"]


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
@pytest.mark.parametrize("way", [ways.PUBLISHED, ways.OURS])
def test_a_training_ends_at_the_accuracy(dataset, small_recipe, way):
    recipe = recipes.change(small_recipe, {"holdout": 0.15, "epochs": 3})
    for accuracy, epochs in ((0.0, 1), (1.1, 3)):
        seconds, accuracies = ways.train_to_accuracy(way, dataset, recipe, accuracy)
        assert len(accuracies) == epochs and 0 <= accuracies[0] <= 1 and seconds > 0


def test_ways_take_turns(monkeypatch):
    clock, turns = [0.0], []
    monkeypatch.setattr(benchmark.time, "perf_counter", lambda: clock[0])
    # the first round does not count, and the machine is slow in the last one
    seconds = {"usual": iter([99, 4, 8]), "ours": iter([99, 2, 2])}

    def work(name):
        turns.append(name)
        clock[0] += next(seconds[name])

    ways_of_test = {name: functools.partial(work, name) for name in seconds}
    usual, ours = benchmark.compare("it", ways_of_test, quick=True, images=8)
    assert turns == ["usual", "ours"] * 3
    assert (usual["values"], usual["median"], usual["ratio"]) == ("2 1", 1.5, 1)
    assert (ours["values"], ours["median"], ours["ratio"], ours["unit"]) == ("4 4", 4, 3, "images/s")
    (row,) = benchmark.compare("it", {"returns its seconds": lambda: 2.5}, quick=True)
    assert (row["values"], row["median"], row["unit"]) == ("2.5 2.5", 2.5, "s")


def test_what_is_refused(call, csvs, empty_checkout, monkeypatch):
    (empty_checkout / "damaged").mkdir()
    (empty_checkout / "damaged/benchmark.csv").write_text("machine,what\n1,2\n")
    for arguments, words in (
        ([], "put it into input/, or give --input DIR or --quick"),
        (["--only", "train,reed"], "unknown part 'reed': did you mean read?"),
        (["--full", "--only", "train"], "not allowed with argument"),
        (["--threads", "0"], "at least 1"),
        (["--full", "--seeds", "42", "-1"], "seed=-1"),
        (["--quick", "--input", csvs, "--output", empty_checkout / "damaged"], "delete it and measure again"),
    ):
        assert refused(call("benchmark", *arguments), words)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    if importlib.util.find_spec("jax"):
        assert "set KERAS_BACKEND=tensorflow" in call("benchmark", "--quick").error


def test_pytorch():
    """It has the tutorial's network, and rotates, zooms and shifts each image by itself."""
    pytest.importorskip("torch", reason="PyTorch, which the benchmark compares with, is not installed")
    network = ways._torch_network()
    arrays = [*network.parameters(), *(buffer for buffer in network.buffers() if buffer.ndim)]
    assert sum(array.numel() for array in arrays) == 742_858

    image = np.zeros((28, 28), np.uint8)
    image[9:19, 12:16] = 255
    pixels = ways.torch.from_numpy(np.repeat(image[None], 400, axis=0))
    augmented = ways._torch_augment(pixels).numpy()[:, 0]
    assert augmented.shape == (400, 28, 28) and augmented.min() >= 0 and augmented.max() <= 1
    mass = augmented.sum(axis=(1, 2))
    for positions in np.mgrid[0:28, 0:28]:  # shifted by up to 2.8 pixels, or by 2.8 / 0.9 with zoom
        middle = (augmented * positions).sum(axis=(1, 2)) / mass
        assert middle.mean() == pytest.approx(13.5, abs=0.3) and 2.3 < np.abs(middle - 13.5).max() < 3.6
    area = mass / (image.sum() / 255)
    assert 0.8 < area.min() < 0.9 < 1.1 < area.max() < 1.25  # 1 / 1.1² to 1 / 0.9²

    images, labels = digits.sample().train_images[:128], digits.sample().train_labels[:128]
    ways.epochs(images, labels)[ways.TORCH]()
    assert sum(len(batch) for batch in ways.predictors(images)[ways.TORCH]()) == 128
