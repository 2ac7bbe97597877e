"""Times training, reading and predicting beside the usual ways to do them."""

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from digit_recognizer import files, recipes
from digit_recognizer.data import digits, paths
from digit_recognizer.data.digits import SIDE, Dataset
from digit_recognizer.files import UserError
from digit_recognizer.training import backend

# The columns of benchmark.csv. `median` is that of `values`; `ratio` says how many times as fast as the usual way.
KEY = ["machine", "what", "way"]
COLUMNS = [*KEY, "median", "unit", "ratio", "values", "date", "commit"]
HOLDOUT, ACCURACY = 0.15, 0.9940

Row = dict[str, Any]


def run_benchmark(
    input: Path | None, output: Path | None, parts: list[str], seeds: list[int], threads: int, quick: bool
) -> None:
    """Measures some of PARTS, prints a table and writes benchmark.csv, where the rows of other measurements stay.

    The arguments are the options of scripts/benchmark.py. Raises UserError if there is no data, if the backend is not
    TensorFlow, or if benchmark.csv is damaged.
    """
    if backend.choose() != "tensorflow":
        raise UserError("the benchmark needs TensorFlow: set KERAS_BACKEND=tensorflow")
    output = paths.output_folder(output, "benchmark_quick" if quick else "benchmark")
    locations = paths.resolve(input, output)
    if locations.is_sample and not quick:
        raise UserError("the benchmark needs data: put it into input/, or give --input DIR or --quick")
    with locations.announced():
        dataset, path = digits.load(locations.input), output / "benchmark.csv"
        rows = read_rows(path)
        backend.start(threads)
        facts = backend.session_facts(threads, "auto")
        machine = f"{facts['device']}, {threads} threads, {facts['compute_dtype']}"
        if "ONEDNN_MAX_CPU_ISA" in os.environ:
            machine += f", ONEDNN_MAX_CPU_ISA={os.environ['ONEDNN_MAX_CPU_ISA']}"
        machine += ", quick" * quick
        known = [row for row in rows if row["machine"] == machine]
        measure = {
            "train": lambda: time_images("train", dataset, quick),
            "read": lambda: time_reading(locations.input, quick),
            "predict": lambda: time_images("predict", dataset, quick),
            "accuracy": lambda: time_to_accuracy(dataset, seeds, quick, known),
        }
        stamp = {"machine": machine, "date": date.today().isoformat(), "commit": files.commit()}
        output.mkdir(parents=True, exist_ok=True)
        for part in parts:
            print(f"measuring: {part}", flush=True)
            for timing in measure[part]():
                row = stamp | timing
                print(f"{row['what']}: {row['way']}: {row['median']:,.2f} {row['unit']}", flush=True)
                rows = [old for old in rows if any(old[name] != row[name] for name in KEY)] + [row]
                with files.atomic(path) as file:
                    pd.DataFrame(rows, columns=COLUMNS).to_csv(file, index=False, float_format="%.6g")
        table = pd.DataFrame([row for row in rows if row["machine"] == machine], columns=COLUMNS)
        table = table.set_index(KEY[1:])[["median", "unit", "ratio"]]
        print(f"\n{table.to_string(float_format='{:,.2f}'.format)}\n\n{machine}: {path}")


def read_rows(path: Path) -> list[Row]:
    """Returns the rows of benchmark.csv, none if it does not exist; raises UserError if it is damaged."""
    if not path.exists():
        return []
    with files.reading(path, "delete it and measure again"):
        types = dict.fromkeys(COLUMNS, str) | {"median": float, "ratio": float}
        return pd.read_csv(path, dtype=types)[COLUMNS].to_dict("records")


def time_images(part: str, dataset: Dataset, quick: bool) -> Iterator[Row]:
    """Times training without validation (`train`) or prediction without test-time augmentation (`predict`)."""
    names = ["ways"]
    if importlib.util.find_spec("torch") and not backend.find_accelerator():
        names.append("torch_baseline")
    else:
        requirements = "src/digit_recognizer/benchmark/requirements.txt"
        print(f"left out: PyTorch, which takes part on a processor after pip install -r {requirements}")
    count = 256 if quick else 38_400 if backend.find_accelerator() else 3_840
    images = np.resize(dataset.train_images, (count, SIDE, SIDE))
    labels = np.resize(dataset.train_labels, count)
    ways = {}
    for name in names:
        module = importlib.import_module(f"digit_recognizer.benchmark.{name}")
        ways |= module.epochs(images, labels) if part == "train" else module.predictors(images)
    return compare(part, ways, quick, count)


def time_reading(input: Path | None, quick: bool) -> Iterator[Row]:
    """Times reading the CSVs in the folder `input`, if there are any."""
    csvs = list(input.glob("*.csv")) if input else []
    if not csvs:
        print("left out: reading, because the data has no CSVs")
    ways = {
        "pandas.read_csv": lambda: [pd.read_csv(path) for path in csvs],
        "ours": lambda: digits.load(input),
    }
    return compare("read", ways if csvs else {}, quick)


def compare(what: str, ways: dict[str, Callable[[], Any]], quick: bool, images: int = 0) -> Iterator[Row]:
    """Times ways to do the same work in turns, so that a machine that is busy for a while is busy for all of them.

    The first of `ways` is the usual one. A way that returns a float returns its seconds. A first round, which compiles,
    is not counted. Yields a row for each way, in images/s for this number of `images`, in seconds without it.
    """
    seconds = np.array([[_time(way) for way in ways.values()] for _ in range(3 if quick else 6)])[1:]
    values, ratios = images / seconds if images else seconds, seconds[:, :1] / seconds
    for number, way in enumerate(ways):
        row = {"what": what, "way": way, "unit": "images/s" if images else "s"}
        row |= {"median": np.median(values[:, number]), "ratio": np.median(ratios[:, number])}
        yield row | {"values": " ".join(f"{value:.4g}" for value in values[:, number])}


def _time(way: Callable[[], Any]) -> float:
    began = time.perf_counter()
    seconds = way()
    return seconds if isinstance(seconds, float) else time.perf_counter() - began


def time_to_accuracy(dataset: Dataset, seeds: list[int], quick: bool, known: list[Row]) -> Iterator[Row]:
    """Times trainings until they reach ACCURACY, except those that have a row in `known`."""
    from digit_recognizer.benchmark import ways

    for seed in seeds:
        what = f"to {ACCURACY:.4f}, seed {seed}"
        medians = {row["way"]: row["median"] for row in known if row["what"] == what}
        for way, recipe in {ways.PUBLISHED: ways.BN_CNN, ways.OURS: ways.FAST}.items():
            if way not in medians:
                options = {"holdout": HOLDOUT, "seed": seed} | ({"epochs": 1} if quick else {})
                recipe = recipes.change(recipe, options)
                medians[way], accuracies = ways.train_to_accuracy(way, dataset, recipe, ACCURACY)
                row = {"what": what, "way": way, "median": medians[way]}
                row |= {"unit": "s" if max(accuracies) >= ACCURACY else "s, not reached"}
                row |= {"ratio": medians[ways.PUBLISHED] / medians[way]}
                yield row | {"values": " ".join(f"{accuracy:.4f}" for accuracy in accuracies)}
