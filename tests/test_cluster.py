"""Members that train at once, on Ray: one machine, and a cluster of several nodes on loopback.

What takes more than a minute on two cores is done with --campaign alone.
"""

import functools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import pytest
from conftest import SCRIPTS, Outcome, finish, read_until, start, tell, write_csvs

from digit_recognizer.benchmark import scaling
from digit_recognizer.files import UserError
from digit_recognizer.runs.directory import Run
from digit_recognizer.runs.plan import METRICS, make_plan
from digit_recognizer.training import dispatch, host, pool, session
from digit_recognizer.training.cluster import Where, open_pool
from digit_recognizer.training.worker import News

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
def cluster(monkeypatch):
    """A head that computes nothing, and two nodes of one core, with a folder for temporary files."""
    from ray.cluster_utils import Cluster

    temporary = tempfile.mkdtemp(prefix="nodes_", dir="/tmp")  # short: it holds sockets
    monkeypatch.setenv("TMPDIR", temporary)
    store = {"object_store_memory": 100 * 2**20}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **store})
    cluster.add_core = lambda: cluster.add_node(num_cpus=1, **store)
    cluster.temporary = Path(temporary)
    cluster.cores = [cluster.add_core(), cluster.add_core()]
    yield cluster
    cluster.shutdown()
    shutil.rmtree(temporary, ignore_errors=True)


def left_behind(folder: Path, before: set[Path] = frozenset()) -> set[Path]:
    """The folders of workers and of Ray in `folder` that are new, and that nobody removes within 30 seconds."""
    until = time.monotonic() + 30
    while (left := set(folder.glob("digit*_*")) - before) and time.monotonic() < until:
        time.sleep(0.2)
    return left


def workers_left(before: set[int]) -> set[int]:
    """Process ids of the workers that are new, and have not ended within 30 seconds."""
    until = time.monotonic() + 30
    while (left := workers() - before) and time.monotonic() < until:
        time.sleep(0.2)
    return left


def workers(variable: str = "") -> set[int]:
    """Process ids of the workers, of this machine or of the ones that have that NAME=VALUE in their environment."""
    found = set()
    for path in Path("/proc").glob("[0-9]*"):
        try:
            own = variable.encode() in (path / "environ").read_bytes()
            if own and (path / "cmdline").read_bytes().startswith(b"ray::Host"):
                found.add(int(path.name))
        except OSError:  # it has just ended, or is another user's
            continue
    return found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "0"], "--workers 0: it must be at least 1"),
        (["--workers", "2", "--gpus-per-fold", "1.5"], "--gpus-per-fold 1.5: it must be a part of one"),
        (["--gpus-per-fold", "0.5"], "give --workers or --address too"),
        (["--address", "ray://127.0.0.1:1"], "Ray's client is not supported: run train.py on a machine of"),
        (["--address", "127.0.0.1:1"], "--address 127.0.0.1:1: no Ray cluster answers there"),
    ],
)
def test_impossible_options_are_refused(options, message, alone, call, tmp_path):
    outcome = call("train", "--input", alone[0], "--output", tmp_path / "run", *options)
    assert outcome.code == 2 and message in outcome.error and outcome.error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_share_of_no_gpu_is_refused(alone, tmp_path):
    line = ("--input", alone[0], "--output", tmp_path / "run", "--workers", "2", "--gpus-per-fold", "0.5")
    outcome = finish(start("train", *line, CUDA_VISIBLE_DEVICES=""))  # as on a machine without one
    assert outcome.code == 2 and outcome.error.count("\n") == 1
    assert "--gpus-per-fold 0.5: this machine has no GPU that Ray finds: leave it out" in outcome.error
    assert not (tmp_path / "run").exists()


def test_without_ray_it_says_what_to_install(alone, tmp_path):
    (tmp_path / "ray.py").write_text("raise ImportError('no ray')")
    line = ("--input", alone[0], "--output", tmp_path / "run", "--workers", "2")
    outcome = finish(start("train", *line, PYTHONPATH=str(tmp_path)))
    assert outcome.code == 2 and "--workers needs Ray: pip install 'ray>=2.40'" in outcome.error


def test_two_workers_make_the_bytes_of_one_process_and_the_driver_needs_no_keras(alone, tmp_path):
    csvs, run = alone
    before = workers()
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
    assert not workers_left(before)


def test_killed_workers_a_lost_node_and_a_late_one_change_nothing(alone, cluster, tmp_path, campaign):
    """A node goes and another comes; a worker is killed at a random moment, in a campaign 20 of them."""
    csvs, run = alone
    moments = random.Random(time.time_ns())
    line = ("train", "--input", csvs, *OPTIONS, "--address", cluster.address, "--output")
    left, number = 20 if campaign else 1, 0
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
            victims = workers(f"TMPDIR={cluster.temporary}")
            if victims and process.poll() is None:
                os.kill(moments.choice(sorted(victims)), signal.SIGKILL)
                left, killed = left - 1, killed + 1
        outcome: Outcome = finish(process)
        assert outcome.code == 0, outcome
        assert "raylet" not in outcome.out and "out of memory" not in outcome.out, outcome.out
        assert predictions(output) == predictions(run)
        assert not left_behind(cluster.temporary)
        tell(f"workers of a cluster: {killed} killed in run {number}")
        number += 1


def test_a_node_without_memory(long, alone, tmp_path):
    """Ray kills what computes there; the members end on the other node. Where there is no other, one line says it."""
    from ray.cluster_utils import Cluster

    csvs, run = alone
    store = {"object_store_memory": 100 * 2**20}
    starved = {"RAY_memory_usage_threshold": "0.01", "RAY_memory_monitor_refresh_ms": "2000"}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **store})
    line = ("train", "--input", csvs, *OPTIONS, "--address", cluster.address, "--workers", "2", "--output")
    try:
        cluster.add_node(num_cpus=1, env_vars=starved, **store)
        outcome = finish(start(*line, tmp_path / "alone"))
        assert outcome.code == 2 and outcome.error.count("\n") == 1 and "out of memory" in outcome.error, (
            outcome
        )
        cluster.add_node(num_cpus=1, **store)
        outcome = finish(start(*line, tmp_path / "run"))
        assert outcome.code == 0, outcome
        assert predictions(tmp_path / "run") == predictions(run)
    finally:
        cluster.shutdown()


def test_ctrl_c_and_a_killed_driver_keep_the_epochs_and_leave_no_process(long, alone, tmp_path):
    csvs, run = alone
    line = ("train", "--input", csvs, *OPTIONS, "--workers", "2", "--output", tmp_path / "run")
    before, others = set(Path("/tmp").glob("digit*_*")), workers()
    for send, code in ((signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)):
        process = start(*line)
        read_until(process, " epoch ")
        process.send_signal(send)
        outcome = finish(process)
        assert outcome.code == code and "Traceback" not in outcome.error
        assert list((tmp_path / "run").glob("fold_*/state.npz"))
        assert not workers_left(others) and not left_behind(Path("/tmp"), before)
    line = [each for each in line if each not in ("--workers", "2")]
    assert finish(start(*line)).code == 0  # goes on without Ray
    assert predictions(tmp_path / "run") == predictions(run)


class Machines:
    """A pool without Ray: on one machine after the other there is room for a worker, which answers at once."""

    def __init__(self, *machines):
        self.facts, self.size = {"compute_dtype": "float32"}, len(machines)
        self.workers, self.machines, self.lost = [], list(machines), []
        self.most = 0  # members that were in training at once

    def fill(self, wanted):
        while len(self.workers) < self.size and self.machines:
            self.workers.append(pool.RemoteWorker(self.machines.pop(0), None))

    def answers(self):
        self.most = max(self.most, sum(worker.member is not None for worker in self.workers))
        for worker in [each for each in self.workers if each.pending is not None]:
            answer, worker.pending = worker.pending, None
            yield worker, answer

    def drop(self, worker):
        self.lost.append(worker.member.index)
        self.workers.remove(worker)
        self.machines.append(worker.host)

    dataset = None


class Machine:
    """Answers as a worker there does, for members that it can train."""

    def __init__(self, fails, deaths=0):
        """`fails` says for which members it can't begin; so many `deaths` follow after a first epoch."""
        self.fails, self.deaths, self.jobs = fails, deaths, []
        self.train = self.next = self

    def remote(self, job=None, dataset=None):
        if job is None and self.deaths:
            self.deaths -= 1
            return ray.exceptions.OutOfMemoryError("no memory")
        if job is None:
            metrics = dict.fromkeys(METRICS, 1) | {"identity": self.job.identity}
            return News("end", {f"{self.job.member.name}/metrics.json": json.dumps(metrics).encode()})
        self.job = job
        self.jobs.append(job)
        if self.fails(job.member):
            return ray.exceptions.OutOfMemoryError("no memory")
        row = dict.fromkeys(("epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"), 1)
        return News("epoch", {f"{job.member.name}/state.npz": b"a state"}, row | {"seconds": 1})


@pytest.fixture
def plan(dataset, tmp_path):
    return make_plan(Run(tmp_path / "run"), dataset, "dropout_mlp", {"folds": 5, "epochs": 2})


def test_two_gpus_are_shared_out(dataset, monkeypatch):
    """Ray hands out two GPUs that are not there; what a worker sees is what it would compute on."""
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    monkeypatch.setattr(host.Host, "start", lambda self, threads: FACTS)
    monkeypatch.setattr(ray, "init", functools.partial(ray.init, num_gpus=2))

    def seen(self):
        return os.environ["CUDA_VISIBLE_DEVICES"], os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION")

    found = {}
    with open_pool(Where(workers=4), dataset, threads=1, wanted=4):
        for workers, part in ((2, None), (4, None), (3, 0.5), (4, 0.25), (1, 2.0)):
            where = Where(workers=workers, gpus_per_fold=part)
            deadline = time.monotonic() + 60
            while ray.available_resources().get("GPU") != 2:  # the last pool's workers are not gone yet
                assert time.monotonic() < deadline
                time.sleep(0.1)
            with closing(pool.Pool(where, dataset, threads=1, wanted=workers, folder=None)) as own:
                own.fill(workers)
                of_each = ray.get([each.host.__ray_call__.remote(seen) for each in own.workers])
            found[workers, part] = sorted(of_each)
    half, quarter = "0.450", "0.225"  # of a GPU's memory, and some to spare
    assert found == {
        (2, None): [("0", None), ("1", None)],
        (4, None): [("0", half), ("0", half), ("1", half), ("1", half)],
        (3, 0.5): [("0", half), ("0", half), ("1", half)],
        (4, 0.25): [("0", quarter)] * 4,
        (1, 2.0): [("0,1", None)],
    }


def test_members_whose_workers_always_die_are_named(plan):
    machines = Machines(Machine(lambda member: True), Machine(lambda member: True))
    with pytest.raises(UserError, match=r"fold_00: 5 workers in a row were lost .* out of memory"):
        dispatch.train_members(machines, plan, plan.members, float("inf"))


def test_a_member_whose_workers_always_die_stops_no_other(plan):
    machines = Machines(*(Machine(lambda member: member.index == 2) for _ in range(3)))
    with pytest.raises(UserError, match=r"fold_02: 5 workers in a row were lost"):
        dispatch.train_members(machines, plan, plan.members, float("inf"))
    assert [plan.is_finished(member) for member in plan.members] == [True, True, False, True, True]
    assert machines.most == 3


def test_a_member_whose_worker_dies_goes_on_from_its_last_epoch(plan):
    machine = Machine(lambda member: False, deaths=1)
    assert dispatch.train_members(Machines(machine), plan, plan.members, float("inf"))
    first, again, *_ = machine.jobs
    assert first.member is again.member and first.files == {}
    assert again.files == {"fold_00/state.npz": b"a state"}


def test_a_machine_on_which_all_fail_stops_none(plan):
    """It is free again and again, while the good one trains."""
    good, bad = Machine(lambda member: False), Machine(lambda member: True)
    machines = Machines(bad, good)
    assert dispatch.train_members(machines, plan, plan.members, float("inf"))
    assert all(plan.is_finished(member) for member in plan.members)
    assert machines.lost and max(machines.lost.count(index) for index in machines.lost) == 2
    assert {job.recipe.precision for job in good.jobs} == {
        "float32"
    }  # that of the first worker, on all machines


@pytest.fixture
def starting():
    """A pool whose workers are only starting."""
    workers = pool.Pool.__new__(pool.Pool)
    workers.facts, workers.workers, workers._starts_lost, workers._told_unlike = None, [], 0, False
    workers.drop = lambda worker: None
    return workers


FACTS = {"device": "one", "versions": {"keras": "3.15"}, "compute_dtype": "bfloat16"}


def test_a_worker_of_another_kind_is_told_once(starting, capsys):
    for own in ({}, {}, {"device": "two", "compute_dtype": "float32"}, {"device": "three"}):
        starting.end_start(pool.RemoteWorker(None, None), FACTS | own)
    line = "a worker (two) has other device, compute_dtype than the first one (one): the results of its members may"
    assert capsys.readouterr().out == f"{line} differ a little\n"


def test_workers_that_do_not_start(starting, capsys):
    """None at all is an error; where others train, they go on, and a new one is tried later."""
    gone = [ray.exceptions.RayError("gone")] * pool.MOST_LOSSES
    for answer in [*gone[1:], FACTS, *gone[1:]]:  # not that many in a row
        starting.end_start(pool.RemoteWorker(None, None), answer)
    with pytest.raises(UserError, match="no worker starts; the last one: gone"):
        starting.end_start(None, gone[0])
    starting.workers = [pool.RemoteWorker(None, None, started=True)]
    starting._starts_lost = 0
    for answer in gone * 2:
        starting.end_start(None, answer)
    assert capsys.readouterr().out == "5 workers in a row did not start (gone): going on with the others\n"
    starting.size = 2
    starting.fill(2)
    assert len(starting.workers) == 1


def test_no_time_for_an_epoch(long, dataset, tmp_path):
    where = pool.Where(workers=2)
    options = {"folds": 2, "epochs": 2, "batch_size": 16}
    trained = session.train(
        tmp_path / "run", dataset, ["dropout_mlp"], options, threads=1, where=where, deadline=time.monotonic()
    )
    assert len(trained.unfinished) == 2 and not list((tmp_path / "run").glob("fold_*"))


def test_the_simulation_of_many_members():
    """Workers share the members; a slow driver, or its link, limits them."""
    costs = scaling.DriverCosts(member=0.01, epoch=0.02)
    one, two = (scaling.Machine("", workers, 1, 100, 10, 3.6, True) for workers in (1, 2))
    alone, shared = (scaling.simulate(machine, 100, costs)["wall"] for machine in (one, two))
    assert alone == pytest.approx(10 + 100 * 100, rel=0.05) and 1.9 < alone / shared < 2.1
    many = scaling.Machine("", 256, 8, 40, 25, 256, False)
    found = scaling.simulate(many, 1000, scaling.DriverCosts(member=0.01, epoch=1))
    assert found["driver"] == 1 and found["wall"] == pytest.approx(1000 * (scaling.EPOCHS + 0.01))
    found = scaling.simulate(many, 1000, scaling.DriverCosts(member=0, epoch=0))
    assert found["link"] == 1 and found["dollars"] == pytest.approx(found["wall"] / 3600 * 256)
