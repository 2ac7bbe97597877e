"""Members that train at once, on Ray: one machine, and a cluster of several nodes on loopback.

What takes more than a minute on two cores is done with --campaign alone.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SCRIPTS, Outcome, finish, start, write_csvs

from digit_recognizer.data.plan import make_plan
from digit_recognizer.errors import UserError
from digit_recognizer.run import Run
from digit_recognizer.training import pool, session

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


@pytest.fixture
def long(campaign):
    """A test that takes too long for every day."""
    if not campaign:
        pytest.skip("takes minutes: only with --campaign")


@pytest.fixture
def cluster(tmp_path):
    """A head that computes nothing, and two nodes of one core."""
    from ray.cluster_utils import Cluster

    store = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **store})
    cluster.add_core = lambda: cluster.add_node(num_cpus=1, **store)
    cluster.cores = [cluster.add_core(), cluster.add_core()]
    yield cluster
    cluster.shutdown()


def workers() -> list[int]:
    """Process ids of the workers."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::Host"):
                found.append(int(path.parent.name))
        except OSError:  # it has just ended
            continue
    return found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "--workers 0: it must be at least 1"),
        (["--workers", "2", "--gpus-per-fold", "1.5"], "--gpus-per-fold 1.5: it must be a part of one"),
        (["--gpus-per-fold", "0.5"], "give --workers or --address too"),
        (["--address", "127.0.0.1:1"], "--address 127.0.0.1:1: no Ray cluster answers there"),
    ],
)
def test_impossible_options_are_refused(options, message, alone, call, tmp_path):
    outcome = call("train", "--input", alone[0], "--output", tmp_path / "run", *options)
    assert outcome.code == 2 and message in outcome.error and outcome.error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_without_ray_it_says_what_to_install(alone, tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError('no ray')")
    line = ("--input", alone[0], "--output", tmp_path / "run", "--workers", "2")
    outcome = finish(start("train", *line, PYTHONPATH=str(tmp_path)))
    assert outcome.code == 2 and "--workers needs Ray: pip install ray" in outcome.error


def test_two_workers_make_the_bytes_of_one_process_and_the_driver_needs_no_keras(alone, tmp_path):
    csvs, run = alone
    program = (
        "import runpy, sys\n"
        f"sys.path.insert(0, {str(SCRIPTS)!r})\n"
        f"sys.argv = {['train.py', '--input', str(csvs), '--output', str(tmp_path / 'run'), *OPTIONS, '--workers', '2']!r}\n"
        "try:\n"
        f"    runpy.run_path({str(SCRIPTS / 'train.py')!r}, run_name='__main__')\n"
        "finally:\n"
        "    print('imported', {'keras', 'tensorflow', 'jax'} & set(sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert "imported set()" in done.stdout and done.stdout.count("accuracy") > 3
    assert predictions(tmp_path / "run") == predictions(run)
    assert not [path for path in (tmp_path / "run").rglob("*") if path.name.startswith((".", "state"))]
    assert not workers()


def test_killed_workers_a_lost_node_and_a_late_one_change_nothing(alone, cluster, tmp_path, pytestconfig):
    """`--kills N` kills N workers, each at a random moment; then a node goes and another comes."""
    csvs, run = alone
    moments = random.Random(time.time_ns())
    line = ("train", "--input", csvs, *OPTIONS, "--address", cluster.address, "--output")
    left, number = pytestconfig.getoption("--kills"), 0
    while left > 0 or number == 0:
        output = tmp_path / str(number)
        process, killed = start(*line, output), 0
        if number == 0:  # a node goes as soon as there are epochs, and one comes
            while not list(output.glob("fold_*/state.npz")) and process.poll() is None:
                time.sleep(0.05)
            cluster.remove_node(cluster.cores.pop(), allow_graceful=False)
            cluster.cores.append(cluster.add_core())
        while process.poll() is None and left > 0 and killed < 3:
            time.sleep(moments.uniform(0, 6))
            victims = workers()
            if victims and process.poll() is None:
                os.kill(moments.choice(victims), signal.SIGKILL)
                left, killed = left - 1, killed + 1
        outcome: Outcome = finish(process)
        assert outcome.code == 0, outcome
        assert predictions(output) == predictions(run)
        print(f"run {number}: {killed} workers killed, {left} to go", file=sys.__stderr__)
        number += 1


def test_ctrl_c_and_a_killed_driver_keep_the_epochs_and_leave_no_process(long, alone, tmp_path):
    csvs, run = alone
    line = ("train", "--input", csvs, *OPTIONS, "--workers", "2", "--output", tmp_path / "run")
    for send, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = start(*line)
        while " epoch " not in process.stdout.readline():
            assert process.poll() is None
        process.send_signal(send)
        outcome = finish(process)
        assert outcome.code == code and "Traceback" not in outcome.error
        assert list((tmp_path / "run").glob("fold_*/state.npz"))
        until = time.monotonic() + 30
        while workers() and time.monotonic() < until:
            time.sleep(0.1)
        assert not workers()
    line = [each for each in line if each not in ("--workers", "2")]
    assert finish(start(*line)).code == 0  # goes on without Ray
    assert predictions(tmp_path / "run") == predictions(run)


def test_a_member_whose_workers_always_die_is_named(dataset, tmp_path, monkeypatch):
    plan = make_plan(Run(tmp_path / "run"), dataset, "dropout_mlp", {"folds": 2, "epochs": 2})

    class Dying(pool.Pool):
        def __init__(self):
            self.size, self.workers = 1, []

        def fill(self, wanted, precision):
            self.workers = self.workers or [pool._Worker(None, None)]

        def answers(self):
            worker = self.workers[0]
            if worker.member:
                yield worker, ray.exceptions.OutOfMemoryError("no memory")

        def drop(self, worker):
            self.workers.remove(worker)

    monkeypatch.setattr(
        pool._Training, "_assign", lambda self, worker, member: setattr(worker, "member", member)
    )
    with pytest.raises(UserError, match=r"fold_00: 5 workers in a row were lost .* out of memory"):
        Dying().train_members(plan, plan.members, float("inf"))


def test_no_time_for_an_epoch(long, dataset, tmp_path):
    where = pool.Where(workers=2)
    options = {"folds": 2, "epochs": 2, "batch_size": 16}
    trained = session.train(
        tmp_path / "run", dataset, ["dropout_mlp"], options, threads=1, where=where, deadline=time.monotonic()
    )
    assert len(trained.unfinished) == 2 and not list((tmp_path / "run").glob("fold_*"))
