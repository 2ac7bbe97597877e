"""A Kaggle kernel that runs this project: packed, pushed, followed to its end, its output fetched."""

import copy
import itertools
import shutil
from pathlib import Path
from typing import Any

from digit_recognizer.files import UserError
from digit_recognizer.kaggle.client import connect, filtered_output, kaggle_errors
from digit_recognizer.kaggle.packing import METADATA, Kernel, pack
from digit_recognizer.kaggle.polling import poll

_PATIENCE = 10  # looks in a row that may fail
_THERE = "the kernel is at Kaggle all the same"
_FETCH = "with --fetch the same command goes on, and starts no second kernel"


def owner_name() -> str:
    """Returns the user's name at Kaggle, as the client knows it."""
    return connect().get_config_value("username")


def pack_and_run(folder: Path, kernel: Kernel, options: list[str], *, push: bool, wait: bool) -> None:
    """Packs the project as a kernel into `folder`, pushes it, waits for its end and fetches its output into output/.

    Without `push` it ends after the packing, without `wait` after the pushing. The kernel trains with `options`,
    the options that train.py takes.

    Raises UserError where Kaggle does not take the kernel, or it ends with an error.
    """
    code = pack(folder, kernel, options)
    name = kernel.metadata()["id"]
    print(f"{code}: {code.stat().st_size:,} bytes; {folder / METADATA}: {name}", flush=True)
    if not push:
        return
    push_kernel(folder, name)
    if wait:
        wait_and_fetch(folder, name)
    else:
        print(f"look at it at {_page(name)}; {_FETCH}")


def wait_and_fetch(folder: Path, name: str) -> None:
    """Waits for the end of the kernel OWNER/KERNEL, which is at Kaggle, and fetches its output into output/.

    Raises UserError where it ends with an error, or can't be followed or fetched.
    """
    wait_for_end(name)
    output = fetch_output(name, folder / "output")
    print(f"its output is in {output}; python scripts/submit.py --output {output} sends it")


def _page(name: str) -> str:
    return f"https://www.kaggle.com/code/{name}"


def push_kernel(folder: Path, name: str) -> None:
    """Pushes the kernel OWNER/KERNEL that `pack` wrote to `folder`, which starts it.

    Raises UserError where Kaggle does not take it.
    """
    api = connect()
    with kaggle_errors(name), filtered_output():
        answer = api.kernels_push(str(folder))
    if answer is None or answer.error:
        raise UserError(f"Kaggle does not take the kernel {name}: {answer.error if answer else 'no answer'}")
    refused = [*answer.invalid_competition_sources, *answer.invalid_kernel_sources]
    if refused:
        raise UserError(
            f"{name} is pushed, but without {', '.join(refused)}: accept the rules, or mend the name"
        )
    print(f"{name} is pushed: {answer.url}", flush=True)


def wait_for_end(name: str) -> None:
    """Waits until the kernel OWNER/KERNEL has ended; raises UserError if it did not end well.

    An interruption ends the waiting alone: the kernel goes on at Kaggle. Looks may fail a few times in a row, but
    not the first one.
    """
    api, failure, failed_looks = connect(), "", _PATIENCE

    def look() -> tuple[str, bool]:
        nonlocal failure, failed_looks
        try:
            with kaggle_errors(name, broken=_THERE), filtered_output():
                answer = api.kernels_status(name)
        except UserError as error:
            failed_looks += 1
            if failed_looks > _PATIENCE:
                raise UserError(f"{error}; {_FETCH}") from None
            return str(error), False
        failed_looks = 0
        status = str(getattr(answer.status, "name", answer.status)).lower()
        if status == "error" or status.startswith("cancel"):
            failure = f"{name} ended with {status}: {answer.failure_message or 'no message'}"
        return status, bool(failure) or status == "complete"

    poll(look, "the kernel")
    if failure:
        raise UserError(f"{failure}; its log is at {_page(name)}")


def _strict(api: Any) -> Any:
    """Returns a client that raises where a file's address answers with an error: 2.0 keeps that as the file."""
    strict = copy.copy(api)

    def download_needed(response: Any, *arguments: Any, **options: Any) -> bool:
        response.raise_for_status()
        return api.download_needed(response, *arguments, **options)

    strict.download_needed = download_needed
    return strict


def fetch_output(name: str, folder: Path) -> Path:
    """Downloads what the kernel OWNER/KERNEL left in its working directory to `folder`, and returns that.

    It is there whole or not at all. What was in `folder`, such as the record of a submission, is moved aside and
    told: it may be another run's.
    """
    staging = folder.with_name(f".{folder.name}")
    shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
    staging.mkdir(parents=True)
    try:
        try:
            with kaggle_errors(name, broken=_THERE), filtered_output():
                _, rest = _strict(connect()).kernels_output(name, str(staging))
        except UserError as error:
            raise UserError(f"{error}; {_FETCH}") from None
        if rest:  # client 2.0 fetches one page of the list
            raise UserError(
                f"the client fetches only some of the output: pip install --upgrade kaggle, or get it at {_page(name)}"
            )
        if folder.exists():
            numbered = (folder.with_name(f"{folder.name}_{number}") for number in itertools.count(1))
            aside = next(each for each in numbered if not each.exists())
            folder.rename(aside)
            print(f"{folder} of before is {aside} now", flush=True)
        staging.rename(folder)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder
