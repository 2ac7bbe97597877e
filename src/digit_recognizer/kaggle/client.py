"""The kaggle client, version 2.0 or later, and the download: silent, and with errors that say what to do.

It is imported only when it is needed: its import authenticates, and version 2.0 then exits if that fails.
"""

import errno
import importlib.metadata
import io
import json
import math
import os
import re
import shutil
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from pathlib import Path
from typing import Any

from digit_recognizer.data import paths
from digit_recognizer.data.input_files import by_hand
from digit_recognizer.data.paths import FILES
from digit_recognizer.files import UserError, atomic, reading

FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0  # seconds between two requests of `poll`
BACK_OFF = 1.5  # factor from one pause to the next
_STAGING = ".download"  # in the input folder: the archive, until its files are unpacked

_SETTINGS = "https://www.kaggle.com/settings/api"
_NEW_TOKEN = f"make a new token at {_SETTINGS} and put it there, as UTF-8 without BOM"
_BROKE_OFF = "the connection to Kaggle broke off: run the same command again"
_PASSWORD = "the proxy wants a password (407): set HTTPS_PROXY to http://USER:PASSWORD@HOST:PORT"

# What an exception means: the name of its class or of a base class, and a part of its message. The first match counts.
_FAULTS = {
    ("InvalidSchema", "SOCKS"): "the proxy is a SOCKS proxy, which needs PySocks: pip install pysocks",
    ("InvalidURL", ""): "HTTPS_PROXY is not the address of a proxy, such as http://HOST:PORT",
    ("ValueError", "Invalid header value"): f"the Kaggle token contains a line break: {_NEW_TOKEN}",
    ("SSLError", ""): "no trusted TLS connection: set REQUESTS_CA_BUNDLE to a company's certificate, check HTTPS_PROXY",
    ("OSError", "CA certificate bundle"): "REQUESTS_CA_BUNDLE names a file that does not exist: correct it",
    ("ProxyError", " 407 "): _PASSWORD,
    ("ConnectionError", "Max retries exceeded"): "no connection to Kaggle: check the network and HTTPS_PROXY",
    ("JSONDecodeError", ""): "the answer is not Kaggle's: a proxy or a sign-in page of the network sent it",
    ("RequestException", ""): _BROKE_OFF,
    ("HTTPError", ""): _BROKE_OFF,  # urllib3's
    ("ValueError", "not match expected size"): _BROKE_OFF,  # the client's
    ("ValueError", "in configuration"): f"the Kaggle credentials are incomplete: {_NEW_TOKEN}",  # client 2.0's
}

# What an answer means, by its status.
_ANSWERS = {
    401: f"Kaggle does not accept the credentials of {{place}}: {_NEW_TOKEN}",
    403: "Kaggle refuses {name} (403): accept its rules at https://www.kaggle.com/competitions/{name}/rules",
    404: "Kaggle knows no competition {name} (404): --competition takes the last part of its address",
    407: _PASSWORD,
    429: "Kaggle answers 429: try again later",
}


class NotDoneError(UserError):
    """Kaggle refused the request: nothing has changed there."""


def connect() -> Any:
    """Returns the authenticated client; raises UserError if it is too old or the credentials are missing or wrong."""
    place = paths.credentials_place()
    if place is None:
        advice = (
            f'make a token at {_SETTINGS} ("Generate New Token") and put it into ~/.kaggle/access_token or the variable'
        )
        others = "KAGGLE_USERNAME and KAGGLE_KEY, kaggle.json and `kaggle auth login` work too"
        raise UserError(f"no Kaggle credentials: {advice} KAGGLE_API_TOKEN; {others}")
    version = importlib.metadata.version("kaggle")
    if int(version.partition(".")[0]) < 2:
        raise UserError(f"kaggle {version} is too old, 2.0 is needed: pip install --upgrade kaggle")
    _secrets()  # raises UserError if the client cannot read the file
    if place.endswith("credentials.json"):
        os.environ["KAGGLE_ENABLE_OAUTH"] = "1"  # version 2.0 reads that file only then
    for name in ("VERBOSE", "VERBOSE_OUTPUT"):  # they make the client read every answer whole, to print it
        os.environ.pop(name, None)
    with kaggle_request("authentication") as output:
        import kaggle

        kaggle.api.authenticate()
    for line in dict.fromkeys(output.getvalue().splitlines()):  # such as: other users can read kaggle.json
        print(redacted(line), flush=True)
    return kaggle.api


def _secrets() -> list[str]:
    """Returns the client's tokens and keys; raises UserError if their file is not plain UTF-8 or no JSON object."""
    token = os.environ.get("KAGGLE_API_TOKEN")
    secrets = [token, os.environ.get("KAGGLE_KEY")]
    path = Path(token or paths.credentials_place() or "")
    if len(path.name) < 200 and path.is_file():  # a token can be too long for the name of a file
        with reading(path, _NEW_TOKEN):
            text = path.read_text(encoding="utf-8").strip()
            values = json.loads(text) if path.suffix == ".json" else {"key": text}
            if not isinstance(values, dict) or text.startswith("\ufeff"):
                raise ValueError("it is no JSON object, or has a byte order mark")
        secrets += [values.get(name) for name in ("key", "access_token", "refresh_token")]
    return [secret for secret in secrets if isinstance(secret, str) and len(secret) > 3]


def redacted(text: str | None) -> str:
    """Returns a text as one line without credentials, signatures of addresses and passwords of proxies."""
    text = " ".join((text or "").split())
    for secret in _secrets():
        text = text.replace(secret, "...")
    return re.sub(r"//[^/@\s]+@", "//...@", re.sub(r"\?[^\s'\"]*=[^\s'\"]*", "?...", text))[:300]


@contextmanager
def kaggle_request(name: str) -> Iterator[io.StringIO]:
    """Runs a block that calls the client, hides and yields what it prints, and turns its errors into UserErrors.

    Its output and its errors may contain an address with its signature. `name` is the competition, or OWNER/KERNEL.
    Raises NotDoneError if Kaggle refuses the request, OSError if the client cannot write a file, else UserError.
    """
    output = io.StringIO()
    try:
        with redirect_stdout(output), redirect_stderr(io.StringIO()):
            yield output
    except (UserError, ModuleNotFoundError):
        raise
    except SystemExit:  # wrong, expired or incomplete credentials
        raise UserError(_ANSWERS[401].format(place=paths.credentials_place())) from None
    except Exception as error:
        if isinstance(error, OSError) and (error.filename or error.errno == errno.ENOSPC):
            raise  # from the file system
        # the client may replace Kaggle's answer by an error of its own
        has_answer = isinstance(error, ValueError) and hasattr(error.__context__, "response")
        response = getattr(error.__context__ if has_answer else error, "response", None)
        if response is None:
            classes, text = {parent.__name__ for parent in type(error).__mro__}, str(error)
            matches = (fault for (kind, part), fault in _FAULTS.items() if kind in classes and part in text)
            default = f"the kaggle client failed with {type(error).__name__}: pip install --upgrade kaggle"
            raise UserError(next(matches, default)) from None
        if response.request.method == "GET":  # of a file; requests to Kaggle itself are POST
            raise UserError(f"the address of the file answers {response.status_code}: try again") from None
        kind = NotDoneError if response.status_code < 500 else UserError
        raise kind(_explain_answer(response, name)) from None


def _explain_answer(response: Any, name: str) -> str:
    status, message = response.status_code, ""
    with suppress(ValueError, KeyError, TypeError, AttributeError):  # not the JSON of Kaggle's errors
        message = redacted(response.json()["message"])
    sentence = "Kaggle refuses the request ({status})" if status < 500 else "Kaggle answers {status}: try again later"
    sentence = _ANSWERS.get(status, sentence)
    if status in (400, 403) and "/" not in name and re.search(r"allowance|limit|daily|per day", message, re.IGNORECASE):
        sentence = "the daily limit of {name} is reached, 0 are left until 00:00 UTC"
    elif status in (403, 404) and "/" in name:
        sentence = "Kaggle refuses the kernel {name} ({status}): is --owner your name at Kaggle?"
    sentence = sentence.format(status=status, name=name, place=paths.credentials_place())
    return f"{sentence} (Kaggle says: {message})" if message else sentence


def poll(look: Callable[[], tuple[str, bool]], what: str, seconds: float = math.inf) -> None:
    """Calls `look` with growing pauses until it reports the last state, or `seconds` are over; prints each new state.

    `look` returns a state in words, and whether it is the last one. If a later look raises UserError, that is a state
    too: the connection may come back.
    """
    began, pause, last_state = time.monotonic(), FIRST_PAUSE, ""
    while True:
        try:
            state, is_last = look()
        except UserError as error:
            if not last_state:
                raise
            state, is_last = str(error), False
        elapsed = time.monotonic() - began
        if state != last_state:
            print(f"waiting for {what}, {elapsed:.0f} s: {state}", flush=True)
            last_state = state
        if is_last or elapsed >= seconds:
            return
        time.sleep(min(pause, seconds - elapsed))
        pause = min(pause * BACK_OFF, LONGEST_PAUSE)


def download(competition: str, folder: Path) -> None:
    """Puts the competition's files into `folder`, unless they are there, and prints their names and sizes.

    An archive COMPETITION.zip in `folder` is unpacked instead of a download. An interrupted download is continued.
    Raises UserError if this fails; no file is half written.
    """
    archive = folder / f"{competition}.zip"
    if all((folder / name).is_file() for name in FILES):
        print(f"{folder} has {', '.join(FILES)} already: nothing is downloaded")
    else:
        unpack(archive if archive.exists() else _fetch(competition, folder), folder)
    if (folder / _STAGING).exists():
        shutil.rmtree(folder / _STAGING)
    print("\n".join(f"{folder / name}: {(folder / name).stat().st_size:,} bytes" for name in FILES))


def _fetch(competition: str, folder: Path) -> Path:
    """Downloads the archive, or the rest of it, and returns its path."""
    archive = folder / _STAGING / f"{competition}.zip"
    try:
        api = connect()
        archive.parent.mkdir(parents=True, exist_ok=True)
        part = f" ({archive.stat().st_size:,} bytes have arrived before)" if archive.exists() else ""
        print(f"downloading {archive}{part}", flush=True)
        with kaggle_request(competition):
            api.competition_download_files(competition, path=str(archive.parent), quiet=True)
        if not archive.exists():
            raise UserError(f"no zip archive of {competition} has arrived: check --competition and the network")
    except UserError as error:
        with suppress(OSError):  # something has arrived
            archive.parent.rmdir()
        raise UserError(f"{error}; or {by_hand(competition, folder)}") from None
    return archive


def unpack(archive: Path, folder: Path) -> None:
    """Writes the competition's files, and nothing else, from `archive` into `folder`.

    Raises UserError, and writes nothing, if the archive is damaged or lacks a file, or if `folder` has a file of the
    same name with other contents.
    """
    print(f"unpacking {archive}", flush=True)
    with reading(archive, "remove it, and run the same command again"), zipfile.ZipFile(archive) as file:
        if missing := [name for name in FILES if name not in file.namelist()]:
            raise UserError(f"{archive} has no {missing[0]}: remove it, and take another --competition")
        contents = {folder / name: file.read(name) for name in FILES}
    for path, content in contents.items():
        if path.exists() and path.read_bytes() != content:
            raise UserError(f"{path} differs from that in {archive}: move it away, or take another --input")
    for path, content in contents.items():
        with atomic(path) as temporary:
            temporary.write_bytes(content)
