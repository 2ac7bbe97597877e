"""Damage to files, as disks, networks, editors and strangers do it, and what has to come of it."""

import gzip
import io
import json
import os
import signal
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from conftest import tell
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from digit_recognizer.files import UserError

SECONDS = 10  # of the processor, that a case may take

NASTY = ["", " ", "-1", "-0", "+1", "1.0", "1e400", "256", "9" * 30, "9" * 5000, "0x1", "nan", "inf", "None"]
NASTY += ["'", '"', '""', "\x00", "\r", "\n\n", ",", ",,,", "é", "\ufeff", "٣", "²", "1_0", "<script>", "{{7*7}}"]

_SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.sampled_from(NASTY)
_VALUES = st.recursive(
    _SCALARS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


class HangError(BaseException):
    """A case that takes too long; no handler of Exception keeps it."""


@contextmanager
def time_limit():
    """Ends a block that computes for longer than SECONDS, or that waits for ten times as long."""

    def stop(*_):
        raise HangError(f"more than {SECONDS} s")

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, SECONDS), signal.SIGALRM: (signal.ITIMER_REAL, 10 * SECONDS)}
    before = {number: signal.signal(number, stop) for number in timers}
    for timer, limit in timers.values():
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])


@st.composite
def damaged_bytes(draw, data: bytes) -> bytes:
    """Bytes that were cut, changed, repeated, mixed up or filled with zeros in one to four places."""
    for _ in range(draw(st.integers(1, 4))):
        size = len(data)
        # the beginning and the end, where headers and directories are, as often as all the rest
        starts = st.integers(0, size) | st.integers(0, min(200, size)) | st.integers(max(0, size - 200), size)
        start, length = draw(starts), draw(st.integers(0, 8) | st.integers(0, max(8, size)))
        before, part, after = data[:start], data[start : start + length], data[start + length :]
        text, inserted = draw(st.sampled_from(NASTY)).encode(), draw(st.binary(max_size=20))
        changed = bytes(byte ^ draw(st.integers(1, 255)) for byte in data[start : start + 1])
        kinds = [
            before,  # cut
            before + after,
            before + part[:5000] + part + after,
            before + bytes(len(part)) + after,
            part + before + after,
            before + inserted + part + after,
            before + text + data[start + len(text) :],
            before + changed + data[start + 1 :],
        ]
        data = draw(st.sampled_from(kinds))
    return data


@st.composite
def damaged_csv(draw, data: bytes) -> bytes:
    """A CSV with a few cells, rows or columns that do not belong there; or with damaged bytes."""
    if draw(st.integers(0, 3)) == 0:
        return draw(damaged_bytes(data))
    rows = [line.split(",") for line in data.decode().split("\n")]
    for _ in range(draw(st.integers(1, 3))):
        row, other = (draw(st.integers(0, len(rows) - 1)) for _ in range(2))
        cells = rows[row]
        column = draw(st.integers(0, 3) | st.integers(0, max(0, len(cells) - 1)))
        cell = draw(st.sampled_from(NASTY) | st.text(max_size=4) | st.integers(-300, 300).map(str))
        before, after = cells[:column], cells[column + 1 :]
        replaced = [[*before, cell, *after]]
        added = [[*before, cell, *cells[column:]]]
        kinds = [replaced, replaced, replaced, [before + after], added, [cells, cells], [rows[other]], [[]]]
        rows[row : row + 1] = draw(st.sampled_from(kinds))
    return "\n".join(map(",".join, rows)).encode("utf-8", errors="surrogatepass")


@st.composite
def damaged_json(draw, data: bytes) -> bytes:
    """JSON in which one to three values are others, or gone; or with damaged bytes."""
    if draw(st.integers(0, 4)) == 0:
        return draw(damaged_bytes(data))
    root = [json.loads(data)]
    for _ in range(draw(st.integers(1, 3))):
        holder, key = root, 0
        while isinstance(holder[key], dict | list) and holder[key] and draw(st.integers(0, 4)):
            holder = holder[key]
            key = draw(st.sampled_from(list(holder) if isinstance(holder, dict) else range(len(holder))))
        if holder is not root and draw(st.integers(0, 3)) == 0:
            del holder[key]
        else:
            holder[key] = draw(_VALUES)
    return json.dumps(root[0], indent=draw(st.sampled_from([None, 2]))).encode()


@st.composite
def damaged_zip(draw, data: bytes, member: Callable[[str, bytes], st.SearchStrategy[bytes]]) -> bytes:
    """An archive with a member that is damaged, missing or another's, though its checksum is right."""
    if draw(st.integers(0, 2)) == 0:
        return draw(damaged_bytes(data))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name, other = (draw(st.sampled_from(sorted(members))) for _ in range(2))
    kind = draw(st.sampled_from(["damage", "damage", "damage", "drop", "swap"]))
    if kind == "damage":
        members[name] = draw(member(name, members[name]))
    elif kind == "drop":
        del members[name]
    else:
        members[name], members[other] = members[other], members[name]
    made = io.BytesIO()
    compression = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    with zipfile.ZipFile(made, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()


def damaged_gzip(data: bytes) -> st.SearchStrategy[bytes]:
    """A gzip archive that is damaged, or one of damaged contents."""
    return damaged_bytes(data) | damaged_bytes(gzip.decompress(data)).map(gzip.compress)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def survives(action: Callable[[], None], folder: Path, names: str) -> bool:
    """Runs `action`: it ends well, or with a UserError that says one of `names` and writes nothing.

    Returns whether it ended well.
    """
    before = contents(folder)
    try:
        with time_limit():
            action()
    except UserError as error:
        assert 0 < len(str(error)) < 1500 and len(str(error).splitlines()) == 1, str(error)
        assert any(name in str(error) for name in names.split()), str(error)
        assert contents(folder) == before
        return False
    assert not [path for path in folder.rglob(".*")]
    return True


def try_damage(strategy: st.SearchStrategy[bytes], case: Callable[[bytes], None], number: int, random: bool) -> None:
    """Calls `case` with `number` damaged contents, the same ones every time unless `random`."""
    options = {"phases": [Phase.generate], "suppress_health_check": list(HealthCheck), "database": None}
    settings(max_examples=number, deadline=None, derandomize=not random, **options)(given(strategy)(case))()
    test = os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].removesuffix(" (call)")
    tell(f"{test}: {number} damaged contents")
