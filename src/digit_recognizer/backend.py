"""Keras' backend on this machine: chosen, quietened and given its threads before Keras is imported."""

import ctypes
import importlib.metadata
import importlib.util
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import joblib

from digit_recognizer.errors import UserError

BACKENDS = ("tensorflow", "jax")
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h
_RECORDED = ("keras", "tensorflow", "jax", "numpy", "scikit-learn")


def chosen() -> str:
    """The backend that KERAS_BACKEND names, else TensorFlow or JAX, whichever is installed.

    In a TPU session, where JAX's libtpu is installed and TensorFlow is built for the CPU alone, it is JAX.
    Raises UserError where it is neither, or not installed.
    """
    named = os.environ.get("KERAS_BACKEND")
    installed = [name for name in BACKENDS if importlib.util.find_spec(name)]
    if named and named not in BACKENDS:
        raise UserError(f"KERAS_BACKEND={named}: this program runs on {' and '.join(BACKENDS)}")
    if not installed or (named and named not in installed) or not importlib.util.find_spec("keras"):
        raise UserError(
            f"keras with {named or 'tensorflow'} is not installed: pip install -r requirements.txt"
        )
    on_tpu = "jax" in installed and importlib.util.find_spec("libtpu")
    return named or ("jax" if on_tpu else installed[0])


def cores() -> int:
    """The processor cores this process may use, container limits counted."""
    return joblib.cpu_count()


def start(threads: int) -> None:
    """Imports Keras on the chosen backend, which then computes with so many threads on a processor.

    It has to come before any import of Keras; the threads of a backend cannot be changed afterwards.
    """
    os.environ["KERAS_BACKEND"] = chosen()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    _keep_freed_memory()
    os.environ["NPROC"] = os.environ["PJRT_NPROC"] = str(threads)  # JAX's CPU client reads them
    with _native_messages_dropped():
        if os.environ["KERAS_BACKEND"] == "tensorflow":
            import tensorflow as tf

            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
            tf.config.list_logical_devices()  # starts the runtime, which says what it did not find
        import keras  # noqa: F401


def _keep_freed_memory() -> None:
    """Tells glibc to keep the memory that is freed.

    Left alone it gives the large blocks of every training step back to the system and takes them anew for
    the next: 1.3 million page faults in 54 steps of 16 pictures, 4.8 s of the system's time beside 5 s of
    work. Kept, 0.03 million and 0.3 s, for the same peak. Other C libraries do not know `mallopt`.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)


@contextmanager
def _native_messages_dropped() -> Iterator[None]:
    """Drops what native code writes to stderr: TensorFlow tells of missing GPUs before it has a log level."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def facts(threads: int) -> dict[str, Any]:
    """What of the machine a run records: threads, precision, backend, device, versions. Needs `start`."""
    return {
        "threads": threads,
        "precision": "float32",
        "backend": os.environ["KERAS_BACKEND"],
        "device": _device(),
        "versions": {"python": platform.python_version()} | _versions(),
    }


def _device() -> str:
    """The accelerator's name where there is one, else the processor's."""
    if os.environ["KERAS_BACKEND"] == "jax":
        import jax

        if jax.default_backend() != "cpu":
            return f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    else:
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            return f"{len(gpus)} x {tf.config.experimental.get_device_details(gpus[0]).get('device_name', 'GPU')}"
    return _processor()


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for name in _RECORDED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
