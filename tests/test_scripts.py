"""The scripts as a person runs them: the whole way, what they refuse, and what an interruption costs."""

import os
import re
import shutil
import signal
import subprocess
import sys

import keras
import numpy as np
import pandas as pd
import pytest
from conftest import LIGHT, SCRIPTS, THREADS, TINY, arrays, finish, read_until, start, write_csvs, write_npz
from kaggle_server import refused

from digit_recognizer import cli, named_recipes, recipes
from digit_recognizer.files import commit, read_json
from digit_recognizer.runs.directory import Run
from digit_recognizer.training import backend

# A machine without TensorFlow: Python does not find it, though it is installed here.
NO_TENSORFLOW = """
import importlib.machinery

find = importlib.machinery.PathFinder.find_spec
hide = lambda cls, name, *rest: None if name.partition(".")[0] == "tensorflow" else find(name, *rest)
importlib.machinery.PathFinder.find_spec = classmethod(hide)
"""


def test_the_files_of_a_run(finished):
    _, run = finished
    names = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()}
    fold = {"model.keras", "history.csv", "metrics.json", "validation_probabilities.npy", "test_probabilities.npy"}
    assert names == {
        *("recipe.json", "folds.csv", "oof_probabilities.npy", "ensemble.json", "submission.csv"),
        *("cv_report.json", "cv_report.csv", "report/index.html"),
        *(f"report/{name}.png" for name in ("curves", "confusion_matrix", "errors")),
        *(f"fold_0{number}/{name}" for number in range(2) for name in fold),
    }
    settings = read_json(run / "recipe.json")
    options = {"folds": 2, "epochs": 2, "batch_size": 16}
    assert recipes.from_json(settings) == recipes.change(named_recipes.named("fast"), options)
    assert (settings["name"], settings["threads"], settings["commit"]) == ("fast", THREADS, commit())
    assert settings["backend"] in settings["versions"] and settings["device"]
    assert settings["compute_dtype"] in ("float32", "bfloat16")


@pytest.mark.parametrize(
    "name", ["train", "ensemble", "report", "predict", "export", "draw", "kernel", "benchmark", "explore"]
)
def test_without_the_requirements(name):
    """Python without its packages, as one outside of .venv: help is there, and a stage says what is missing."""
    line, file = [sys.executable, "-S", SCRIPTS / f"{name}.py"], {"predict": ["a.png"], "export": ["a.keras"]}
    helped = subprocess.run([*line, "--help"], capture_output=True, text=True)
    assert helped.returncode == 0 and "--output" in helped.stdout
    outcome = subprocess.run([*line, *file.get(name, [])], capture_output=True, text=True)
    assert outcome.returncode == 2 and outcome.stderr.count("\n") == 1
    assert "is not installed: bash scripts/run_all.sh makes .venv" in outcome.stderr


def test_ctrl_c_keeps_the_finished_epochs(finished, call, tmp_path):
    csvs, run = finished
    process = start("train", "--input", csvs, "--output", tmp_path / "run", *TINY)
    read_until(process, "epoch 1/2")
    process.send_signal(signal.SIGINT)
    outcome = finish(process)
    assert outcome.code == 130
    assert "train.py: interrupted; every finished epoch is kept: the same command goes on" in outcome.error
    assert "Traceback" not in outcome.error and (tmp_path / "run/fold_00/state.npz").exists()
    outcome = call("train", "--input", csvs, "--output", tmp_path / "run")
    assert outcome.code == 0 and "fold_00 epoch 1/2" not in outcome.out
    assert call("ensemble", "--input", csvs, "--output", tmp_path / "run").code == 0
    assert arrays(tmp_path / "run") == arrays(run)


def test_a_second_process_in_the_same_run_is_refused(finished, call, tmp_path):
    csvs, run = finished
    with Run(run).lock():
        for name in ("train", "ensemble", "report", "split"):
            assert refused(call(name, "--input", csvs, "--output", run), "another process is writing this run")


def test_jax_without_tensorflow_and_with_tensorflows_models(finished, call, dataset, tmp_path):
    """One process trains on JAX, and predicts with a model.keras of TensorFlow to the same but for rounding."""
    csvs, run = finished
    np.save(tmp_path / "images.npy", dataset.test_images)
    program = f"""
import runpy, sys
{NO_TENSORFLOW}
sys.path.insert(0, {str(SCRIPTS)!r})
sys.argv = ["train.py", "--input", {str(csvs)!r}, "--output", {str(tmp_path / "run")!r}, "--fold", "0", "--set", "tta_views=0", *{TINY!r}]
try:
    runpy.run_path({str(SCRIPTS / "train.py")!r}, run_name="__main__")
except SystemExit as exit:
    assert exit.code == 0
import keras, numpy as np
images = np.load({str(tmp_path / "images.npy")!r})
model = keras.saving.load_model({str(run / "fold_00/model.keras")!r}, safe_mode=True)
np.save({str(tmp_path / "predicted.npy")!r}, model.predict(images, verbose=0))
"""
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment)
    model = keras.saving.load_model(run / "fold_00/model.keras", safe_mode=True)
    expected = model.predict(dataset.test_images, verbose=0)
    assert np.abs(np.load(tmp_path / "predicted.npy") - expected).max() < 1e-5
    settings = read_json(tmp_path / "run/recipe.json")
    assert settings["backend"] == "jax" and "jax" in settings["versions"]
    # the network that predicts is the one that was validated last
    history = pd.read_csv(tmp_path / "run/fold_00/history.csv")
    log_loss = read_json(tmp_path / "run/fold_00/metrics.json")["log_loss"]
    assert log_loss == pytest.approx(history["val_loss"].iloc[-1], rel=1e-4)
    assert call("ensemble", "--input", csvs, "--output", tmp_path / "run").code == 0
    assert len(pd.read_csv(tmp_path / "run/submission.csv")) == 20


def test_output_that_nobody_reads_on_is_no_error():
    process = start("train", "--list")
    process.stdout.close()
    with process.stderr as stderr:
        assert stderr.read() == ""
    assert process.wait() == cli.INTERRUPTED


def test_labels_of_test_rows_change_nothing_but_the_report(light, call, labelled, tmp_path):
    """mnist.npz of the same pictures ends in the same bytes, and in a score; it is never sent."""
    csvs, run = light
    places = ("--input", write_npz(tmp_path / "input", labelled), "--output", tmp_path / "run")
    outcomes = [call(name, *places, *options) for name, options in (("train", LIGHT), ("ensemble", ()))]
    outcomes.append(call("report", *places))
    assert [outcome.code for outcome in outcomes] == [0, 0, 0], outcomes
    assert arrays(tmp_path / "run") == arrays(run)
    errors = int((pd.read_csv(run / "submission.csv")["Label"] != labelled.test_labels).sum())
    assert read_json(tmp_path / "run/cv_report.json")["test"]["errors"] == errors
    assert f"test accuracy {1 - errors / 20:.5f}" in outcomes[-1].out
    assert refused(call("submit", *places), "mnist data is never sent")
    assert refused(call("report", "--input", csvs, *places[2:]), "data mnist, not competition")


def test_run_all_goes_from_csvs_to_submission_and_tells_all_stages_where(whole_way):
    csvs, run, outcome = whole_way
    assert "out-of-fold accuracy" in outcome.out
    page, score, submit = outcome.out.splitlines()[-3:]
    assert page == f"page: {(run / 'report/index.html').as_uri()}" and score.startswith("score: 0.")
    assert submit.endswith(f"scripts/submit.py --input {csvs} --output run")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--recipe", "nn"), ("unknown recipe 'nn'",)),
        (("--set", "epoch=3"), ("--set epoch=3", "unknown field 'epoch': did you mean epochs?")),
        (("--set", "dropout=lots"), ("it must be a number, at least 0 and at most 0.95",)),
        (("--set", "activation=swish"), ("activation=swish", "sigmoid, tanh, leaky_relu, elu")),
        (("--set", "dropout=0.2", "rotation=999"), ("rotation=999.0",)),
        (("--folds", "1", "--recipe", "mlp"), ("folds=1", "--holdout")),
        (("--folds", "9"), ("label 0 has 8 row(s)", "take fewer --folds")),
        (("--epochs", "0"), ("epochs=0",)),
        (("--epochs", "two"), ("--epochs: invalid int value: 'two'",)),
        (("--threads", "0"), ("--threads 0",)),
        (("--fold", "5"), ("--fold 5", "folds 0 to 4")),
        (("--epoch", "3"), ("unrecognized arguments: --epoch 3: did you mean --epochs?",)),
        (("--output",), ("--output: expected one argument",)),
        (("--input", "nowhere"), ("nowhere does not exist",)),
    ],
)
def test_wrong_options_are_refused_before_anything_is_written(call, csvs, tmp_path, options, words):
    assert refused(call("train", "--input", csvs, "--output", tmp_path / "run", "--folds", 5, *options), *words)
    assert not (tmp_path / "run").exists()


def test_an_output_that_cannot_be_written(call, csvs, tmp_path):
    (tmp_path / "file").write_text("")
    for name in ("train", "split"):
        assert refused(call(name, "--input", csvs, "--output", tmp_path / "file" / "run"), "cannot be written")


def test_a_run_of_something_else_is_refused(finished, call, dataset, tmp_path):
    csvs, run = finished
    places = ("--input", csvs, "--output", run)
    before = arrays(run)
    assert refused(call("train", *places, "--epochs", 3), "epochs 2, not 3", "--overwrite")
    assert refused(call("train", *places, "--seed", 1), "seed 42, not 1")
    assert refused(call("train", *places, "--folds", 3), "folds.csv has folds=2, not 3")
    assert refused(call("split", *places, "--folds", 3), "holds a run with split")
    others = write_csvs(tmp_path / "others", dataset)
    header, first, second, *rest = (others / "train.csv").read_text().split("\n")
    (others / "train.csv").write_text("\n".join([header, second, first, *rest]))
    for name in ("train", "ensemble", "report", "split"):
        assert refused(call(name, "--input", others, "--output", run), run.name)
    assert arrays(run) == before
    for name in ("ensemble", "report"):
        assert refused(call(name, "--input", csvs, "--output", tmp_path / "run"), "holds no run")
    assert not (tmp_path / "run").exists()


def test_split_then_train_keeps_the_split(call, csvs, tmp_path):
    places, run = ("--input", csvs, "--output", tmp_path / "run"), tmp_path / "run"
    assert "fold" in call("split", *places, "--folds", 4, "--repeats", 2, "--seed", 7).out
    table = (run / "folds.csv").read_bytes()
    options = ("--recipe", "mlp", "--epochs", 1, "--fold", 5, "--threads", THREADS, "--batch-size", 16)
    outcome = call("train", *places, *options)
    assert outcome.code == 0
    assert "folds.csv is used as it is: folds=4, repeats=2" in outcome.out
    assert (run / "folds.csv").read_bytes() == table
    settings = read_json(run / "recipe.json")
    assert (settings["folds"], settings["repeats"]) == (4, 2)
    assert [path.name for path in run.glob("fold_*")] == ["fold_05"]


def test_threads_of_another_machine_are_told(light, call, tmp_path, monkeypatch):
    csvs, run = light
    shutil.copytree(run, tmp_path / "run")
    for cores, told in ((THREADS, False), (THREADS + 1, True)):
        shutil.rmtree(tmp_path / "run/fold_01")
        monkeypatch.setattr(backend, "cores", lambda cores=cores: cores)
        outcome = call("train", "--input", csvs, "--output", tmp_path / "run")
        assert outcome.code == 0
        assert (f"--threads {cores} would use this machine's share" in outcome.out) == told


def test_overwrite_starts_anew(finished, call, tmp_path):
    csvs, run = finished
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/notes.txt").write_text("mine")
    places = ("--input", csvs, "--output", tmp_path / "run")
    options = ("--overwrite", "--recipe", "mlp", "--folds", 1, "--holdout", 0.25, "--threads", THREADS)
    outcome = call("train", *places, *options, "--time-budget", "0s")
    assert "; the same command without --overwrite continues" in outcome.out
    assert call("train", *places, *options).code == 0
    left = {str(path.relative_to(tmp_path / "run")) for path in (tmp_path / "run").iterdir()}
    assert left == {"notes.txt", "recipe.json", "folds.csv", "fold_00"}
    assert call("ensemble", *places).code == 0 and "(80 training rows)" in call("report", *places).out


def test_time_budget_ends_in_time_and_the_next_session_goes_on(light, call, tmp_path):
    csvs, run = light
    first, second = tmp_path / "first" / "run", tmp_path / "second"
    places = ("--input", csvs, "--output", first)
    outcome = call("train", *places, *LIGHT, "--time-budget", "0s")
    assert outcome.code == 0 and "budget is used up; not finished: fold_00, fold_01;" in outcome.out
    assert not [*first.glob("fold_*")]
    assert refused(call("ensemble", *places), "no finished fold yet")
    assert call("train", *places, "--fold", 0).code == 0
    assert "not finished and not included: fold_01" in call("ensemble", *places).out

    before = {path: path.read_bytes() for path in first.rglob("*") if path.is_file()}
    places = ("--input", csvs, "--output", second)
    outcome = call("train", *places, "--resume-from", tmp_path / "first")
    assert outcome.code == 0 and outcome.out.count("finished before") == 1
    assert call("ensemble", *places).code == 0 and arrays(second) == arrays(run)
    assert {path: path.read_bytes() for path in first.rglob("*") if path.is_file()} == before
    assert refused(call("train", *places, "--resume-from", csvs), "has to hold one run", "found: none")
    assert refused(call("train", *places, "--resume-from", first, "--overwrite"), "give one of them")
    assert refused(call("train", *places, "--time-budget", "soon"), "'soon' is not a duration")


@pytest.mark.parametrize("weights", ["equal", "oof"])
def test_runs_are_blended(finished, call, tmp_path, weights):
    csvs, run = finished
    blend = ("--input", csvs, "--output", tmp_path / "blend")
    poor = shutil.copytree(run, tmp_path / "poor")  # a run that is wrong out of fold
    for path in poor.glob("fold_*/validation_probabilities.npy"):
        np.save(path, np.roll(np.load(path), 1, axis=1))
    outcome = call("ensemble", run, poor, *blend, "--weights", weights)
    shares = (1, 0) if weights == "oof" else (0.5, 0.5)
    said = [f"{folder}: 2 members, weight {share:.4f}" for folder, share in zip((run, poor), shares, strict=True)]
    assert outcome.code == 0 and outcome.out.splitlines()[:2] == said
    assert (tmp_path / "blend/submission.csv").read_bytes() == (run / "submission.csv").read_bytes()
    assert call("report", *blend).code == 0
    assert refused(call("ensemble", run, "--input", csvs), "give --output DIR")
    assert refused(call("ensemble", run, "--input", csvs, "--output", run), "name fast, not blend")
    assert refused(call("train", *blend), "--output holds a blend of runs")


def test_several_recipes_are_trained_on_the_same_folds(call, csvs, tmp_path):
    board = tmp_path / "board"
    places = ("--input", csvs, "--output", board)
    line = ("train", *places, "--recipe", "dropout_mlp", "mlp")
    outcome = call(*line, *TINY, "--time-budget", "0s")
    unfinished = ", ".join(f"{name}/fold_0{fold}" for name in ("dropout_mlp", "mlp") for fold in (0, 1))
    assert outcome.code == 0 and f"not finished: {unfinished}; the same command continues" in outcome.out
    outcome = call(*line, *TINY)
    assert outcome.code == 0, outcome.error
    assert f"{board}/dropout_mlp, on the folds of {board}/folds.csv" in outcome.out
    for name in ("dropout_mlp", "mlp"):
        assert (board / name / "folds.csv").read_bytes() == (board / "folds.csv").read_bytes()

    before = {path: path.stat().st_mtime_ns for path in board.glob("*/*/*")}
    outcome = call(*line)  # goes on with the options of recipe.json, and nothing is left to do
    assert outcome.code == 0 and outcome.out.count("finished before") == 4
    assert {path: path.stat().st_mtime_ns for path in board.glob("*/*/*")} == before
    assert refused(call(*line, "--folds", 3), "folds.csv has folds=2, not 3")
    assert refused(call(*line, "--epochs", 3), "dropout_mlp holds a run with epochs 2, not 3")
    assert refused(call(*line, "--resume-from", csvs), "--resume-from goes on with one run")
    for options in ((), ("--overwrite",)):
        assert refused(call("train", *places, *options), "board holds several recipes' runs")
    one = ("--input", csvs, "--output", board / "mlp", "--recipe", "mlp", "dropout_mlp")
    assert refused(call("train", *one), "holds a run of one recipe")

    # what is there is one submission: a blend of both
    outcome = call("ensemble", *places)
    assert outcome.code == 0 and outcome.out.count("2 members, weight 0.5") == 2
    assert call("ensemble", *places).code == call("report", *places).code == call(*line).code == 0


def test_a_run_below_another_is_not_a_part_of_it(light, call, tmp_path):
    csvs, run = light
    shutil.copytree(run, tmp_path / "run")
    shutil.copytree(run, tmp_path / "run/mlp")
    places = ("--input", csvs, "--output", tmp_path / "run")
    assert call("train", *places).code == 0
    assert call("ensemble", *places).out.startswith(f"{tmp_path}/run: 2 members, weight 1.0")


def test_list_tells_every_recipe_without_keras(tmp_path):
    line = [sys.executable, "-X", "importtime", str(SCRIPTS / "train.py"), "--list"]
    outcome = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert outcome.returncode == 0 and not [*tmp_path.iterdir()]
    assert not re.search(r"\b(keras|tensorflow|jax)$", outcome.stderr, re.M)
    for name, recipe in named_recipes.RECIPES.items():
        assert re.search(rf"^{name} +{recipe.network}; reported accuracy: ", outcome.stdout, re.M)
        assert recipe.reported_accuracy in outcome.stdout and recipe.citation in outcome.stdout
    assert "relu, sigmoid, tanh, leaky_relu, elu (default: relu)\n" in outcome.stdout


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow writes the log")
def test_tensorboard_logs_each_epoch(light, call, tmp_path):
    from tensorflow.core.util import event_pb2
    from tensorflow.data import TFRecordDataset

    csvs, run = light
    places = ("--input", csvs, "--output", tmp_path / "run")
    assert call("train", *places, *LIGHT, "--tensorboard", "--fold", 1).code == 0
    assert (tmp_path / "run/fold_01/test_probabilities.npy").read_bytes() == (
        run / "fold_01/test_probabilities.npy"
    ).read_bytes()
    history = pd.read_csv(tmp_path / "run/fold_01/history.csv")
    for kind, tag, column in (("validation", "loss", "val_loss"), ("train", "learning_rate", "learning_rate")):
        (log,) = (tmp_path / "run/tensorboard/fold_01" / kind).glob("events.*")
        events = [event_pb2.Event.FromString(record.numpy()) for record in TFRecordDataset(str(log))]
        found = [(each.step, value) for each in events for value in each.summary.value if value.tag == f"epoch_{tag}"]
        values = [np.frombuffer(value.tensor.tensor_content, np.float32)[0] for _, value in found]
        assert [step for step, _ in found] == [0, 1] and values == pytest.approx(history[column])
    Run(tmp_path / "run").clear()
    assert not list((tmp_path / "run").rglob("*"))
