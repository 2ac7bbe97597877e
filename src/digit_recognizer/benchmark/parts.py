"""The parts of the benchmark, and a session that measures some of them."""

import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from digit_recognizer import files
from digit_recognizer.benchmark import summary
from digit_recognizer.benchmark.accuracy import measure_time_to_accuracy
from digit_recognizer.benchmark.growth import measure_growth
from digit_recognizer.benchmark.pieces import measure_augmentation, measure_normalization
from digit_recognizer.benchmark.throughput import measure_predicting, measure_reading, measure_training
from digit_recognizer.benchmark.timing import Row
from digit_recognizer.benchmark.workload import QUICK, Workload
from digit_recognizer.data import digits, paths
from digit_recognizer.files import UserError, read_json, write_figure, write_json
from digit_recognizer.recipes import check_value, settable_fields
from digit_recognizer.training import backend

# In this order: the peak memory that g reports is that of the whole process so far.
PARTS: dict[str, Callable[[Workload], Iterator[Row]]] = {
    "g": measure_growth,
    "a": measure_training,
    "c": measure_augmentation,
    "d": measure_normalization,
    "e": measure_reading,
    "f": measure_predicting,
    "b": measure_time_to_accuracy,
}
USUAL = "g,a,c,d,e,f"  # b takes long


def choose_parts(text: str) -> list[str]:
    """Returns the parts that a text such as 'a,c' names, in the order in which they are measured.

    Raises UserError for a part that is not there.
    """
    names = text.split(",")
    for name in names:
        if name not in PARTS:
            raise UserError(f"--only {text}: no part {name!r}; there are: {', '.join(PARTS)}")
    return [part for part in PARTS if part in names]


def run_benchmark(
    input: Path | None,
    output: Path | None,
    parts: list[str],
    *,
    seeds: list[int],
    threads: int | None = None,
    quick: bool = False,
    torch_compile: bool = False,
) -> None:
    """Measures parts; prints them, and writes benchmark.json and benchmark.png.

    What benchmark.json has of other parts stays.

    Args:
        input: folder of the data, or None for the usual one.
        output: where the results go, or None for output/benchmark.
        parts: names of PARTS.
        seeds: of part b.
        threads: of the backend; None: the cores there are.
        torch_compile: whether torch.compile takes part.
        quick: measure little, to tell whether it works; the built-in sample will do then.

    Raises UserError for a seed or a number of threads that can't be, where there is no data, or where
    benchmark.json is of another machine.
    """
    backend.choose()
    if threads is not None and threads < 1:
        raise UserError(f"--threads {threads}: it must be at least 1")
    for seed in seeds:
        check_value(settable_fields()["seed"], seed)
    output = paths.output_folder(output, "benchmark_quick" if quick else "benchmark")
    locations = paths.resolve(input, output)
    if locations.is_sample and not quick:
        raise UserError("it takes the competition's files: put them into input/, or give --input DIR")
    with locations.announced():
        dataset, path = digits.load(locations.input), output / "benchmark.json"
        threads = threads or backend.cores()
        backend.start(threads)
        results = open_results(path, _machine(threads, quick))
        output.mkdir(parents=True, exist_ok=True)
        measured = {part: found["rows"] for part, found in results["parts"].items()}
        amount = QUICK if quick else {}
        workload = Workload(
            dataset, locations.input, seeds, threads, measured=measured, torch_compile=torch_compile, **amount
        )
        for part in parts:
            _measure(part, workload, results, path)
        _show(results, path)


def _machine(threads: int, quick: bool) -> dict[str, Any]:
    """What has to be the same for measurements to be compared."""
    forced = {"cores": os.cpu_count(), "ONEDNN_MAX_CPU_ISA": os.environ.get("ONEDNN_MAX_CPU_ISA")}
    return backend.session_facts(threads, "auto") | forced | {"quick": quick}


def open_results(path: Path, machine: dict[str, Any]) -> dict[str, Any]:
    """Returns the machine, and the parts that the JSON file `path` has of it.

    Raises UserError where they are another machine's: nothing can be compared with them.
    """
    known = read_json(path) if path.exists() else {"machine": machine, "parts": {}}
    for name, value in machine.items():
        if known["machine"].get(name) != value:
            raise UserError(f"{path} was measured with another {name}: take another --output")
    return known


def _measure(part: str, workload: Workload, results: dict[str, Any], path: Path) -> None:
    """Measures a part, and keeps its rows in `results` and in the file `path` when it has ended.

    An interruption leaves its old rows as they were. But a seed of part b, which takes long, is kept beside
    them at once.
    """
    began, rows, kept = time.perf_counter(), [], workload.measured.get(part, [])
    about = {"date": datetime.now().isoformat(timespec="seconds"), "commit": files.commit()}
    about |= {"torch": _torch_version()}

    def write(rows: list[Row]) -> None:
        seconds = round(time.perf_counter() - began, 1)
        results["parts"][part] = about | {"seconds": seconds, "rows": rows}
        write_json(path, results)

    for row in PARTS[part](workload):
        rows.append(row)
        print("  ".join([part, *summary.cells(row).values()]), flush=True)
        if "accuracies" in row and row not in kept:  # a new seed
            kept = [*kept, row]
            write(kept)
    if rows:  # a part that is left out has none
        workload.measured[part] = rows
        write(rows)


def _torch_version() -> str | None:
    try:
        return metadata.version("torch")
    except metadata.PackageNotFoundError:
        return None


def _show(results: dict[str, Any], path: Path) -> None:
    """Prints the table of all parts that are there, and writes the chart beside `path`."""
    parts = {part: found["rows"] for part, found in sorted(results["parts"].items())}
    rows = [row for part in parts.values() for row in part]
    if rows:
        print(f"\n{summary.table(rows)}\n")
    chart = summary.draw(parts)
    if chart is not None:
        write_figure(path.with_suffix(".png"), chart)
    machine = results["machine"]
    print(
        f"{machine['device']}, {machine['threads']} threads, {machine['compute_dtype']} where it pays: {path}"
    )
