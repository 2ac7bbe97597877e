"""The benchmark: what it times and writes, what it makes of the seconds, and PyTorch's network."""

import dataclasses
import importlib.util
import json

import numpy as np
import pytest
from conftest import ROOT

from digit_recognizer import named_recipes, recipes
from digit_recognizer.benchmark import accuracy, parts, scaling, summary, timing, torch_baseline
from digit_recognizer.benchmark.torch_baseline import TorchTraining, TorchWay
from digit_recognizer.benchmark.workload import Workload
from digit_recognizer.training import backend, networks

QUICK = ("--quick", "--threads", 2)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch, which the benchmark compares with, is not installed")


@pytest.fixture
def no_torch(monkeypatch):
    """As on a machine without PyTorch, which most are."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else find(name))


@pytest.fixture
def quick_fast(monkeypatch):
    """The recipe fast with a network of dense layers, which is traced in a fifth of the time."""
    monkeypatch.setitem(networks.NETWORKS, "fast_cnn", networks.mlp)


def measured(folder):
    """benchmark.json's rows of each part."""
    results = json.loads((folder / "benchmark.json").read_text())
    return {part: found["rows"] for part, found in results["parts"].items()}


def check_compared(rows):
    """Rows of ways that took turns: the first is the usual one, and each has its rounds."""
    assert rows[0]["ratio"] == 1
    for row in rows:
        assert min(row["rounds"]) <= row["median"] <= max(row["rounds"])
        assert row["median"] > 0 and row["ratio"] > 0 and len(row["rounds"]) == 2


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # ImageDataGenerator's own
def test_parts_are_measured_and_kept(call, csvs, tmp_path):
    place = ("--input", csvs, "--output", tmp_path / "out")
    assert call("benchmark", *QUICK, *place, "--only", "c").code == 0
    assert not (tmp_path / "out" / "benchmark.png").exists()  # no part of it is one that a user waits for
    outcome = call("benchmark", *QUICK, *place, "--only", "e")
    assert outcome.code == 0, outcome.error
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"benchmark.json", "benchmark.png"}
    results = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert results["machine"]["threads"] == 2 and results["machine"]["versions"]["keras"]
    rows = measured(tmp_path / "out")
    assert [row["way"] for row in rows["e"]] == ["pandas.read_csv", "ours, checked"]
    assert [row["way"] for row in rows["c"]] == [
        "ImageDataGenerator",
        "Keras' three layers",
        "ours, uncompiled",
        "ours, compiled",
    ]
    for part in rows:
        check_compared(rows[part])
    for row in [*rows["c"], *rows["e"]]:
        assert row["way"] in outcome.out  # the table has what was measured before

    results["machine"]["device"] = "another processor"
    (tmp_path / "out" / "benchmark.json").write_text(json.dumps(results))
    outcome = call("benchmark", *QUICK, *place, "--only", "e")
    assert outcome.code == 2 and "another device" in outcome.error
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text()) == results


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
def test_training_and_predicting_are_measured(call, csvs, tmp_path, no_torch):
    """Parts a and f without PyTorch, which one sentence says."""
    outcome = call("benchmark", *QUICK, "--input", csvs, "--output", tmp_path / "out", "--only", "a,f")
    assert outcome.code == 0, outcome.error
    assert outcome.out.count("left out: PyTorch, which is not installed: pip install -r src/") == 2
    rows = measured(tmp_path / "out")
    ways = [row["way"] for row in rows["a"]]
    assert ways[0] == "as published" and ways[1].startswith("ours, uncompiled, float32")
    assert sum(way.endswith("(chosen here)") for way in ways) == 1
    check_compared(rows["a"])
    assert all(row["unit"] == "images/s" for row in rows["a"])
    ensembles, ways = rows["f"][:2], rows["f"][2:]
    assert [row["way"] for row in ensembles] == ["fast", "bn_cnn"]
    for row in ensembles:
        assert len(row["rounds"]) == 3 and row["median"] == sum(row["rounds"])
    assert [row["way"] for row in ways] == ["model.predict", "ours"]
    check_compared(ways)


def test_the_pieces_of_a_step_are_measured(call, csvs, tmp_path):
    """Part d."""
    outcome = call("benchmark", *QUICK, "--input", csvs, "--output", tmp_path / "out", "--only", "d")
    assert outcome.code == 0, outcome.error
    rows = measured(tmp_path / "out")["d"]
    assert [row["way"] for row in rows] == ["as published", "ours, uncompiled", "ours, compiled"] * 4
    for first in range(0, 12, 3):
        check_compared(rows[first : first + 3])


def test_growth_is_measured(call, csvs, tmp_path, quick_fast):
    """Part g."""
    outcome = call("benchmark", *QUICK, "--input", csvs, "--output", tmp_path / "out", "--only", "g")
    assert outcome.code == 0, outcome.error
    rows = measured(tmp_path / "out")["g"]
    assert [(row["what"], row["way"]) for row in rows] == [
        *[("epochs", f"{number} to {number}") for number in (1, 2, 3)],
        *[("members", f"{number} to {number}") for number in (1, 2, 3)],
        *[("rows of an epoch", str(count)) for count in (512, 1024)],
    ]
    assert all(row["cost"] > 0 and row["median"] > 0 and "ratio" not in row for row in rows)
    assert [row["cost"] for row in rows if row["way"] in ("1 to 1", "512")] == [1, 1, 1]
    peaks = [row["peak_mib"] for row in rows[:6]]
    assert peaks == sorted(peaks) and peaks[0] > 100


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
def test_seeds_that_were_measured_stay(call, csvs, tmp_path, no_torch, quick_fast):
    for seeds in (["42"], ["42", "43"]):
        place = ("--input", csvs, "--output", tmp_path / "out")
        outcome = call("benchmark", *QUICK, *place, "--only", "b", "--seeds", *seeds)
        assert outcome.code == 0, outcome.error
        rows = {(row["what"], row["way"]): row for row in measured(tmp_path / "out")["b"]}
        if seeds == ["42"]:
            first = rows
    for way in (accuracy.AS_PUBLISHED, "fast"):
        taken = [rows[f"to 0.9940, seed {seed}", way]["median"] for seed in (42, 43)]
        assert taken[0] == first["to 0.9940, seed 42", way]["median"]
        assert rows["to 0.9940", way]["rounds"] == taken
        assert "commit" in rows["to 0.9940, seed 43", way]
    assert rows["to 0.9940", "fast"]["ratio"] > 0


def seed_row(seed, way, seconds, *accuracies):
    """A row of part b as earlier commits wrote it."""
    what = f"to 0.9940, seed {seed}"
    return {"what": what, "way": way, "unit": "s", "median": seconds, "accuracies": list(accuracies)}


def test_seeds_of_ways_that_are_left_out_stay(monkeypatch, no_torch):
    old = [
        seed_row(42, way, 9.0, 0.995)
        for way in (accuracy.AS_PUBLISHED, "bn_cnn", "bn_cnn, PyTorch, eager, float32", "fast")
    ]
    median = {"what": "to 0.9940", "way": "bn_cnn", "unit": "s", "median": 9.0, "ratio": 1.0}
    monkeypatch.setattr(accuracy, "_measure", lambda *_: pytest.fail("a seed is measured again"))
    workload = Workload(None, None, [42], 2, measured={"b": [*old, median]})
    *seeds, published, fast = accuracy.measure_time_to_accuracy(workload)
    assert seeds == old
    assert [row["way"] for row in (published, fast)] == [accuracy.AS_PUBLISHED, "fast"]


def test_an_accuracy_that_is_not_reached_is_told(call, csvs, tmp_path, monkeypatch, no_torch):
    """By the seed's row, the table and the chart."""
    trained = {"bn_cnn": [[0.9, 0.9939], [0.994]], "fast": [[0.9940], [0.9, 0.9951]]}  # of seeds 42 and 43

    def train(recipe, dataset, member, watch):
        for each in trained[recipe.name].pop(0):
            watch(each)

    monkeypatch.setattr(accuracy, "_train_as_published", train)
    monkeypatch.setattr(accuracy, "_train_as_here", train)
    place = ("--input", csvs, "--output", tmp_path / "out", "--seeds", 42, 43)
    outcome = call("benchmark", *QUICK, *place, "--only", "b")
    assert outcome.code == 0, outcome.error
    rows = measured(tmp_path / "out")["b"]
    seeds = {(row["what"], row["way"]): row["reached"] for row in rows[:4]}
    assert [what for what, reached in seeds.items() if not reached] == [
        ("to 0.9940, seed 42", accuracy.AS_PUBLISHED)
    ]
    assert outcome.out.count("to 0.9940, seed 42, not reached") == 2  # while it measures, and in the table
    assert outcome.out.count("to 0.9940, not reached by every seed") == 2
    (axes,) = summary.draw({"b": rows}).axes
    ends = [text.get_text().endswith("not reached by every seed") for text in axes.texts]
    assert ends == [True, False]


def test_an_interruption_keeps_what_was_measured(call, csvs, tmp_path, monkeypatch):
    """All rows of a part that has ended before, and each new seed of part b."""
    place = ("--input", csvs, "--output", tmp_path / "out")

    def measure(part, rows, code):
        def interrupted(_):
            yield from rows
            if code:
                raise KeyboardInterrupt

        monkeypatch.setitem(parts.PARTS, part, interrupted)
        outcome = call("benchmark", *QUICK, *place, "--only", part)
        assert outcome.code == code, outcome.error
        return measured(tmp_path / "out")[part]

    old = [{"what": "reading", "way": way, "unit": "s", "median": 1.0} for way in ("usual", "ours")]
    assert measure("e", old, 0) == old
    assert measure("e", [old[0] | {"median": 2.0}], 130) == old
    assert measure("e", [old[1]], 0) == [old[1]]

    first, second = (seed_row(seed, "fast", 9.0, 0.995) for seed in (42, 43))
    median = {"what": "to 0.9940", "way": "fast", "unit": "s", "median": 9.0, "ratio": 1.0}
    assert measure("b", [first, median], 0) == [first, median]
    assert measure("b", [first], 130) == [first, median]
    assert measure("b", [first, second], 130) == [first, median, second]


def test_the_chart_has_what_a_user_waits_for():
    def compared(what, *ways):
        return [
            {"what": what, "way": way, "median": 6.0 / (1 + number), "unit": "s", "ratio": 7.0}
            for number, way in enumerate(ways)
        ]

    alone = {"what": "predicting 9 rows", "way": "fast", "median": 1.0, "unit": "s"}
    found = {
        "a": compared("training", "as published", "ours", "PyTorch"),
        "c": compared("augmenting", "usual", "ours"),
        "d": compared("normalising", "usual", "ours"),
        "f": [alone, *compared("predicting", "model.predict", "ours")],
    }
    figure = summary.draw(found)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["training", "predicting"]
    ways = [[label.get_text() for label in axes.get_yticklabels()] for axes in figure.axes]
    assert ways == [["as published", "ours", "PyTorch"], ["model.predict", "ours"]]
    assert [bar.get_width() for bar in figure.axes[0].patches] == [1, 2, 3]
    assert summary.draw({"c": found["c"]}) is None


def test_the_bars_are_as_long_as_their_labels_say():
    """Rates as well as times, whatever the rounds' own ratios are."""
    for unit, medians in (("images/s", [400.0, 500.0, 600.0]), ("s", [3.0, 2.4, 2.0])):
        rows = [
            {"what": "training", "way": str(ratio), "median": median, "unit": unit, "ratio": ratio}
            for median, ratio in zip(medians, [1.0, 1.6, 1.4], strict=True)
        ]
        (axes,) = summary.draw({"a": rows}).axes
        assert [bar.get_width() for bar in axes.patches] == pytest.approx([1, 1.25, 1.5])
        assert [text.get_text().split(", ")[1] for text in axes.texts] == ["1", "1.25", "1.5"]


def test_what_is_refused(call, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "ROOT", tmp_path)
    for arguments, words in (
        ([], "competition's files"),
        (["--only", "a,z"], "no part 'z'"),
        (["--full", "--only", "a"], "not allowed with argument"),
        (["--threads", "0"], "at least 1"),
        (["--full", "--seeds", "42", "-1"], "seed=-1"),
        (["--input", tmp_path], "train.csv is missing"),
    ):
        outcome = call("benchmark", *arguments)
        assert outcome.code == 2 and words in outcome.error and outcome.error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when `clock(seconds)` is called."""
    seconds = [0.0]

    def wait(more):
        seconds[0] += more

    monkeypatch.setattr(timing.time, "perf_counter", lambda: seconds[0])
    return wait


def test_ways_take_turns(clock):
    turns = []
    taken = {"usual": iter([9, 4, 8, 4]), "ours": iter([6, 2, 2, 1])}  # the machine is slow in the second

    def way(name):
        def call():
            turns.append(name)
            clock(next(taken[name]))

        return call

    usual, ours = timing.compare(
        "it", {name: way(name) for name in taken}, 3, "images/s", lambda seconds: 8 / seconds
    )
    assert turns == ["usual", "ours"] * 4
    assert usual["rounds"] == [2, 1, 2] and usual["median"] == 2 and usual["ratio"] == 1
    assert ours["rounds"] == [4, 4, 8] and ours["median"] == 4 and ours["ratio"] == 4
    assert (usual["fastest"], ours["fastest"]) == (2, 8)
    assert (usual["start_seconds"], ours["start_seconds"]) == (5, 4)


def test_a_way_may_tell_its_own_time(clock):
    def way():
        clock(9)
        return 2.5

    (row,) = timing.compare("it", {"without its end": way}, 3)
    assert row["rounds"] == [2.5] * 3


def test_a_slow_machine_makes_three_rounds(clock):
    (row,) = timing.compare("it", {"slowly": lambda: clock(100)}, 9)
    assert row["rounds"] == [100] * 3


def test_growth_is_told_by_groups(clock):
    moments = []
    for seconds, probe, peak in [
        (50, 1, 300),  # warms up
        (1, 1, 310),
        (2, 1, 320),
        (1, 1, 330),
        (2, 3, 340),  # the machine is slow from here on
        (6, 3, 350),
        (6, 3, 360),
        (9, 3, 370),
    ]:
        clock(seconds)
        moments.append(now := timing.moment(lambda: clock(probe)))  # noqa: B023
        assert now.peak_mib > 1
        moments[-1] = dataclasses.replace(now, peak_mib=peak)
    few, many, rest = timing.growth("members", moments, 3)
    assert (few["way"], few["median"], few["cost"], few["peak_mib"]) == ("1 to 3", 1, 1, 330)
    assert (many["way"], many["median"], many["cost"], many["peak_mib"]) == ("4 to 6", 6, 2, 360)
    assert (rest["way"], rest["rounds"], rest["probes"], rest["cost"]) == ("7 to 7", [9], [3], 3)
    assert "peak, MiB" in summary.table([few, many, rest])


def test_every_part_can_be_chosen():
    assert parts.choose_parts("b,a,g") == ["g", "a", "b"]
    assert set(parts.choose_parts(parts.USUAL)) == set(parts.PARTS) - {"b"}


def test_part_b_takes_the_fastest_way_of_part_a():
    ways = [TorchWay(dtype, compiled) for dtype in ("float32", "bfloat16") for compiled in (False, True)]
    trained = [{"way": way.name, "median": speed} for way, speed in zip(ways, (3, 9, 4, 5), strict=True)]
    assert accuracy.fastest_way(ways, trained) == ways[1]
    assert accuracy.fastest_way(ways, []) == TorchWay("bfloat16", False)
    assert accuracy.fastest_way([], trained) is None


def test_pytorch_is_not_compared_with_an_accelerator(monkeypatch, capsys):
    monkeypatch.setattr(backend, "find_accelerator", lambda: {"count": 1, "device_name": "GPU"})
    assert Workload(None, None, [], 2).torch_ways() == []
    assert capsys.readouterr().out == "left out: PyTorch, which computes on the processor alone here\n"


def test_the_page_has_the_simulation_of_every_machine():
    page = (ROOT / "output" / "reference" / "benchmark" / "README.md").read_text()
    driver = scaling.DriverCosts(member=0.002, epoch=0.013)  # as the page says
    assert scaling.table(driver) in page
    assert "laptop, 2 cores with AVX2, float32" in page


def test_without_a_compiler_pytorch_is_uncompiled(torch, monkeypatch, capsys):
    assert len(torch_baseline.torch_ways(2, half_precision=True, compiled=True)) == 4
    assert torch_baseline.torch_ways(2, half_precision=False) == [TorchWay("float32", False)]
    assert not capsys.readouterr().out
    monkeypatch.setenv("CXX", "no-such-compiler")
    ways = torch_baseline.torch_ways(2, half_precision=False, compiled=True)
    assert ways == [TorchWay("float32", False)]
    assert "left out: torch.compile, which needs a C++ compiler" in capsys.readouterr().out


def with_weights(network, model):
    """Gives PyTorch's `network` the weights of Keras' `model`, and returns its parameters in that order."""
    from torch import nn

    layers = iter([layer for layer in model.layers if layer.weights])
    parameters = []
    for layer in network:
        if not isinstance(layer, nn.Conv2d | nn.Linear | nn.BatchNorm1d | nn.BatchNorm2d):
            continue
        arrays = [to_torch(array) for array in next(layers).get_weights()]
        if arrays[0].shape == (256, 1728):  # Keras flattens (rows, columns, channels)
            arrays[0] = flat_order(arrays[0])
        own = [
            layer.weight,
            layer.bias,
            *([layer.running_mean, layer.running_var] if len(arrays) == 4 else []),
        ]
        for tensor, array in zip(own, arrays, strict=True):
            tensor.data.copy_(array)
        parameters += [layer.weight, layer.bias]
    return parameters


def to_torch(array):
    """Keras' kernel (3, 3, inputs, outputs) or (inputs, outputs) as PyTorch has it; a vector stays."""
    import torch

    tensor = torch.from_numpy(np.array(array))
    return tensor.permute(3, 2, 0, 1) if tensor.ndim == 4 else tensor.T if tensor.ndim == 2 else tensor


def flat_order(weights):
    """(256, rows * columns * channels) with its columns in PyTorch's order."""
    return weights.reshape(256, 3, 3, 192).permute(0, 3, 1, 2).reshape(256, -1)


def gradients_apart(torch, model, network, seed):
    """By how much PyTorch's gradients differ from Keras' on a batch of noise, relative to the larger of them and 1."""
    import keras
    import tensorflow as tf

    images = np.random.default_rng(seed).integers(0, 256, (4, 28, 28)).astype(np.uint8)  # few equals to pool
    labels = np.arange(4)
    keras.utils.set_random_seed(seed)
    model.set_weights(keras.models.clone_model(model).get_weights())
    parameters = with_weights(network, model)
    network.eval()
    assert torch_baseline.predict(network, TorchWay("float32", False), images) == pytest.approx(
        model.predict(images, verbose=0), abs=1e-5
    )
    network.train()
    network.zero_grad()
    network[15].p = 0.0  # dropout
    pixels = torch.from_numpy(images)[:, None] / 255
    torch.nn.functional.cross_entropy(network(pixels), torch.from_numpy(labels)).backward()
    with tf.GradientTape() as tape:
        losses = keras.losses.sparse_categorical_crossentropy(labels, model(images, training=True))
        loss = tf.reduce_mean(losses)
    expected = [to_torch(gradient.numpy()) for gradient in tape.gradient(loss, model.trainable_variables)]
    expected = [flat_order(each) if each.shape == (256, 1728) else each for each in expected]
    # the biases before a normalisation have a gradient of 0
    return max(
        float((parameter.grad - wanted).norm()) / max(1.0, float(wanted.norm()))
        for parameter, wanted in zip(parameters, expected, strict=True)
    )


def test_pytorchs_network_is_the_tutorials(torch):
    """As many parameters, and for the same weights and batch the same probabilities and gradients as Keras' network."""
    from digit_recognizer.training import networks

    plain = dict.fromkeys(("rotation", "zoom", "shift", "dropout"), 0.0)
    model = networks.build(recipes.change(named_recipes.named("bn_cnn"), plain))
    network = torch_baseline.build()
    numbers = [*network.parameters(), *(each for each in network.buffers() if each.ndim)]
    assert sum(each.numel() for each in numbers) == model.count_params() == 742_858

    apart = [gradients_apart(torch, model, network, seed) for seed in range(5)]
    # rounding picks among pixels that are pooled and nearly equal: never much, and not in every batch
    assert max(apart) < 0.02 and min(apart) < 1e-4
    moved = network[1].running_var.detach().numpy()  # normalisation's averages move alike, too
    assert moved == pytest.approx(
        next(each for each in model.layers if "batch_norm" in each.name).moving_variance.numpy(), rel=1e-3
    )


def test_pytorch_augments_each_picture_by_itself(torch):
    torch.manual_seed(0)
    picture = np.zeros((28, 28), np.uint8)
    picture[9:19, 12:16] = 255
    images = torch.from_numpy(np.repeat(picture[None], 400, axis=0))
    augmented = torch_baseline.augment(images).numpy()[:, 0]
    assert augmented.shape == (400, 28, 28) and augmented.min() >= 0 and augmented.max() <= 1
    y, x = np.mgrid[0:28, 0:28]
    mass = augmented.sum(axis=(1, 2))
    rows, columns = ((augmented * each).sum(axis=(1, 2)) / mass for each in (y, x))
    for middle in (
        rows,
        columns,
    ):  # shifted by up to 2.8 pixels, evenly, or by 2.8 / 0.9 with zoom; rotation moves the middle by little
        assert middle.mean() == pytest.approx(13.5, abs=0.3)
        assert 2.3 < np.abs(middle - 13.5).max() < 3.6
    down, across = y - rows[:, None, None], x - columns[:, None, None]
    tilt = (augmented * down * across).sum(axis=(1, 2)) / (augmented * down**2).sum(axis=(1, 2))
    # the tangent of up to 10 degrees, times what a bar that is not thin tilts
    assert 0.11 < np.abs(tilt).max() < 0.19 and abs(tilt.mean()) < 0.02
    area = mass / (picture.sum() / 255)
    assert 0.8 < area.min() < 0.9 < 1.1 < area.max() < 1.25  # 1 / 1.1² to 1 / 0.9²


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pytorchs_training_learns(torch, dtype):
    from digit_recognizer.data import digits

    images, labels = digits.sample().train_images[:128], digits.sample().train_labels[:128]
    training = TorchTraining(TorchWay(dtype, False), seed=0)
    for _ in range(6):
        assert training.epoch(images, labels) > 0
    training.network.train()  # normalisation's averages take hundreds of steps
    with torch.no_grad():
        logits = training.network(torch.from_numpy(images)[:, None] / 255)
        loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(labels.astype(int)))
    assert loss < 1.5  # a network that knows nothing has 2.3
    accuracy, loss = training.evaluate(images, labels)
    assert 0 <= accuracy <= 1 and loss > 0


def test_pytorchs_schedule_is_the_published_one(torch, monkeypatch):
    """The rate is halved after 3 epochs without a better accuracy, training stops after 10 without a lower loss."""
    from digit_recognizer.data import digits

    rates, watched = [], []
    accuracies = iter([0.5, 0.6, *[0.6] * 20])
    monkeypatch.setattr(
        TorchTraining, "epoch", lambda self, *_: rates.append(self.optimizer.param_groups[0]["lr"])
    )
    monkeypatch.setattr(TorchTraining, "evaluate", lambda self, *_: (next(accuracies), 1.0))
    rows = digits.sample().train_images[:1], digits.sample().train_labels[:1]
    torch_baseline.train_as_published(TorchWay("float32", False), 0, 50, rows, rows, watched.append)
    assert rates == pytest.approx([1e-3] * 5 + [5e-4] * 3 + [2.5e-4] * 3)
    assert watched == [0.5, *[0.6] * 10]


def test_pytorch_is_measured(torch, call, csvs, tmp_path):
    """Parts a, f and b."""
    place = ("--input", csvs, "--output", tmp_path / "out", "--seeds", 42)
    outcome = call("benchmark", *QUICK, *place, "--only", "a,f,b")
    assert outcome.code == 0, outcome.error
    rows = measured(tmp_path / "out")
    for compared in (rows["a"], rows["f"][2:]):
        check_compared(compared)
        assert "PyTorch, eager, float32" in [row["way"] for row in compared]
    (row,) = [row for row in rows["b"] if "seed" in row["what"] and "PyTorch" in row["way"]]
    assert row["way"].startswith("bn_cnn, PyTorch, eager") and len(row["accuracies"]) == 1
