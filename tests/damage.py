"""Damage to files, as disks, networks, editors and strangers do it, and what has to come of it."""

import gzip
import io
import json
import os
import signal
import traceback
import zipfile
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path

from conftest import tell
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from digit_recognizer.files import UserError

SECONDS = 10  # of the processor, that a case may take

NASTY = (
    *("", " ", "-1", "-0", "+1", "1.0", "1e400", "256", "9" * 30, "9" * 5000, "0x1", "nan", "inf", "None"),
    *(
        "'",
        '"',
        '""',
        "\x00",
        "\r",
        "\n\n",
        ",",
        ",,,",
        "é",
        "\ufeff",
        "٣",
        "²",
        "1_0",
        "<script>",
        "{{7*7}}",
    ),
)

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(NASTY)
    | st.text(max_size=5)
)
_VALUES = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


class HangError(BaseException):
    """A case that takes too long; no handler of Exception keeps it."""


@contextmanager
def time_limit(seconds: float = SECONDS):
    """Ends a block that hangs: that computes for longer, or that waits for ten times as long.

    Other programs may have the processor for most of that.
    """

    def stop(*_):
        raise HangError(f"more than {seconds} s")

    timers = {
        signal.SIGPROF: (signal.ITIMER_PROF, seconds),
        signal.SIGALRM: (signal.ITIMER_REAL, 10 * seconds),
    }
    before = {number: signal.signal(number, stop) for number in timers}
    for timer, limit in timers.values():
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for timer, _ in timers.values():
            signal.setitimer(timer, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


@st.composite
def damaged_bytes(draw, data: bytes) -> bytes:
    """Bytes that were cut, changed, repeated, mixed up or filled with zeros in one to four places."""
    damaged = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        size = len(damaged)
        # the beginning and the end, where headers and directories are, as often as all the rest
        start = draw(
            st.integers(0, size) | st.integers(0, min(200, size)) | st.integers(max(0, size - 200), size)
        )
        length = draw(st.integers(0, 8) | st.integers(0, max(8, size)))
        kind = draw(st.sampled_from(["cut", "flip", "insert", "delete", "repeat", "zeros", "text", "move"]))
        part = slice(start, start + length)
        if kind == "cut":
            del damaged[start:]
        elif kind == "flip" and start < size:
            damaged[start] ^= draw(st.integers(1, 255))
        elif kind == "insert":
            damaged[start:start] = draw(st.binary(max_size=20))
        elif kind == "delete":
            del damaged[part]
        elif kind == "repeat":
            damaged[start:start] = damaged[part][:5000]
        elif kind == "zeros":
            damaged[part] = bytes(len(damaged[part]))
        elif kind == "text":
            text = draw(st.sampled_from(NASTY)).encode()
            damaged[start : start + len(text)] = text
        elif kind == "move":
            taken = bytes(damaged[part])
            del damaged[part]
            damaged[:0] = taken
    return bytes(damaged)


@st.composite
def damaged_csv(draw, data: bytes) -> bytes:
    """A CSV with a few cells, rows or columns that do not belong there; or with damaged bytes."""
    if draw(st.integers(0, 3)) == 0:
        return draw(damaged_bytes(data))
    rows = [line.split(",") for line in data.decode().split("\n")]
    for _ in range(draw(st.integers(1, 3))):
        row = draw(st.integers(0, len(rows) - 1))
        column = draw(st.integers(0, 3) | st.integers(0, max(0, len(rows[row]) - 1)))
        kind = draw(st.sampled_from(["cell", "cell", "cell", "drop", "add", "double", "swap", "empty"]))
        if kind == "cell" and column < len(rows[row]):
            rows[row][column] = draw(
                st.sampled_from(NASTY) | st.text(max_size=4) | st.integers(-300, 300).map(str)
            )
        elif kind == "drop" and column < len(rows[row]):
            del rows[row][column]
        elif kind == "add":
            rows[row].insert(column, draw(st.sampled_from(NASTY)))
        elif kind == "double":
            rows.insert(row, list(rows[row]))
        elif kind == "swap":
            other = draw(st.integers(0, len(rows) - 1))
            rows[row], rows[other] = rows[other], rows[row]
        elif kind == "empty":
            rows[row] = []
    return "\n".join(map(",".join, rows)).encode("utf-8", errors="surrogatepass")


@st.composite
def damaged_json(draw, data: bytes) -> bytes:
    """JSON in which one to three values are others, or gone; or with damaged bytes."""
    if draw(st.integers(0, 4)) == 0:
        return draw(damaged_bytes(data))
    value = json.loads(data)
    for _ in range(draw(st.integers(1, 3))):
        holder, places = [value], [0]
        while True:  # down to a random place
            own = holder[places[-1]]
            keys = (
                list(own) if isinstance(own, dict) else list(range(len(own))) if isinstance(own, list) else []
            )
            if not keys or draw(st.integers(0, 4)) == 0:
                break
            holder, places = own, [*places, draw(st.sampled_from(keys))]
        if holder and len(places) > 1 and draw(st.integers(0, 3)) == 0:
            del holder[places[-1]]
        elif len(places) > 1:
            holder[places[-1]] = draw(_VALUES)
        else:
            value = draw(_VALUES)
    return json.dumps(value, indent=draw(st.sampled_from([None, 2]))).encode()


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
    with zipfile.ZipFile(
        made, "w", draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    ) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()


def damaged_gzip(data: bytes) -> st.SearchStrategy[bytes]:
    """A gzip archive that is damaged, or one of damaged contents."""
    return damaged_bytes(data) | damaged_bytes(gzip.decompress(data)).map(gzip.compress)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below `folder`."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def one_line(message: str) -> bool:
    """True for a message that a terminal shows on one line of some length."""
    return 0 < len(message) < 1500 and len(message.splitlines()) == 1


def survives(action: Callable[[], None], folder: Path, names: str) -> bool:
    """Runs `action`: it ends well, or with a UserError that says one of `names` and writes nothing.

    Returns whether it ended well.
    """
    before = contents(folder)
    try:
        with time_limit():
            action()
    except UserError as error:
        assert one_line(str(error)), str(error)
        assert any(name in str(error) for name in names.split()), str(error)
        assert contents(folder) == before
        return False
    assert not [path for path in folder.rglob(".*")]
    return True


def try_damage(
    strategy: st.SearchStrategy[bytes], case: Callable[[bytes], None], number: int, random: bool
) -> None:
    """Calls `case` with `number` damaged contents, the same ones every time unless `random`.

    All of them are tried: what fails is told at the end, once for each line that raised it.
    """
    called, failures = 0, {}

    @settings(
        max_examples=number,
        deadline=None,
        database=None,
        derandomize=not random,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def run(data):
        nonlocal called
        called += 1
        try:
            case(data)
        except (Exception, HangError) as error:
            frames = traceback.extract_tb(error.__traceback__)
            own = [frame for frame in frames if "digit_recognizer" in frame.filename] or frames
            place = (type(error).__name__, own[-1].filename, own[-1].lineno)
            failures.setdefault(place, f"{''.join(traceback.format_exception(error))}{data[:3000]!r}")

    run()
    assert not failures, f"{len(failures)} kinds of failure:\n\n" + "\n\n".join(failures.values())
    test = os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].removesuffix(" (call)")
    tell(f"{test}: {called} damaged contents")
    assert called
