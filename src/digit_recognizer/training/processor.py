"""This processor: the instructions that TensorFlow may use, and its memory."""

import ctypes
import os
from pathlib import Path

# Parts of oneDNN's names for instruction sets, and Linux' names for them.
_BFLOAT16 = ("BF16", "FP16", "AMX", "AVX10"), {"amx_bf16", "avx512_bf16"}
_AVX512 = ("AVX512", "AVX10"), {"avx512f"}

_M_TRIM_THRESHOLD, _M_MMAP_MAX, _M_ARENA_MAX = -1, -4, -8  # glibc's malloc.h


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
    step, which costs page faults. Threads with an arena of their own do so whatever the threshold is, so all threads
    share the first arena.
    """
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(_M_ARENA_MAX, 1)
