"""Keras' backend on this machine: chosen, quietened and given its threads before Keras is imported."""

import ctypes
import functools
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
# Images of a training: the compiler takes some 15 s longer, the code 0.8 ms less for each of bn_cnn's.
_WORTH_COMPILING = 50_000

# parts of oneDNN's names for instruction sets, and what Linux calls them
_BFLOAT16 = ("BF16", "FP16", "AMX", "AVX10"), {"amx_bf16", "avx512_bf16"}
_AVX512 = ("AVX512", "AVX10"), {"avx512f"}

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
    if os.environ["KERAS_BACKEND"] == "jax":
        _multiply_with_fresh_weights()
    with _native_messages_dropped():
        if os.environ["KERAS_BACKEND"] == "tensorflow":
            import tensorflow as tf

            tf.get_logger().setLevel("ERROR")  # a network a fold looks to it like one that is traced anew
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
            tf.config.list_logical_devices()  # starts the runtime, which says what it did not find
        import keras  # noqa: F401


def _multiply_with_fresh_weights() -> None:
    """Keeps jaxlib 0.7 from multiplying by XNNPACK on a processor.

    That keeps a copy of the weights, and does not see that a step has replaced them in place: from the
    second epoch on validation judged the weights of the first. jaxlib 0.10 does not do it; between them it
    was not tried.
    """
    version = tuple(int(part) for part in importlib.metadata.version("jaxlib").split(".")[:2])
    if (0, 7) <= version < (0, 10):
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_use_xnnpack=false".strip()


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


def precision(asked: str) -> str:
    """float32, bfloat16 or float16 for a recipe's precision, which is one of them or auto.

    auto is the half precision for which the device has instructions: without them it is many times
    slower. Needs `start`.
    """
    accelerator = _accelerator()
    if asked != "auto":
        return asked
    if accelerator is None:
        return "bfloat16" if _onednn_has(*_BFLOAT16) else "float32"
    # NVIDIA's GPUs have bfloat16 from compute capability 8 on, TPUs (which have none) always
    return "float16" if accelerator.get("compute_capability", (8, 0)) < (8, 0) else "bfloat16"


def _onednn_has(names: tuple[str, ...], flags: set[str]) -> bool:
    """True if TensorFlow's oneDNN may and can use such instructions of this processor.

    Of those the names of sets with them have one of `names` as a part; /proc/cpuinfo has one of `flags`.
    JAX has no oneDNN.
    """
    allowed = (os.environ.get("ONEDNN_MAX_CPU_ISA") or "DEFAULT").upper()
    if os.environ["KERAS_BACKEND"] != "tensorflow" or os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        return False
    if allowed not in ("DEFAULT", "ALL") and not any(name in allowed for name in names):
        return False
    return bool(_cpuinfo("flags") & flags)


def compiled(precision: str, images: int, convolutions: bool = True) -> str | None:
    """What XLA is to compile of a training over so many images, all epochs counted: a step, an epoch or nothing.

    On accelerators it is the whole "epoch". On a processor a "step" makes float32 1.3 times faster, once the
    code is there; but XLA has none for bfloat16 instructions, and where oneDNN has AVX-512 its `convolutions`
    are 1.4 times as fast as XLA's. JAX has no other way. Needs `start`.
    """
    if _accelerator():
        return "epoch"
    pays = precision == "float32" and images >= _WORTH_COMPILING and sys.platform != "darwin"
    pays = pays and not (convolutions and _onednn_has(*_AVX512))
    return "step" if pays or os.environ["KERAS_BACKEND"] == "jax" else None


def rows_at_once() -> int:
    """Rows to predict at a time: they keep two cores busy within 0.2 GiB, or a GPU within 2. Needs `start`."""
    return 2048 if _accelerator() else 256


def facts(threads: int, asked: str) -> dict[str, Any]:
    """What of the machine a run records; `asked` is the recipe's precision. Needs `start`."""
    return {
        "threads": threads,
        "precision": precision(asked),
        "backend": os.environ["KERAS_BACKEND"],
        "device": _device(),
        "versions": {"python": platform.python_version()} | _versions(),
    }


def _device() -> str:
    """The accelerators' name where there are any, else the processor's."""
    found = _accelerator()
    if found:
        return f"{found['count']} x {found['device_name']}"
    names = _cpuinfo("model name")
    return min(names) if names else platform.processor() or platform.machine()


@functools.cache
def _accelerator() -> dict[str, Any] | None:
    """count, device_name and, of a GPU, compute_capability of the accelerators there are, else None."""
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


def _cpuinfo(name: str) -> set[str]:
    """The words of `flags`, or whole values of another line, in Linux' /proc/cpuinfo; none elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    values = {line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name}
    return {word for value in values for word in value.split()} if name == "flags" else values


def _versions() -> dict[str, str]:
    found = {}
    for name in _RECORDED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
