"""Trains several members at once, on Ray: on this machine, or on the machines of a cluster.

Each member is a Ray task. An actor on this machine, the keeper, reads and writes the run directory: the task gets the
member's state from it and sends it the files of each epoch. So no other machine needs the run directory. If a task
loses its worker, Ray starts it again, and it continues from the last epoch. This process imports no Keras.
"""

import logging
import math
import os
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import digit_recognizer
from digit_recognizer.data.digits import Dataset
from digit_recognizer.files import UserError
from digit_recognizer.runs.member import Member
from digit_recognizer.runs.plan import Plan
from digit_recognizer.training import backend
from digit_recognizer.training.progress import Progress, print_line
from digit_recognizer.training.remote import start_keeper, start_worker, train_member

RETRIES = 10  # of a member whose worker was lost or that raised an exception

_STORE, _STORE_PER_WORKER = 200 * 2**20, 50 * 2**20  # bytes: the data set; the files of an epoch or a member
_PATIENCE = 60.0  # seconds without a worker, until a line says so
_POLL = 0.5  # seconds between two looks at the tasks

# What a worker's numbers depend on beside the recipe.
_ENVIRONMENT = ("KERAS_BACKEND", "ONEDNN_MAX_CPU_ISA", "TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS")

# Ray's settings: no statistics, no warnings about itself.
_RAY_ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DISABLE_IMPORT_WARNING": "1"}
_RAY_ENVIRONMENT |= {"RAY_DEDUP_LOGS_SKIP_REGEX": ".", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}


@dataclass(frozen=True)
class ClusterOptions:
    """Where several members are trained at once."""

    workers: int | None = None  # members at once; None: as many as the cluster has room for
    address: str | None = None  # of a Ray cluster; None: one on this machine
    gpus_per_fold: float | None = None  # None: the GPUs are shared out


class RayExecutor:
    """Trains several members at once. `LocalExecutor` has the same methods."""

    def __init__(
        self,
        options: ClusterOptions,
        dataset: Dataset,
        threads: int | None,
        at_once: int,
        deadline: float,
        tensorboard: bool,
    ):
        """Prepares the context; entering it starts Ray or connects to it.

        `threads` are those of each member (None: a share of the cores); `at_once` members can be trained at once, at
        most. `deadline` is in seconds of time.monotonic: no epoch begins that would not end by then.
        """
        self.options, self.dataset, self.threads = options, dataset, threads or 0
        self.at_once = max(1, min(options.workers or at_once, at_once))
        self.deadline, self.tensorboard = deadline, tensorboard
        self.task_options: dict[str, Any] = {}  # of a member's task

    def __enter__(self):
        """Starts Ray; raises UserError if it is not installed, or if the cluster does not answer."""
        os.environ.update(_RAY_ENVIRONMENT | os.environ)
        try:
            import ray
        except ImportError:
            raise UserError("training folds at once needs Ray: pip install 'ray>=2.40'") from None
        with ExitStack() as stack:
            # a short path: names of sockets have 107 characters at most
            folder = tempfile.TemporaryDirectory(prefix="digits_", dir="/tmp", ignore_cleanup_errors=True)
            stack.callback(folder.cleanup)
            stack.callback(ray.shutdown)
            _start_ray(self.options, self.threads or 1, folder.name)
            self._share_out()
            self._data = ray.put(self.dataset)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_):
        self._stack.close()

    def _share_out(self) -> None:
        """Sets the threads of a member, and the options of its task."""
        import ray

        cores = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
        cores = [number for number in cores if number] or [1]
        workers = self.options.workers
        self.threads = self.threads or max(1, min(min(cores), sum(cores) // (workers or len(cores))))
        gpus = int(ray.cluster_resources().get("GPU", 0))
        share = self.options.gpus_per_fold or (1 / math.ceil((workers or gpus) / gpus) if gpus else 0)
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        environment["KERAS_BACKEND"] = backend.choose()
        if share == 0:
            environment["CUDA_VISIBLE_DEVICES"] = "-1"
        elif share < 1:  # other members are on the same GPU
            environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
            environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 * share:.3f}"
        # an exception is retried too: another worker may have more memory on its device; a process frees its GPU's
        # memory at its end only
        self.task_options = {"max_retries": RETRIES, "retry_exceptions": True, "max_calls": int(share > 0)}
        self.task_options |= {"num_cpus": self.threads, "num_gpus": share, "runtime_env": {"env_vars": environment}}

    def facts(self, precision: str) -> dict[str, Any]:
        """Returns the first worker's facts for recipe.json; raises UserError if it fails, TimeoutError if too late."""
        import ray

        task = ray.remote(**self.task_options)(start_worker)
        pending, began, is_announced = task.remote(self.threads, precision), time.monotonic(), False
        while not ray.wait([pending], timeout=_POLL)[0]:
            if self._is_too_late():
                ray.cancel(pending)
                raise TimeoutError
            if time.monotonic() - began > _PATIENCE and not is_announced:
                is_announced = True
                needs = f"{self.threads} free cores and {self.task_options['num_gpus']:g} GPUs"
                print_line(f"no worker yet: waiting for a node with {needs}; --threads asks for fewer cores")
        try:
            facts = ray.get(pending)
        except ray.exceptions.RayError as error:
            raise UserError(f"no worker starts: {_last_words(error)}") from None
        self._compute_dtype = facts["compute_dtype"]
        return facts

    def train(self, plan: Plan, members: Sequence[Member]) -> bool:
        """Trains unfinished members; returns False if there was no time for all of them.

        Raises a member's own UserError at once, and one for a member out of retries after the others have ended.
        """
        import ray

        # auto is the same number format on all machines, whatever each has instructions for
        dtype = self._compute_dtype if plan.recipe.precision == "auto" else plan.recipe.precision
        keeper = start_keeper(plan.run.folder, self.deadline)
        same = replace(plan.recipe, precision=dtype), plan.identity, self.threads, self.tensorboard
        task = ray.remote(**self.task_options)(train_member)
        progress, waiting = Progress(plan.recipe, members, self.at_once, plan.finished), list(members)
        running: dict[Any, Member] = {}
        in_time, failures = True, []
        try:
            while running or (waiting and in_time):
                while in_time and waiting and len(running) < self.at_once:
                    member = waiting.pop(0)
                    running[task.remote(keeper, *same, member, self._data)] = member
                finished, _ = ray.wait(list(running), timeout=_POLL)
                started = _show_news(keeper, progress, members)
                if self._is_too_late():
                    in_time = False
                    for reference, member in running.items():
                        if member.name not in started:  # it waits for a free worker
                            ray.cancel(reference)
                for reference in finished:
                    member = running.pop(reference)
                    try:
                        metrics = ray.get(reference)
                    except ray.exceptions.TaskCancelledError:
                        metrics = None
                    except ray.exceptions.RayError as error:
                        failures.append(f"{member.folder}: given up after {RETRIES} retries: {_last_words(error)}")
                        print_line(failures[-1])
                        continue
                    if isinstance(metrics, UserError):
                        raise metrics
                    if metrics is None:
                        in_time = False
                    else:
                        progress.end_member(member, metrics)
        finally:
            progress.close()
        if failures:
            raise UserError(f"{failures[0]}; every finished epoch is kept")
        return in_time

    def _is_too_late(self) -> bool:
        return time.monotonic() > self.deadline


def _show_news(keeper: Any, progress: Progress, members: Sequence[Member]) -> set[str]:
    """Shows the epochs since the last call; returns the names of the members that have started."""
    import ray

    by_name = {member.name: member for member in members}
    results, started = ray.get(keeper.news.remote())
    for name, row, printed in results:
        if printed:
            print_line(printed)
        if row != {}:
            progress.show(by_name[name], row)
    return started


def _start_ray(options: ClusterOptions, threads: int, folder: str) -> None:
    """Connects to the cluster, or starts Ray here with its files in `folder`; raises UserError if that fails."""
    import ray

    # Ray ships this package to the workers
    package = {"py_modules": [str(Path(digit_recognizer.__file__).parent)]}
    quiet = {"log_to_driver": False, "logging_level": logging.CRITICAL, "runtime_env": package}
    workers = options.workers or 1
    try:
        if options.address:
            host, _, port = options.address.rpartition(":")
            if port.isdigit():
                socket.create_connection((host, int(port)), timeout=10).close()
            ray.init(address=options.address, **quiet)
            return
        gpus = backend.count_gpus() or None  # None: Ray detects accelerators of other vendors
        size = {"num_cpus": max(backend.cores(), workers * threads), "num_gpus": gpus}
        size["object_store_memory"] = _STORE + workers * _STORE_PER_WORKER
        ray.init(include_dashboard=False, _temp_dir=folder, **size, **quiet)
    except Exception as error:  # Ray's exceptions have no common class
        what, advice = "Ray does not start on this machine", "run the same command again, or leave --workers out"
        if options.address:
            what, advice = f"--address {options.address}: no Ray cluster answers there", "run `ray start --head` there"
        raise UserError(f"{what} ({_last_words(error)}): {advice}") from None
    found, share = int(ray.cluster_resources().get("GPU", 0)), options.gpus_per_fold
    if share and not found:
        raise UserError(f"--gpus-per-fold {share:g}: this machine has no GPU that Ray finds: leave it out")
    if share and workers > (found // share if share >= 1 else found * int(1 / share)):
        raise UserError(
            f"--gpus-per-fold {share:g}: {workers} workers do not fit on {found} GPUs: take fewer --workers"
        )


def _last_words(error: Exception) -> str:
    """Returns the last line of an exception's message, which in Ray's messages names the cause."""
    lines = str(error).strip().splitlines()
    return lines[-1].strip()[-300:] if lines else type(error).__name__
