"""Members that train at once, on Ray: one machine, and a cluster of several nodes on loopback.

What takes more than a minute on two cores is done with --campaign alone.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from conftest import LIGHT, SCRIPTS, Outcome, finish, read_until, start, tell, write_csvs
from kaggle_server import refused

from digit_recognizer.files import UserError
from digit_recognizer.training import backend, remote, session
from digit_recognizer.training import cluster as cluster_module
from digit_recognizer.training.cluster import ClusterOptions, RayExecutor
from digit_recognizer.training.session import TrainingOptions

ray = pytest.importorskip("ray")

OPTIONS = ("--recipe", "dropout_mlp", "--folds", "3", "--epochs", "8", "--batch-size", "16", "--threads", "1")


def predictions(run: Path) -> dict[str, bytes]:
    return {str(path.relative_to(run)): path.read_bytes() for path in sorted(run.rglob("*.npy"))}


@pytest.fixture(scope="module")
def alone(dataset, tmp_path_factory) -> tuple[Path, Path]:
    """The CSVs, and the run of one process on one thread."""
    folder = tmp_path_factory.mktemp("alone")
    csvs = write_csvs(folder / "csvs", dataset)
    assert finish(start("train", "--input", csvs, "--output", folder / "run", *OPTIONS)).code == 0
    return csvs, folder / "run"


@pytest.fixture(autouse=True)
def one_home(own_home, monkeypatch, alone):
    """Ray keeps a token in the home of the user, and a process reads it once."""
    monkeypatch.setenv("HOME", str(alone[0].parent))


@pytest.fixture
def cluster(monkeypatch):
    """A head that computes nothing, with a folder for temporary files; `add_core()` adds a node of one core."""
    from ray.cluster_utils import Cluster

    temporary = tempfile.mkdtemp(prefix="nodes_", dir="/tmp")  # short: it holds sockets
    monkeypatch.setenv("TMPDIR", temporary)
    store = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **store})
    cluster.add_core = lambda: cluster.add_node(num_cpus=1, **store)
    cluster.temporary = Path(temporary)
    yield cluster
    cluster.shutdown()
    shutil.rmtree(temporary, ignore_errors=True)


def workers(variable: str = "") -> set[int]:
    """Process ids of the workers, of this machine or of the ones that have that NAME=VALUE in their environment."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            chosen = variable.encode() in (path / "environ").read_bytes()
            if chosen and (path / "cmdline").read_bytes().startswith(b"ray::train_member"):
                found.add(int(path.name))
        except OSError:  # it has just ended, or is another user's
            continue
    return found


def workers_left(before: set[int]) -> set[int]:
    """Process ids of the workers that are new, and have not ended within 30 seconds."""
    until = time.monotonic() + 30
    while (left := workers() - before) and time.monotonic() < until:
        time.sleep(0.2)
    return left


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "--workers 0: it must be at least 1"),
        (["--workers", "2", "--gpus-per-fold", "1.5"], "--gpus-per-fold 1.5: it must be a part of one"),
        (["--gpus-per-fold", "0.5"], "give --workers or --address too"),
        (["--workers", "2", "--gpus-per-fold", "0.5"], "--gpus-per-fold 0.5: this machine has no GPU that Ray finds"),
        (["--address", "ray://127.0.0.1:1"], "Ray's client is not supported: run train.py on a machine of"),
        (["--address", "127.0.0.1:1"], "--address 127.0.0.1:1: no Ray cluster answers there"),
    ],
)
def test_impossible_options_are_refused(options, message, alone, call, tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # as on a machine without a GPU
    assert refused(call("train", "--input", alone[0], "--output", tmp_path / "run", *options), message)
    assert not (tmp_path / "run").exists()


def test_without_ray_it_says_what_to_install(alone, call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # import fails
    outcome = call("train", "--input", alone[0], "--output", tmp_path / "run", "--workers", "2")
    assert refused(outcome, "training folds at once needs Ray: pip install 'ray>=2.40'")


def test_two_workers_make_the_bytes_of_one_process_and_the_driver_needs_no_keras(alone, tmp_path):
    csvs, run = alone
    before = workers()
    line = [sys.executable, "-X", "importtime", SCRIPTS / "train.py", "--input", csvs, "--output", tmp_path / "run"]
    done = subprocess.run([*line, *OPTIONS, "--workers", "2"], capture_output=True, text=True)
    imported = re.findall(r"^import time:.*\| *(\S+)$", done.stderr, re.MULTILINE)
    assert (done.returncode, re.sub("import time:.*\n", "", done.stderr)) == (0, "")
    assert "ray" in imported and {"keras", "tensorflow", "jax"}.isdisjoint(imported)
    assert done.stdout.count("accuracy") > 3
    assert predictions(tmp_path / "run") == predictions(run)
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name.startswith((".", "state"))]
    assert not workers_left(before)


def test_killed_workers_a_lost_node_and_a_late_one_change_nothing(alone, cluster, tmp_path, campaign):
    """A node goes and another comes; a worker is killed at a random moment, in a campaign 20 of them."""
    csvs, run = alone
    moments, cores = random.Random(time.time_ns()), [cluster.add_core(), cluster.add_core()]
    line = ("train", "--input", csvs, *OPTIONS, "--address", cluster.address, "--output")
    left, number = 20 if campaign else 1, 0
    while left > 0 or number == 0:
        output = tmp_path / str(number)
        process, killed = start(*line, output), 0
        if number == 0:  # a node goes as soon as there are epochs, and one comes
            while not list(output.glob("fold_*/state.npz")) and process.poll() is None:
                time.sleep(0.05)
            cluster.remove_node(cores.pop(), allow_graceful=False)
            cores.append(cluster.add_core())
        while process.poll() is None and left > 0 and killed < 3:
            time.sleep(moments.uniform(0, 6))
            victims = workers(f"TMPDIR={cluster.temporary}")
            if victims and process.poll() is None:
                os.kill(moments.choice(sorted(victims)), signal.SIGKILL)
                left, killed = left - 1, killed + 1
        outcome: Outcome = finish(process)
        assert outcome.code == 0, outcome
        assert "raylet" not in outcome.out, outcome.out
        assert predictions(output) == predictions(run)
        tell(f"workers of a cluster: {killed} killed in run {number}")
        number += 1


def test_ctrl_c_and_a_killed_driver_keep_the_epochs_and_leave_no_process(campaign, alone, tmp_path):
    if not campaign:
        pytest.skip("takes minutes: only with --campaign")
    csvs, run = alone
    line = ("train", "--input", csvs, *OPTIONS, "--workers", "2", "--output", tmp_path / "run")
    others = workers()
    for send, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = start(*line)
        read_until(process, " epoch ")
        process.send_signal(send)
        outcome = finish(process)
        assert outcome.code == code and "Traceback" not in outcome.error
        assert list((tmp_path / "run").glob("fold_*/state.npz"))
        assert not workers_left(others)
    line = [each for each in line if each not in ("--workers", "2")]
    assert finish(start(*line)).code == 0  # goes on without Ray
    assert predictions(tmp_path / "run") == predictions(run)


def test_a_ray_that_does_not_start_is_one_line(csvs, call, tmp_path, monkeypatch):
    def fail(**options):
        raise RuntimeError("Failed to start GCS.\nno answer")

    monkeypatch.setattr(ray, "init", fail)
    outcome = call("train", "--input", csvs, "--output", tmp_path / "run", *LIGHT, "--workers", "2")
    assert refused(outcome, "Ray does not start on this machine (no answer): run the same command again")


def test_two_gpus_are_shared_out(dataset, monkeypatch):
    """Ray hands out two GPUs that are not there; what a task sees is what it would compute on."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(backend, "count_gpus", lambda: 2)

    def seen():
        time.sleep(2)  # until the others have started
        return os.environ["CUDA_VISIBLE_DEVICES"], os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION")

    half, quarter = "0.450", "0.225"  # of a GPU's memory, and some to spare
    for workers, share, expected in (
        (4, None, [("0", half), ("0", half), ("1", half), ("1", half)]),
        (4, 0.25, [("0", quarter)] * 4),
    ):
        options = ClusterOptions(workers=workers, gpus_per_fold=share)
        with RayExecutor(options, dataset, 1, workers, float("inf"), False) as executor:
            task = ray.remote(**executor.task_options)(seen)
            assert sorted(ray.get([task.remote() for _ in range(workers)])) == expected


def test_the_driver_lists_the_gpus(tmp_path, monkeypatch):
    listing = tmp_path / "nvidia-smi"
    listing.write_text("#!/bin/sh\necho 'GPU 0: Tesla T4 (UUID: GPU-1)'\necho 'GPU 1: Tesla T4 (UUID: GPU-2)'\n")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert backend.count_gpus() == 0  # it cannot be run
    listing.chmod(0o755)
    assert backend.count_gpus() == 2
    for visible, count in (("", 0), ("-1", 0), ("1", 1), ("1,0", 2), ("0,1,2", 2)):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        assert backend.count_gpus() == count


def test_each_of_two_gpus_trains_a_fold(dataset, alone, tmp_path, monkeypatch):
    """By default, with the bytes of one process. Ray hands out two GPUs that are not there."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def train_on_card(*arguments):
        backend.card_name = lambda: f"{os.environ['CUDA_VISIBLE_DEVICES']} {os.getpid()}"
        return remote.train_member(*arguments)

    monkeypatch.setattr(cluster_module, "train_member", train_on_card)
    monkeypatch.setattr(backend, "count_gpus", lambda: 2)
    fields = {"folds": 3, "epochs": 8, "batch_size": 16}
    assert not session.train(tmp_path / "run", dataset, ["dropout_mlp"], fields, TrainingOptions(threads=1))
    paths = (tmp_path / "run").glob("*/metrics.json")
    used = {tuple(json.loads(path.read_text())["device"].split()) for path in paths}
    assert {gpu for gpu, _ in used} == {"0", "1"}
    assert len({process for _, process in used}) == 3  # a process frees its GPU at its end
    assert predictions(tmp_path / "run") == predictions(alone[1])


@pytest.mark.parametrize(("options", "idle"), [((), True), (("--workers", "1"), False), (("--fold", "0"), False)])
def test_without_ray_a_line_says_what_stays_idle(options, idle, csvs, call, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # import fails
    monkeypatch.setattr(backend, "count_gpus", lambda: 2)
    outcome = call("train", "--input", csvs, "--output", tmp_path / "run", *LIGHT, *options)
    assert outcome.code == 0 and ("1 of 2 GPUs (50%) stay idle" in outcome.out) == idle
    assert ("training folds at once needs Ray: pip" in outcome.out) == idle


def train_on_ray(dataset, folder, **options):
    """Trains three members of a small network on two workers; returns those that are not finished."""
    fields = {"folds": 3, "epochs": 2, "batch_size": 16}
    options = TrainingOptions(threads=1, cluster=ClusterOptions(workers=2), **options)
    return session.train(folder, dataset, ["dropout_mlp"], fields, options)


def test_a_member_whose_workers_always_die_is_named_and_stops_no_other(dataset, tmp_path, monkeypatch):
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])

    def train_or_die(*arguments):
        *_, member, _ = arguments
        if member.index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return remote.train_member(*arguments)

    monkeypatch.setattr(cluster_module, "train_member", train_or_die)
    monkeypatch.setattr(cluster_module, "RETRIES", 1)
    with pytest.raises(UserError, match=r"fold_01: given up after 1 retries: .*; every finished epoch is kept"):
        train_on_ray(dataset, tmp_path / "run")
    assert sorted(path.parent.name for path in tmp_path.glob("run/*/metrics.json")) == ["fold_00", "fold_02"]


def test_no_time_for_an_epoch(dataset, tmp_path):
    """The first worker starts, and no member does."""
    assert len(train_on_ray(dataset, tmp_path / "run", deadline=time.monotonic())) == 3
    assert not list((tmp_path / "run").glob("fold_*"))


def test_the_time_budget_ends_the_wait_for_a_cluster_without_a_core(alone, cluster, tmp_path):
    line = ("train", "--input", alone[0], "--output", tmp_path / "run", *OPTIONS, "--time-budget", "3s")
    began = time.monotonic()
    outcome = finish(start(*line, "--address", cluster.address))
    assert outcome.code == 0 and "not finished: fold_00, fold_01, fold_02" in outcome.out, outcome
    assert time.monotonic() - began < 60


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_a_finished_run_starts_nothing(alone, tmp_path, options):
    """Neither a backend nor Ray: whoever imports one here fails."""
    for name in ("ray", "keras", "tensorflow", "jax"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('it was imported')")
    line = ("train", "--input", alone[0], "--output", alone[1], *OPTIONS, *options)
    outcome = finish(start(*line, PYTHONPATH=str(tmp_path)))
    assert (outcome.code, outcome.error) == (0, "") and outcome.out.count("finished before") == 3
