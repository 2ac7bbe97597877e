"""Trains several members at once, on Ray: on this machine, or on the machines of a cluster.

Each worker is a process with a backend of its own, in a temporary folder. The driver, which is the process
that was started, holds the run directory: it sends a member's state with the member, gets the files back
after each epoch and writes them. So no machine but the driver's needs the run directory, and a member whose
worker is lost goes on elsewhere from its last epoch. The driver imports no Keras.
"""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from digit_recognizer.data.digits import Dataset
from digit_recognizer.errors import UserError
from digit_recognizer.training import backend
from digit_recognizer.training.host import temporary_folder
from digit_recognizer.training.pool import Pool, Where

__all__ = ["Where", "open_pool"]

_STORE, _STORE_PER_WORKER = 200 * 2**20, 50 * 2**20  # bytes: the data set; the files of an epoch or a member


@contextmanager
def open_pool(where: Where, dataset: Dataset, threads: int | None, wanted: int) -> Iterator[Pool]:
    """Yields the workers of a session; afterwards no process of theirs is left.

    Args:
        where: they run.
        dataset: to train on.
        threads: of each worker; None: its share of the cores.
        wanted: how many members there are to train.

    Raises UserError where Ray is missing, or the cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_DISABLE_IMPORT_WARNING", "1")
    # Ray's own messages: of lost workers and nodes one line of ours tells
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else Ray warns that this will change
    try:
        import ray
    except ImportError:
        option = "--address" if where.address else "--workers"
        raise UserError(f"{option} needs Ray: pip install 'ray>=2.40', or pip install '.[ray]'") from None
    with ExitStack() as ends:
        folder = None
        if where.address is None:
            # short: the names of sockets have 107 characters at most
            made, remover = temporary_folder("digits_", "/tmp")
            ends.enter_context(remover)
            ends.callback(ray.shutdown)
            folder = str(made)
            _start_here(where, threads, folder)
        else:
            ends.callback(ray.shutdown)
            _connect(where.address)
        yield ends.enter_context(closing(Pool(where, dataset, threads, wanted, folder)))


def _start_here(where: Where, threads: int | None, folder: str) -> None:
    import ray

    workers = where.workers or 1
    ray.init(
        num_cpus=max(backend.cores(), workers * (threads or 1)),
        include_dashboard=False,
        object_store_memory=_STORE + workers * _STORE_PER_WORKER,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
        _temp_dir=folder,
    )
    gpus, each = int(ray.cluster_resources().get("GPU", 0)), where.gpus_per_fold
    if each and not gpus:
        raise UserError(f"--gpus-per-fold {each:g}: this machine has no GPU that Ray finds: leave it out")
    if each and workers > (gpus // each if each >= 1 else gpus * int(1 / each)):
        raise UserError(
            f"--gpus-per-fold {each:g}: {workers} workers do not fit on {gpus} GPUs: take fewer --workers"
        )


def _connect(address: str) -> None:
    import ray

    host, _, port = address.rpartition(":")
    try:
        if port.isdigit():
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL)
    except Exception as error:  # Ray's own have no common class
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"--address {address}: no Ray cluster answers there ({reason}): start one with `ray start --head`"
        ) from None
