"""Keras' backend on this machine: which one, its threads, its number format, and what XLA compiles."""

import functools
import importlib.metadata
import importlib.util
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import joblib

from digit_recognizer.files import UserError
from digit_recognizer.training import processor

BACKENDS = ("tensorflow", "jax")

XlaScope = Literal["none", "step", "epoch"]  # what XLA compiles of a training

# Images of a training, all epochs counted, from which on the compiler's seconds are won back.
_WORTH_COMPILING = 50_000

# TensorFlow and Keras import them where they are installed, which takes a second; no training needs them.
_NOT_NEEDED = ("jax", "matplotlib")

_RECORDED = ("keras", "tensorflow", "jax", "numpy", "scikit-learn")


def choose() -> str:
    """Returns the backend that KERAS_BACKEND names, else TensorFlow or JAX, whichever is installed.

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
    """Returns how many processor cores this process may use, with the limits of its container."""
    return joblib.cpu_count()


def start(threads: int) -> None:
    """Imports Keras on the chosen backend, which then computes with this number of threads on a processor.

    It has to come before any other import of Keras; a backend's threads cannot be changed afterwards.
    """
    chosen = os.environ["KERAS_BACKEND"] = choose()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if platform.machine() in ("x86_64", "AMD64"):  # TensorFlow by itself takes oneDNN on the newest alone
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    processor.keep_freed_memory()
    os.environ["NPROC"] = os.environ["PJRT_NPROC"] = str(threads)  # JAX's CPU client reads them
    if chosen == "jax":
        _multiply_with_fresh_weights()
    with _native_messages_dropped(), _not_installed(set(_NOT_NEEDED) - {chosen}):
        if chosen == "tensorflow":
            import tensorflow as tf

            tf.get_logger().setLevel("ERROR")  # a network a fold looks to it like one that is traced anew
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
            tf.config.list_logical_devices()  # starts the runtime, which says what it did not find
        import keras  # noqa: F401


def _multiply_with_fresh_weights() -> None:
    """Keeps jaxlib 0.7 from multiplying by XNNPACK on a processor.

    XNNPACK keeps a copy of the weights and does not see that a step has replaced them in place: from the
    second epoch on validation judged the weights of the first. jaxlib 0.10 does not do that; the versions
    between were not tried.
    """
    version = tuple(int(part) for part in importlib.metadata.version("jaxlib").split(".")[:2])
    if (0, 7) <= version < (0, 10):
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_xnnpack=false".strip()


@contextmanager
def _native_messages_dropped() -> Iterator[None]:
    """Drops what native code writes to stderr, unless the block fails.

    TensorFlow tells of missing GPUs before it has a log level. Where it cannot be imported, its messages
    are all there is to know.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        try:
            yield
        except BaseException:
            messages.seek(0)
            os.write(kept, messages.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


@contextmanager
def _not_installed(packages: set[str]) -> Iterator[None]:
    """Lets every import of these packages fail meanwhile, but for those that are already imported."""
    hidden = packages - set(sys.modules)
    sys.modules.update(dict.fromkeys(hidden))  # None: Python's own mark of what is not there
    try:
        yield
    finally:
        for package in hidden:
            del sys.modules[package]


def compute_dtype(precision: str) -> str:
    """Returns float32, bfloat16 or float16 for a recipe's `precision`, which is one of them or auto.

    auto is the half precision for which the device has instructions, else float32: without instructions
    half precision is many times slower. Needs `start`.

    Raises UserError for a half precision that TensorFlow can't compute in here.
    """
    if precision != "auto":
        _check_onednn(precision)
        return precision
    accelerator = find_accelerator()
    if accelerator is None:
        return "bfloat16" if processor.has_bfloat16() else "float32"
    # NVIDIA's GPUs have bfloat16 from compute capability 8 on, TPUs (which have none) always
    return "float16" if accelerator.get("compute_capability", (8, 0)) < (8, 0) else "bfloat16"


def _check_onednn(dtype: str) -> None:
    """Raises UserError where TensorFlow gives oneDNN what it can't compute: a product of matrices would end the process.

    TensorFlow asks the processor for its instructions and does not know of ONEDNN_MAX_CPU_ISA.
    """
    if dtype == "float32" or os.environ["KERAS_BACKEND"] != "tensorflow" or find_accelerator():
        return
    import tensorflow as tf

    try:
        tf.nn.conv2d(tf.zeros((1, 8, 8, 1), dtype), tf.zeros((3, 3, 1, 1), dtype), 1, "SAME")
    except tf.errors.OpError as error:
        limit = os.environ.get("ONEDNN_MAX_CPU_ISA") or "DEFAULT"
        raise UserError(
            f"precision={dtype}: oneDNN can't compute in it with ONEDNN_MAX_CPU_ISA={limit}: "
            "set precision=float32 or TF_ENABLE_ONEDNN_OPTS=0"
        ) from error


def xla_scope(dtype: str, images: int, convolutions: bool = True) -> XlaScope:
    """Returns what XLA compiles of a training. Needs `start`.

    On an accelerator it is the whole epoch. On a processor TensorFlow's own convolutions are faster than
    XLA's, but a step of dense layers alone takes less time than Python needs to begin one. XLA has no code
    for a processor's bfloat16 instructions. JAX has no other way than XLA.

    Args:
        dtype: that it computes in.
        images: that it trains on, all epochs counted.
        convolutions: whether the network has any.
    """
    if find_accelerator():
        return "epoch"
    if os.environ["KERAS_BACKEND"] == "jax":
        return "step" if convolutions else "epoch"
    pays = dtype == "float32" and images >= _WORTH_COMPILING and sys.platform != "darwin"
    return "epoch" if pays and not convolutions else "none"


def prediction_batch_size() -> int:
    """Returns how many rows to predict at once, for two busy cores or a busy GPU. Needs `start`."""
    return 2048 if find_accelerator() else 256


def session_facts(threads: int, precision: str) -> dict[str, Any]:
    """Returns what recipe.json records of this session: threads, number format, backend, device, versions.

    `precision` is the recipe's. Needs `start`.
    """
    return {
        "threads": threads,
        "compute_dtype": compute_dtype(precision),
        "backend": os.environ["KERAS_BACKEND"],
        "device": device_name(),
        "versions": {"python": platform.python_version()} | _versions(),
    }


def device_name() -> str:
    """Returns the accelerators' name where there are any, else the processor's. Needs `start`."""
    found = find_accelerator()
    if found:
        return f"{found['count']} x {found['device_name']}"
    names = processor.cpuinfo("model name")
    return min(names) if names else platform.processor() or platform.machine()


@functools.cache
def find_accelerator() -> dict[str, Any] | None:
    """Returns count, device_name and, for a GPU, compute_capability of the accelerators, or None. Needs `start`."""
    if os.environ["KERAS_BACKEND"] == "jax":
        import jax

        devices = jax.devices()
        if devices[0].platform == "cpu":
            return None
        capability = getattr(devices[0], "compute_capability", None)  # "7.5"
        found = {"device_name": devices[0].device_kind}
        if capability:
            found["compute_capability"] = tuple(int(part) for part in str(capability).split("."))
        return found | {"count": len(devices)}
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return None
    details = tf.config.experimental.get_device_details(gpus[0])
    return {"device_name": "GPU"} | details | {"count": len(gpus)}


def _versions() -> dict[str, str]:
    found = {}
    for name in _RECORDED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
