"""Keras' backend on this machine: its name, threads, device and number format, and what XLA compiles."""

import ctypes
import functools
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import joblib

from digit_recognizer.files import UserError

BACKENDS = ("tensorflow", "jax")

XlaScope = Literal["none", "step", "epoch"]  # the part of a training that XLA compiles

# Images of a training, all epochs counted, from which on compiling saves more time than it takes.
_WORTH_COMPILING = 50_000

_RECORDED = ("keras", "tensorflow", "jax", "numpy", "scikit-learn")

# Parts of oneDNN's names for instruction sets, and Linux' names for them.
_BFLOAT16 = ("BF16", "FP16", "AMX", "AVX10"), {"amx_bf16", "avx512_bf16"}
_AVX512 = ("AVX512", "AVX10"), {"avx512f"}

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h


def choose() -> str:
    """Returns the backend that KERAS_BACKEND names; by default TensorFlow if it is installed, else JAX.

    If JAX's libtpu is installed, as in a Kaggle session with a TPU, the default is JAX: TensorFlow has no TPU there.
    Raises UserError if KERAS_BACKEND names another one, or one that is not installed.
    """
    named = os.environ.get("KERAS_BACKEND")
    installed = [backend for backend in BACKENDS if importlib.util.find_spec(backend)]
    if named and named not in BACKENDS:
        raise UserError(f"KERAS_BACKEND={named}: this program runs on {' and '.join(BACKENDS)}")
    if not installed or (named and named not in installed) or not importlib.util.find_spec("keras"):
        raise UserError(f"keras with {named or 'tensorflow'} is not installed: pip install -r requirements.txt")
    on_tpu = "jax" in installed and importlib.util.find_spec("libtpu")
    return named or ("jax" if on_tpu else installed[0])


def count_gpus() -> int:
    """Returns how many of NVIDIA's GPUs this process may use. It asks the driver and starts no backend."""
    try:
        line = ["nvidia-smi", "--list-gpus"]
        listed = subprocess.run(line, capture_output=True, text=True, timeout=60).stdout.splitlines()
    except (OSError, subprocess.TimeoutExpired):
        return 0
    count = sum(gpu.startswith("GPU ") for gpu in listed)
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return count if visible is None else min(count, sum(part not in ("", "-1") for part in visible.split(",")))


def cores() -> int:
    """Returns how many processor cores this process may use, with the limits of its container."""
    return joblib.cpu_count()


def name() -> str:
    """Returns the backend in use, "tensorflow" or "jax". Needs `start`."""
    return os.environ["KERAS_BACKEND"]


def start(threads: int) -> None:
    """Imports Keras on the chosen backend, which then computes with this number of threads on a processor.

    Call it before any other import of Keras. The number of threads of a backend cannot be changed afterwards.
    """
    chosen = os.environ["KERAS_BACKEND"] = choose()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if platform.machine() in ("x86_64", "AMD64"):  # TensorFlow enables oneDNN on the newest processors only
        os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    keep_freed_memory()
    os.environ["NPROC"] = os.environ["PJRT_NPROC"] = str(threads)  # JAX's CPU client reads them
    if chosen == "jax" and (0, 7) <= tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 10):
        # jaxlib's XNNPACK keeps a copy of the weights and does not see that a step has replaced them in place:
        # validation would judge the weights of the first epoch
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_xnnpack=false".strip()
    with native_messages_dropped():
        if chosen == "tensorflow":
            import tensorflow as tf

            tf.get_logger().setLevel("ERROR")  # it warns of networks that are traced again
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(threads)
            tf.config.list_logical_devices()  # starts the runtime, which writes messages too
        import keras  # noqa: F401


@contextmanager
def native_messages_dropped() -> Iterator[None]:
    """Drops what native code writes to stderr, but prints it if the block fails with a traceback.

    TensorFlow reports missing GPUs as errors before it applies its log level.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as messages:
        os.dup2(messages.fileno(), 2)
        try:
            yield
        except (UserError, OSError):
            raise
        except Exception:
            messages.seek(0)
            os.write(kept, messages.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def compute_dtype(precision: str) -> str:
    """Returns float32, bfloat16 or float16 for a recipe's `precision`, which is one of them or auto.

    auto is the half precision for which the device has instructions, else float32: without instructions half
    precision is many times slower. Needs `start`.
    """
    if precision != "auto":
        return precision
    accelerator = find_accelerator()
    if accelerator is None:  # JAX has no code for a processor's bfloat16 instructions
        return "bfloat16" if name() == "tensorflow" and has_bfloat16() else "float32"
    # NVIDIA's GPUs have bfloat16 from compute capability 8 on; TPUs have no such number, and bfloat16
    return "float16" if accelerator.get("compute_capability", (8, 0)) < (8, 0) else "bfloat16"


def xla_scope(dtype: str, images: int, convolutions: bool = True) -> XlaScope:
    """Returns which part of a training XLA compiles. Needs `start`.

    On an accelerator XLA compiles a whole epoch. On a processor, JAX compiles a step of a network with convolutions,
    else an epoch. TensorFlow compiles an epoch if the network has no convolutions, computes in float32 and sees at
    least _WORTH_COMPILING `images` in all epochs; otherwise, and on macOS, nothing. `dtype` is that of the computation.
    """
    if find_accelerator():
        return "epoch"
    if name() == "jax":
        return "step" if convolutions else "epoch"
    pays = dtype == "float32" and images >= _WORTH_COMPILING and sys.platform != "darwin"
    return "epoch" if pays and not convolutions else "none"


def prediction_batch_size() -> int:
    """Returns the number of rows of a batch in prediction. Needs `start`."""
    return 2048 if find_accelerator() else 256


def session_facts(threads: int, precision: str) -> dict[str, Any]:
    """Returns what recipe.json records of this session, whose recipe has that `precision`. Needs `start`."""
    versions = {"python": platform.python_version()}
    for package in _RECORDED:
        with suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    computing = {"threads": threads, "compute_dtype": compute_dtype(precision), "backend": name()}
    return computing | {"device": device_name(), "versions": versions}


def device_name() -> str:
    """Returns the name of the accelerator if there is one, else of the processor. Needs `start`."""
    if accelerator := find_accelerator():
        return str(accelerator["device_name"])
    names = cpuinfo("model name")
    return min(names) if names else platform.processor() or platform.machine()


def card_name() -> str:
    """Returns the device's name, of a GPU with its number: a network uses the first that is visible. Needs `start`."""
    if "compute_capability" not in (find_accelerator() or {}):
        return device_name()
    return f"{device_name()}, GPU {os.environ.get('CUDA_VISIBLE_DEVICES', '0').partition(',')[0]}"


@functools.cache
def find_accelerator() -> dict[str, Any] | None:
    """Returns device_name and, for a GPU, compute_capability of the accelerator, or None. Needs `start`."""
    if name() == "tensorflow":
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        return {"device_name": "GPU"} | tf.config.experimental.get_device_details(gpus[0]) if gpus else None
    import jax

    device = jax.devices()[0]
    if device.platform == "cpu":
        return None
    capability = getattr(device, "compute_capability", None)  # "7.5"
    numbers = {"compute_capability": tuple(map(int, str(capability).split(".")))} if capability else {}
    return {"device_name": device.device_kind} | numbers


def has_avx512() -> bool:
    """Returns whether TensorFlow may and can use AVX-512."""
    return _onednn_has(*_AVX512)


def has_bfloat16() -> bool:
    """Returns whether TensorFlow may and can use instructions for bfloat16."""
    return _onednn_has(*_BFLOAT16)


def _onednn_has(names: tuple[str, ...], flags: set[str]) -> bool:
    """Returns whether ONEDNN_MAX_CPU_ISA allows one of the `names`, and /proc/cpuinfo has one of the `flags`."""
    allowed = (os.environ.get("ONEDNN_MAX_CPU_ISA") or "DEFAULT").upper()
    if os.environ.get("TF_ENABLE_ONEDNN_OPTS") == "0":
        return False
    if allowed not in ("DEFAULT", "ALL") and not any(name in allowed for name in names):
        return False
    return bool(cpuinfo("flags") & flags)


def cpuinfo(name: str) -> set[str]:
    """Returns the words of `flags`, or the values of another line, in Linux' /proc/cpuinfo; nothing elsewhere."""
    path = Path("/proc/cpuinfo")
    lines = [line.partition(":") for line in path.read_text().splitlines()] if path.exists() else []
    values = {value.strip() for key, _, value in lines if key.strip() == name}
    return {word for value in values for word in value.split()} if name == "flags" else values


def keep_freed_memory() -> None:
    """Makes glibc keep freed memory; other C libraries have no `mallopt`.

    By default it returns the large blocks of every training step to the system and requests them again for the next
    one, which costs page faults. Threads with an arena of their own always do, so all share the first arena.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_ARENA_MAX, 1)
