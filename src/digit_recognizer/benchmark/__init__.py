"""Measured comparisons with the usual ways to do the same work: training, reading and predicting."""

import os
import shutil
import subprocess
import sys
import tempfile
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

# Columns of benchmark.csv. `values`: each round's, or accuracies beside a time; `ratio`: times as fast as usual.
KEY = ["machine", "what", "way"]
COLUMNS = [*KEY, "median", "unit", "ratio", "values", "date", "commit"]
ACCURACY = 0.9940

Row = dict[str, Any]


def run_benchmark(
    input: Path | None, output: Path | None, parts: list[str], seeds: list[int], threads: int, quick: bool
) -> None:
    """Measures some `parts`, prints a table and writes benchmark.csv, where the rows of other measurements stay.

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
        dataset, path, rows = digits.load(locations.input), output / "benchmark.csv", []
        if path.exists():
            with files.reading(path, "delete it and measure again"):
                types = dict.fromkeys(COLUMNS, str) | {"median": float, "ratio": float}
                rows = pd.read_csv(path, dtype=types)[COLUMNS].to_dict("records")
        os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # `submission` runs in processes of its own
        backend.start(threads)
        facts = backend.session_facts(threads, "auto")
        machine = f"{facts['device']}, {threads} threads, {facts['compute_dtype']}" + ", quick" * quick
        stamp = {"machine": machine, "date": date.today().isoformat(), "commit": files.commit()}
        output.mkdir(parents=True, exist_ok=True)
        for part in parts:
            print(f"measuring: {part}", flush=True)
            if part == "accuracy":
                timings = time_to_accuracy(dataset, seeds, quick, [row for row in rows if row["machine"] == machine])
            elif part == "submission":
                timings = time_submission(locations.input, quick)
            else:
                timings = time_reading(locations.input, quick) if part == "read" else time_images(part, dataset, quick)
            for row in timings:
                print(f"{row['what']}: {row['way']}: {row['median']:,.2f} {row['unit']}", flush=True)
                rows = [old for old in rows if any(old[name] != (stamp | row)[name] for name in KEY)] + [stamp | row]
                with files.atomic(path) as file:
                    pd.DataFrame(rows, columns=COLUMNS).to_csv(file, index=False, float_format="%.6g")
        table = pd.DataFrame([row for row in rows if row["machine"] == machine], columns=COLUMNS).set_index(KEY[1:])
        text = table[["median", "unit", "ratio"]].to_string(float_format="{:,.2f}".format)
        print(f"\n{text}\n\n{machine}: {path}")


def time_images(part: str, dataset: Dataset, quick: bool) -> Iterator[Row]:
    """Times training without validation (`train`) or prediction without test-time augmentation (`predict`)."""
    from digit_recognizer.benchmark import ways  # with Keras

    count = 256 if quick else 38_400 if backend.find_accelerator() else 3_840
    images, labels = np.resize(dataset.train_images, (count, SIDE, SIDE)), np.resize(dataset.train_labels, count)
    timed = ways.epochs(images, labels) if part == "train" else ways.predictors(images)
    if ways.TORCH not in timed:
        print("left out: PyTorch, which is measured on a processor if it is installed")
    return compare(part, timed, quick, count)


def time_reading(input: Path | None, quick: bool) -> Iterator[Row]:
    """Times reading the CSVs in the folder `input`, if it has any."""
    csvs = list(input.glob("*.csv")) if input else []
    if not csvs:
        print("left out: reading, because the data has no CSVs")
        return iter(())
    ways = {"pandas.read_csv": lambda: [pd.read_csv(path) for path in csvs], "ours": lambda: digits.load(input)}
    return compare("read", ways, quick)


def time_submission(input: Path | None, quick: bool) -> Iterator[Row]:
    """Times the folds of `fast`, from the files in `input` to submission.csv; with several GPUs, one fold on each."""
    data = ["--input", str(input)] if input else []
    with tempfile.TemporaryDirectory() as folder:
        stages = [["train", "--recipe", "fast", *(("--folds=2", "--epochs=1") if quick else ())], ["ensemble"]]
        began = time.perf_counter()
        for name, *options in stages:
            line = [sys.executable, str(files.ROOT / f"scripts/{name}.py"), *options, *data, "--output", folder]
            if subprocess.run(line, stdout=subprocess.DEVNULL).returncode:
                raise UserError(f"scripts/{name}.py fails: the line before this one says why")
        seconds = time.perf_counter() - began
        metrics = [files.read_json(path) for path in sorted(Path(folder).glob("fold_*/metrics.json"))]
    what, values = f"{len(metrics)} folds to submission.csv", " ".join(f"{fold['accuracy']:.5f}" for fold in metrics)
    yield dict(zip(COLUMNS[1:-2], (what, "fast, ours", seconds, "s", 1.0, values), strict=True))


def compare(what: str, ways: dict[str, Callable[[], Any]], quick: bool, images: int = 0) -> Iterator[Row]:
    """Times ways to do the same work in turns: a machine that is busy for a while is busy for all of them.

    The first of `ways` is the usual one. If a way returns a float, that is its time in seconds. A first round, in which
    functions are compiled, does not count. Yields a row for each way, in images/s if there are `images`, else in
    seconds.
    """
    seconds = np.array([[_time(way) for way in ways.values()] for _ in range(3 if quick else 6)])[1:]
    values, ratios = images / seconds if images else seconds, seconds[:, :1] / seconds
    for number, way in enumerate(ways):
        median, ratio = np.median(values[:, number]), np.median(ratios[:, number])
        texts = " ".join(f"{value:.4g}" for value in values[:, number])
        row = what, way, median, "images/s" if images else "s", ratio, texts
        yield dict(zip(COLUMNS[1:-2], row, strict=True))
    for way, work in ways.items():
        if shares := _gpu_use(work):
            row = f"{what}, GPU in use", way, float(np.mean(shares)), "%", np.nan, " ".join(map(str, shares))
            yield dict(zip(COLUMNS[1:-2], row, strict=True))


def _gpu_use(way: Callable[[], Any]) -> list[int]:
    """Returns the first GPU's utilisation in percent, every 0.2 s while a way works; nothing without nvidia-smi."""
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "--id=0", "--loop-ms=200"]
    if not shutil.which(query[0]) or not backend.find_accelerator():
        return []
    with subprocess.Popen(query, stdout=subprocess.PIPE, text=True) as process:
        try:
            way()
        finally:
            process.terminate()
        lines = process.communicate()[0].splitlines()
    return [int(line) for line in lines if line.strip().isdigit()]


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
                changed = recipes.change(recipe, {"holdout": 0.15, "seed": seed} | ({"epochs": 1} if quick else {}))
                medians[way], accuracies = ways.train_to_accuracy(way, dataset, changed, ACCURACY)
                unit = "s" if max(accuracies) >= ACCURACY else "s, not reached"
                ratio, values = medians[ways.PUBLISHED] / medians[way], " ".join(f"{value:.4f}" for value in accuracies)
                yield dict(zip(COLUMNS[1:-2], (what, way, medians[way], unit, ratio, values), strict=True))
