"""The kaggle client, from its version 2.0 on: authenticated, with no secret in what it says, its errors in words.

It is imported where it is used, because it authenticates on import, which in 2.0 ends a process that
has no credentials.
"""

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

from digit_recognizer.data import places
from digit_recognizer.errors import UserError

SETTINGS = "https://www.kaggle.com/settings/api"

_AGAIN = "try the same command again"


def page(competition: str, name: str) -> str:
    """The address of a page of the competition."""
    return f"https://www.kaggle.com/competitions/{competition}/{name}"


def connect(instead: str = "") -> Any:
    """The kaggle client, authenticated; `instead` tells how to do without it.

    Raises UserError where it is not installed, finds no credentials, or Kaggle does not take them.
    """
    place = places.credentials_place()
    if place is None:
        raise UserError(
            f'no Kaggle credentials: make a token at {SETTINGS} ("Generate New Token") and put it into '
            "~/.kaggle/access_token or the variable KAGGLE_API_TOKEN; the client also takes KAGGLE_USERNAME "
            "and KAGGLE_KEY, kaggle.json in ~/.kaggle or KAGGLE_CONFIG_DIR, and `kaggle auth login`" + instead
        )
    if place.endswith("credentials.json"):
        os.environ["KAGGLE_ENABLE_OAUTH"] = "1"  # without which 2.0 does not look there
    said = io.StringIO()
    with telling("authentication", instead), _quiet_about_headers(), redirect_stdout(said):
        try:
            import kaggle

            kaggle.api.authenticate()
        except SystemExit:  # after a page of help, for which a line is enough
            raise UserError(_refused("wrong, expired or not whole")) from None
        except ValueError as error:
            if "Missing" not in str(error):
                raise
            raise UserError(_refused("not whole")) from None
        except ModuleNotFoundError as error:
            raise UserError(f"{error.name} is not installed: pip install -r requirements.txt") from None
    for line in dict.fromkeys(said.getvalue().splitlines()):  # a kaggle.json that others can read
        print(_clean(line), flush=True)
    return kaggle.api


def _refused(why: str) -> str:
    return (
        f"Kaggle does not take the credentials of {places.credentials_place()} ({why}): make a new token at "
        f"{SETTINGS} and put it there"
    )


@contextmanager
def _quiet_about_headers() -> Iterator[None]:
    """Hides the variables with which the client would print its requests, the Authorization header too."""
    hidden = {name: os.environ.pop(name) for name in ("VERBOSE", "VERBOSE_OUTPUT") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


class _Clean(io.TextIOBase):
    """Standard output without what nobody else may read."""

    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(_clean(text))
        return len(text)

    def flush(self) -> None:
        self.stream.flush()


def _clean(text: str) -> str:
    """`text` without secrets: those of the variables, signatures of addresses, and a proxy's password."""
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_KEY"):
        if os.environ.get(name):
            text = text.replace(os.environ[name], "...")
    return re.sub(r"//[^/@\s]+@", "//...@", re.sub(r"\?[^\s'\"]*=[^\s'\"]*", "?...", text))


@contextmanager
def speaking() -> Iterator[None]:
    """Lets the client tell what it does, its bar only where there is a terminal."""
    errors = sys.stderr if places.on_terminal() else io.StringIO()
    with redirect_stdout(_Clean(sys.stdout)), redirect_stderr(errors):
        yield


@contextmanager
def telling(competition: str, instead: str = "", cut: str = _AGAIN) -> Iterator[None]:
    """Turns whatever the client raises into a UserError that says what to do.

    `instead` is another way to the same end, or nothing; `cut` what to do about a connection that broke off.
    Nothing of the client's own message but what Kaggle itself has answered is told: the rest may hold
    an address with its signature.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(_clean(_sentence(error, competition, instead, cut))) from None


def _sentence(error: Exception, competition: str, instead: str, cut: str) -> str:
    from requests.exceptions import ConnectionError, RequestException
    from urllib3.exceptions import HTTPError

    response, request = getattr(error, "response", None), getattr(error, "request", None)
    if response is not None:
        # the client asks Kaggle with POST, and is sent on to the file itself, which is a GET
        if response.request.method == "GET":
            return f"the file's own address answers {response.status_code}: {cut}{instead}"
        return _answer(response, competition)
    if isinstance(error, ConnectionError) and request is not None and request.method == "POST":
        return f"no connection to Kaggle: look at the network and at HTTPS_PROXY{instead}"
    if isinstance(error, RequestException | HTTPError) or "does not match expected size" in str(error):
        return f"the connection to Kaggle broke off: {cut}{instead}"
    if isinstance(error, OSError):
        return unwritable(error)
    return f"the kaggle client failed with {type(error).__name__}: pip install --upgrade kaggle{instead}"


def unwritable(error: OSError) -> str:
    """What to do about a full disk, or what else the file system refuses."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full: make room, then the same command goes on"
    return f"{error.filename or 'the folder'} can't be written ({error.strerror or error})"


def _answer(response: Any, competition: str) -> str:
    """What Kaggle's refusal means."""
    status, message = response.status_code, _message(response)
    if status in (400, 403) and re.search(r"allowance|limit|daily|per day", message, re.IGNORECASE):
        return f"the daily limit of {competition} is reached, 0 are left until 00:00 UTC{message}"
    if status == 401:
        return _refused("401")
    if status == 403:
        return (
            f"Kaggle refuses {competition} (403): accept its rules at {page(competition, 'rules')}, "
            f"then the same command again{message}"
        )
    if status == 404:
        return (
            f"Kaggle knows no competition {competition!r} (404): --competition takes the last part of its "
            f"address, such as {places.COMPETITION}"
        )
    if status == 429 or status >= 500:
        return f"Kaggle answers {status}: try again later{message}"
    return f"Kaggle refuses the request ({status}){message}"


def _message(response: Any) -> str:
    """What Kaggle says, in brackets, on one line."""
    try:
        message = " ".join(str(response.json()["message"]).split())
    except (ValueError, KeyError, TypeError):
        return ""
    return f" (Kaggle says: {message[:300]})" if message else ""
