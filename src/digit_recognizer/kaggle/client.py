"""The kaggle client, from version 2.0 on: authenticated, without secrets in its output, its errors in words.

It is imported where it is used, because it authenticates on import, which in 2.0 ends a process that
has no credentials.
"""

import errno
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from digit_recognizer.data import paths
from digit_recognizer.files import UserError

SETTINGS = "https://www.kaggle.com/settings/api"

_AGAIN = "try the same command again"


class NotDoneError(UserError):
    """Kaggle has refused what was asked, or never got it: nothing has changed there."""


def page(competition: str, name: str) -> str:
    """Returns the address of a page of the competition."""
    return f"https://www.kaggle.com/competitions/{competition}/{name}"


def connect(alternative: str = "") -> Any:
    """Returns the kaggle client, authenticated.

    Raises UserError where it is not installed, finds no credentials, or Kaggle does not take them; `alternative`
    is the end of the message: how to do without the client.
    """
    place = paths.credentials_place()
    if place is None:
        raise UserError(
            f'no Kaggle credentials: make a token at {SETTINGS} ("Generate New Token") and put it into '
            "~/.kaggle/access_token or the variable KAGGLE_API_TOKEN; the client also takes KAGGLE_USERNAME "
            "and KAGGLE_KEY, kaggle.json in ~/.kaggle or KAGGLE_CONFIG_DIR, and `kaggle auth login`"
            + alternative
        )
    if place.endswith("credentials.json"):
        os.environ["KAGGLE_ENABLE_OAUTH"] = "1"  # without which 2.0 does not look there
    output = io.StringIO()
    with kaggle_errors("authentication", alternative), _no_verbose_requests(), redirect_stdout(output):
        try:
            import kaggle

            kaggle.api.authenticate()
        except SystemExit:  # after a page of help, for which a line is enough
            raise UserError(_credentials_refused("wrong, expired or not whole")) from None
        except ValueError as error:
            if "Missing" not in str(error):
                raise
            raise UserError(_credentials_refused("not whole")) from None
        except ModuleNotFoundError as error:
            raise UserError(f"{error.name} is not installed: pip install -r requirements.txt") from None
    for line in dict.fromkeys(output.getvalue().splitlines()):  # a kaggle.json that others can read
        print(redacted(line), flush=True)
    return kaggle.api


def _credentials_refused(why: str) -> str:
    return (
        f"Kaggle does not take the credentials of {paths.credentials_place() or 'this machine'} ({why}): make "
        f"a new token at {SETTINGS} and put it there"
    )


@contextmanager
def _no_verbose_requests() -> Iterator[None]:
    """Hides the variables with which the client prints its requests, the Authorization header too."""
    hidden = {name: os.environ.pop(name) for name in ("VERBOSE", "VERBOSE_OUTPUT") if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)


class _RedactedStream(io.TextIOBase):
    def __init__(self, stream: Any):
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(redacted(text))
        return len(text)

    def flush(self) -> None:
        self.stream.flush()


def redacted(text: str) -> str:
    """Returns `text` without the credentials, signatures of addresses and a proxy's password."""
    for secret in _secrets():
        text = text.replace(secret, "...")
    return re.sub(r"//[^/@\s]+@", "//...@", re.sub(r"\?[^\s'\"]*=[^\s'\"]*", "?...", text))


def _secrets() -> list[str]:
    """The tokens and keys of the variables, and of the file that the client takes."""
    found = [os.environ.get(name, "") for name in ("KAGGLE_API_TOKEN", "KAGGLE_KEY")]
    place = paths.credentials_place() or ""
    try:
        text = Path(found[0] if place == "KAGGLE_API_TOKEN" else place).read_text().strip()
        values = json.loads(text)
        found += [values.get(name) for name in ("key", "access_token", "refresh_token")]
    except (OSError, UnicodeError):  # a variable, or a file that the client can't read either
        pass
    except (ValueError, AttributeError):  # no JSON object: the token itself
        found.append(text)
    return [each for each in found if isinstance(each, str) and len(each) > 3]


@contextmanager
def filtered_output() -> Iterator[None]:
    """Lets the client print what it does, without secrets; its bar only where there is a terminal."""
    errors = sys.stderr if paths.on_terminal() else io.StringIO()
    with redirect_stdout(_RedactedStream(sys.stdout)), redirect_stderr(errors):
        yield


@contextmanager
def kaggle_errors(competition: str, alternative: str = "", broken: str = _AGAIN) -> Iterator[None]:
    """Turns whatever the client raises into a UserError that says what to do.

    Of the client's own message only what Kaggle has answered is kept: the rest may hold an address with
    its signature.

    Args:
        competition: or kernel OWNER/KERNEL, which the message names.
        alternative: the end of the message: another way to the same end.
        broken: what to do about a connection that broke off.

    Raises NotDoneError where nothing has changed at Kaggle for sure, else UserError.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        kind = NotDoneError if _is_without_effect(error) else UserError
        raise kind(redacted(_sentence(error, competition, alternative, broken))) from None


def _is_without_effect(error: Exception) -> bool:
    """Whether the request was refused, or is not the last one of a submission, which alone makes one."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    address = str(getattr(getattr(error, "request", None), "url", None) or "CreateSubmission")
    return 400 <= status < 500 or not urlsplit(address).path.endswith("CreateSubmission")


def _sentence(error: Exception, competition: str, alternative: str, broken: str) -> str:
    from requests.exceptions import ConnectionError, RequestException
    from urllib3.exceptions import HTTPError

    if isinstance(error, ValueError) and hasattr(error.__context__, "response"):
        error = error.__context__  # an answer that the client has put into words of its own
    response, request = getattr(error, "response", None), getattr(error, "request", None)
    if response is not None:
        # the client asks Kaggle with POST, and is sent on to the file itself, which is a GET
        if response.request.method == "GET":
            return f"the file's own address answers {response.status_code}: {broken}{alternative}"
        return _answer(response, competition)
    if isinstance(error, ConnectionError) and request is not None and request.method == "POST":
        return f"no connection to Kaggle: look at the network and at HTTPS_PROXY{alternative}"
    if isinstance(error, RequestException | HTTPError) or "does not match expected size" in str(error):
        return f"the connection to Kaggle broke off: {broken}{alternative}"
    if isinstance(error, OSError):
        return unwritable(error)
    return f"the kaggle client failed with {type(error).__name__}: pip install --upgrade kaggle{alternative}"


def unwritable(error: OSError) -> str:
    """Returns, in words, what to do about a full disk, or what else the file system refuses."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full: make room, then the same command goes on"
    return f"{error.filename or 'the folder'} can't be read or written ({error.strerror or error})"


def _answer(response: Any, competition: str) -> str:
    status, message = response.status_code, _message(response)
    if status in (400, 403) and re.search(r"allowance|limit|daily|per day", message, re.IGNORECASE):
        return f"the daily limit of {competition} is reached, 0 are left until 00:00 UTC{message}"
    if status == 401:
        return _credentials_refused("401")
    if status in (403, 404) and "/" in competition:
        return f"Kaggle refuses the kernel {competition} ({status}): is --owner your name there?{message}"
    if status == 403:
        return (
            f"Kaggle refuses {competition} (403): accept its rules at {page(competition, 'rules')}, "
            f"then the same command again{message}"
        )
    if status == 404:
        return (
            f"Kaggle knows no competition {competition!r} (404): --competition takes the last part of its "
            f"address, such as {paths.COMPETITION}"
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
