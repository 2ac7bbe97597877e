"""Damaged files in a run directory: each stage refuses them in one line, or comes to a whole result."""

import io
import json
import zlib

import numpy as np
import pytest
from conftest import THREADS
from damage import contents, damaged_bytes, damaged_csv, damaged_json, damaged_zip, survives, try_damage
from hypothesis import note
from hypothesis import strategies as st
from test_damage import number

from digit_recognizer import recipes
from digit_recognizer.data.paths import Locations
from digit_recognizer.files import read_json, write_json
from digit_recognizer.kaggle import submissions
from digit_recognizer.results import ensemble, report
from digit_recognizer.results.compare import compare_runs
from digit_recognizer.results.ensemble import average_members, open_ensemble
from digit_recognizer.results.evaluation import evaluate
from digit_recognizer.results.page import write_page
from digit_recognizer.runs import plan
from digit_recognizer.runs.directory import Run, find_trained_run
from digit_recognizer.training import session
from digit_recognizer.training.fold import FoldTrainer
from digit_recognizer.training.predict import load_model
from digit_recognizer.training.session import TrainingOptions


@pytest.fixture(scope="module")
def whole(light, dataset, tmp_path_factory):
    """The bytes of a run with all that a person's has: an ensemble, a report, a submission with its score."""
    _, folder = light
    run = Run(tmp_path_factory.mktemp("whole") / "run")
    put(run, contents(folder))
    write_json(run.cv_report_json, evaluate(open_ensemble(run, dataset)))
    sent = ("2026-01-01T00:00:00+00:00", "digit-recognizer", "a" * 64, "mine [aaaaaaaa]", 0.5)
    submissions.write_submissions(run, [submissions.Submission(*sent, 7, "complete", 0.5)])
    return contents(run.folder)


def put(run, files):
    """Makes the run directory hold these files and no other."""
    for name in contents(run.folder).keys() - files.keys():
        (run.folder / name).unlink()
    for name, data in files.items():
        path = run.folder / name
        if not (path.exists() and path.read_bytes() == data):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


class Stages:
    """What may be done with a run; each looks at its result."""

    def __init__(self, run, other, dataset, csvs):
        self.run, self.other, self.dataset, self.csvs = run, other, dataset, csvs

    def train(self):
        session.train(self.run.folder, self.dataset, [None], {}, TrainingOptions(threads=THREADS))

    def split(self):
        plan.split_rows(self.run, self.dataset, {})

    def ensemble(self):
        ensemble.blend(self.run, [self.run], self.dataset, "oof")
        assert len(self.run.submission.read_text().splitlines()) == 21

    def report(self):
        members = open_ensemble(self.run, self.dataset)
        contents = evaluate(members)
        write_page(members, contents)
        report.format_report(contents)
        json.dumps(contents, allow_nan=False)

    def watch(self):
        members = average_members(self.run, self.dataset, may_be_empty=True)
        write_page(members, evaluate(members), refresh=1)

    def compare(self):
        compare_runs([self.other, self.run], self.dataset)

    def submit(self):
        submissions.submit(Locations(self.csvs, self.run.folder), "digit-recognizer", dry_run=True)

    def predict(self):
        models = ensemble.trained_models(find_trained_run(self.run.folder))
        assert sum(models.values()) == pytest.approx(1)

    def load(self):
        recipe = recipes.from_json(self.run.require_settings())
        probabilities = load_model(self.run.folder / "fold_00/model.keras", recipe)(self.dataset.test_images[:2])
        assert probabilities.shape == (2, 10)


@pytest.fixture
def stages(whole, light, dataset, tmp_path):
    csvs, other = light
    run = Run(tmp_path / "run")
    put(run, whole)
    return Stages(run, Run(other), dataset, csvs)


JSON, CSV, NPY = damaged_json, damaged_csv, damaged_bytes


def KERAS(data):  # noqa: N802
    return damaged_zip(data, lambda name, each: damaged_json(each) if name.endswith("json") else damaged_bytes(each))


@pytest.mark.parametrize(
    ("name", "damaged", "cases", "names"),
    [
        ("recipe.json", JSON, 700, "train split ensemble report watch compare submit predict"),
        ("folds.csv", CSV, 500, "train split ensemble report"),
        ("fold_00/metrics.json", JSON, 600, "train ensemble report watch compare"),
        ("fold_01/history.csv", CSV, 500, "train report watch"),
        ("fold_00/validation_probabilities.npy", NPY, 400, "ensemble report compare"),
        ("fold_01/test_probabilities.npy", NPY, 400, "ensemble report"),
        ("oof_probabilities.npy", NPY, 400, "report submit"),
        ("ensemble.json", JSON, 600, "report watch submit predict"),
        ("submissions.json", JSON, 500, "report submit"),
        ("submission.csv", CSV, 500, "submit"),
        ("fold_00/model.keras", KERAS, 400, "load"),
    ],
)
def test_damaged_run(stages, whole, name, damaged, cases, names, campaign):
    run, wanted = stages.run, names.split()

    def case(data):
        put(run, whole)
        (run.folder / name).write_bytes(data)
        stage = wanted[zlib.crc32(data) % len(wanted)]
        note(f"stage {stage}")
        survives(getattr(stages, stage), run.folder, f"{run.folder} recipe.json")

    try_damage(damaged(whole[name]), case, number(cases, campaign), campaign)


BROKEN_HEADER = (
    b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (80, 10), }".ljust(127) + b"\n"
)


def with_entries(data, **entries):
    return json.dumps(json.loads(data) | entries).encode()


# What a campaign has found: each was a traceback, or a sentence without a file.
FOUND = {
    "repeats of another type": ("recipe.json", lambda data: with_entries(data, repeats={}), "submit"),
    "a name of another type": ("recipe.json", lambda data: with_entries(data, name=["a"]), "submit"),
    "threads of another type": ("recipe.json", lambda data: with_entries(data, threads="2"), "predict"),
    "a field of another type": ("recipe.json", lambda data: with_entries(data, schedule={}), "report"),
    "a long value": ("recipe.json", lambda data: with_entries(data, schedule="9" * 5000), "report"),
    "no accuracy": ("fold_00/metrics.json", lambda data: with_entries(data, accuracy=None), "train"),
    "a number without end": ("fold_00/metrics.json", lambda data: with_entries(data, seconds=10**400), "compare"),
    "no members": ("ensemble.json", lambda data: with_entries(data, members=None), "predict"),
    "a weight without end": (
        "ensemble.json",
        lambda data: b'{"members": [{"member": "fold_00", "weight": 1e999}], "missing": []}',
        "predict",
    ),
    "a record without entries": ("submissions.json", lambda data: b"[{}]", "submit"),
    "nothing missing": ("ensemble.json", lambda data: b'{"members": [{"member": "fold_00", "weight": 1}]}', "submit"),
    "a header that is cut": (
        "fold_00/validation_probabilities.npy",
        lambda data: BROKEN_HEADER.replace(b"'<f4'", b"'<f4 ") + data[128:],
        "ensemble",
    ),
    "another header": ("oof_probabilities.npy", lambda data: data[:10] + b"(" + data[11:], "submit"),
    "gigabytes": (
        "fold_01/test_probabilities.npy",
        lambda data: data.replace(b"(20, 10), }   ", b"(20000000000, 10), }"),
        "report",
    ),
    "an archive": ("oof_probabilities.npy", lambda data: archived(data), "report"),
    "probabilities of 1e30": (
        "fold_00/validation_probabilities.npy",
        lambda data: data[:128] + np.full((40, 10), 1e30, np.float32).tobytes(),
        "compare",
    ),
}


def archived(data):
    file = io.BytesIO()
    np.savez(file, np.load(io.BytesIO(data)))
    return file.getvalue()


@pytest.mark.parametrize(("name", "damage", "stage"), FOUND.values(), ids=FOUND)
def test_damage_that_was_found(stages, whole, name, damage, stage):
    run = stages.run
    damaged = damage(whole[name])
    assert damaged != whole[name]
    (run.folder / name).write_bytes(damaged)
    assert not survives(getattr(stages, stage), run.folder, f"{run.folder} recipe.json")


def damaged_state(data):
    """A state.npz with damaged facts, or a damaged array."""

    def pack(text):
        file = io.BytesIO()
        np.save(file, np.array(text.decode(errors="replace")))
        return file.getvalue()

    def member(name, content):
        is_array = name != "facts.npy"
        return (
            damaged_bytes(content) if is_array else damaged_json(str(np.load(io.BytesIO(content))).encode()).map(pack)
        )

    return damaged_zip(data, member)


def test_damaged_state(stages, whole, dataset, campaign):
    """The member starts over, or goes on to a whole result."""
    run = stages.run
    own = plan.open_plan(run, dataset)
    member, folder = own.members[0], own.members[0].folder
    trainer = FoldTrainer(own.recipe, len(member.train_rows))
    states = []
    for path in folder.iterdir():
        path.unlink()
    trainer.train(
        member, dataset, own.identity, on_epoch=lambda row: states.append((folder / "state.npz").read_bytes())
    )
    unfinished = {name: data for name, data in contents(run.folder).items() if not name.startswith(member.name)}

    def train():
        trainer.train(member, dataset, own.identity)
        metrics = read_json(folder / "metrics.json")
        assert 1 <= metrics["best_epoch"] <= metrics["epochs"] == own.recipe.epochs
        assert np.isfinite(np.load(folder / "test_probabilities.npy")).all()
        assert not (folder / "state.npz").exists()

    def case(damaged):
        put(run, unfinished)
        (folder / "state.npz").write_bytes(damaged)
        survives(train, run.folder, f"{folder}")

    try_damage(st.sampled_from(states).flatmap(damaged_state), case, number(200, campaign), campaign)
