"""A Kaggle kernel that runs this project: packed, pushed, followed to its end, its output fetched."""

from pathlib import Path

from digit_recognizer.errors import UserError
from digit_recognizer.kaggle.client import connect, filtered_output, kaggle_errors
from digit_recognizer.kaggle.packing import METADATA, Kernel, pack
from digit_recognizer.kaggle.polling import poll

_PATIENCE = 10  # looks in a row that may fail


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
    name, output = kernel.metadata()["id"], folder / "output"
    print(f"{code}: {code.stat().st_size:,} bytes; {folder / METADATA}: {name}", flush=True)
    if not push:
        return
    push_kernel(folder, name)
    if not wait:
        print(f"look at it at {_page(name)}")
        return
    wait_for_end(name)
    fetch_output(name, output)
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
            with kaggle_errors(name), filtered_output():
                answer = api.kernels_status(name)
        except UserError as error:
            failed_looks += 1
            if failed_looks > _PATIENCE:
                raise
            return str(error), False
        failed_looks = 0
        status = str(getattr(answer.status, "name", answer.status)).lower()
        if status == "error" or status.startswith("cancel"):
            failure = f"{name} ended with {status}: {answer.failure_message or 'no message'}"
        return status, bool(failure) or status == "complete"

    poll(look, "the kernel")
    if failure:
        raise UserError(f"{failure}; its log is at {_page(name)}")


def fetch_output(name: str, folder: Path) -> None:
    """Downloads what the kernel OWNER/KERNEL left in its working directory to `folder`."""
    api = connect()
    folder.mkdir(parents=True, exist_ok=True)
    with kaggle_errors(name), filtered_output():
        _, rest = api.kernels_output(name, str(folder))
    if rest:  # client 2.0 fetches one page of the list
        raise UserError(
            f"{folder} holds only some of the output: pip install --upgrade kaggle, or get it at {_page(name)}"
        )
