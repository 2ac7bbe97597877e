"""The benchmark: what it times and writes, and what it makes of the seconds."""

import dataclasses
import json

import pytest

from digit_recognizer.benchmark import timing
from digit_recognizer.data import places

QUICK = ("--quick", "--threads", 2)


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")  # ImageDataGenerator's own
def test_parts_are_measured_and_kept(call, csvs, tmp_path):
    place = ("--input", csvs, "--output", tmp_path / "out")
    assert call("benchmark", *QUICK, *place, "--only", "e").code == 0
    outcome = call("benchmark", *QUICK, *place, "--only", "c")
    assert outcome.code == 0, outcome.error
    assert "digits" not in {path.stem for path in (tmp_path / "out").iterdir()}
    assert (tmp_path / "out" / "benchmark.png").stat().st_size > 10_000
    results = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert results["machine"]["threads"] == 2 and results["machine"]["versions"]["keras"]
    ways = {part: [row["way"] for row in found["rows"]] for part, found in results["parts"].items()}
    assert ways["e"] == ["pandas.read_csv", "ours", "ours, from its cache"]
    assert ways["c"] == [
        "ImageDataGenerator",
        "Keras' three layers",
        "RandomAffine, uncompiled",
        "RandomAffine, compiled",
    ]
    for row in results["parts"]["c"]["rows"]:
        assert min(row["rounds"]) <= row["median"] <= max(row["rounds"]) and row["ratio"] > 0
        assert row["way"] in outcome.out
    assert "pandas.read_csv" in outcome.out  # the table has what was measured before

    results["machine"]["device"] = "another processor"
    (tmp_path / "out" / "benchmark.json").write_text(json.dumps(results))
    outcome = call("benchmark", *QUICK, *place, "--only", "e")
    assert outcome.code == 2 and "another device" in outcome.error
    assert json.loads((tmp_path / "out" / "benchmark.json").read_text()) == results


@pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
def test_seeds_that_were_measured_stay(call, csvs, tmp_path):
    for seeds in (["42"], ["42", "43"]):
        place = ("--input", csvs, "--output", tmp_path / "out")
        outcome = call("benchmark", *QUICK, *place, "--only", "b", "--seeds", *seeds)
        assert outcome.code == 0, outcome.error
        results = json.loads((tmp_path / "out" / "benchmark.json").read_text())
        rows = {(row["what"], row["way"]): row for row in results["parts"]["b"]["rows"]}
        if seeds == ["42"]:
            first = rows
    for way in ("bn_cnn", "fast"):
        taken = [rows[f"to 0.9940, seed {seed}", way]["median"] for seed in (42, 43)]
        assert taken[0] == first["to 0.9940, seed 42", way]["median"]
        assert rows["to 0.9940", way]["rounds"] == taken
        assert "commit" in rows["to 0.9940, seed 43", way]
    assert rows["to 0.9940", "fast"]["ratio"] > 0


def test_what_is_refused(call, tmp_path, monkeypatch):
    monkeypatch.setattr(places, "ROOT", tmp_path)
    for arguments, words in (
        ([], "competition's files"),
        (["--only", "a,z"], "no part 'z'"),
        (["--threads", "0"], "at least 1"),
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
    assert "peak, MiB" in timing.table([few, many, rest])
