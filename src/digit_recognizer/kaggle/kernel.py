"""The project as a Kaggle kernel: packed into a notebook, pushed, followed to its end, its output fetched."""

import base64
import copy
import io
import itertools
import json
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from digit_recognizer.files import ROOT, UserError, write_json
from digit_recognizer.kaggle.client import connect, kaggle_request, poll, redacted

# Kaggle's names of its machines (kaggle-cli, docs/kernels.md)
ACCELERATORS = {"none": "", "t4x2": "NvidiaTeslaT4", "tpu": "TpuV5E8"}

NOTEBOOK, METADATA = "digit_recognizer_kernel.ipynb", "kernel-metadata.json"
TIME_BUDGET = "11h"  # of training; a session ends after 12 hours

_TEMPLATE = Path(__file__).with_name("kernel.ipynb")
_PACKED = ("scripts/*.sh", "scripts/*.py", "src/digit_recognizer/**/*", "requirements.txt")
_PAGE = "https://www.kaggle.com/code/"
_FETCH = "with --fetch the same command goes on and starts no second kernel"


def make_metadata(
    owner: str | None, title: str, competition: str, accelerator: str, previous: str | None
) -> dict[str, Any]:
    """Returns the contents of kernel-metadata.json; raises UserError for a title that Kaggle refuses.

    `owner` None is the name that the client knows. `accelerator` is a key of ACCELERATORS. The output of the kernel
    `previous`, OWNER/KERNEL, is mounted too.
    """
    from slugify import slugify  # which the kaggle client uses too

    if len(slug := slugify(title)) < 5:
        raise UserError(f"--title {title!r}: Kaggle wants at least five letters or digits")
    return {
        "id": f"{owner or connect().get_config_value('username')}/{slug}",
        "title": title,
        "code_file": NOTEBOOK,
        "language": "python",
        "kernel_type": "notebook",
        "is_private": True,
        "enable_gpu": accelerator == "t4x2",
        "enable_tpu": accelerator == "tpu",
        "enable_internet": False,
        "machine_shape": ACCELERATORS[accelerator],
        "competition_sources": [competition],
        "kernel_sources": [previous] if previous else [],
    }


def pack(folder: Path, metadata: dict[str, Any], options: list[str]) -> None:
    """Writes the notebook, which trains with `options` of train.py, and kernel-metadata.json into `folder`.

    By default it has a time budget and continues from the output of the previous kernel. The same project with the same
    options gives the same bytes.
    """
    given = {option.partition("=")[0] for option in options}
    if "--time-budget" not in given:
        options = [*options, "--time-budget", TIME_BUDGET]
    if "--resume-from" not in given and metadata["kernel_sources"]:
        options = [*options, "--resume-from", "/kaggle/input"]
    values = {  # neither the package nor a literal in ASCII can become other code
        "TITLE": " ".join(metadata["title"].split()),
        'PACKAGE = ""': f'PACKAGE = "{base64.b85encode(_archive()).decode()}"',
        "OPTIONS = []": f"OPTIONS = {options!a}",
    }
    notebook = json.loads(_TEMPLATE.read_text(encoding="utf-8"))
    for cell in notebook["cells"]:
        for old, new in values.items():
            cell["source"] = [line.replace(old, new) for line in cell["source"]]
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / NOTEBOOK, notebook)
    write_json(folder / METADATA, metadata)
    size = (folder / NOTEBOOK).stat().st_size
    print(f"{folder / NOTEBOOK}: {size:,} bytes; {folder / METADATA}: {metadata['id']}", flush=True)


def _archive() -> bytes:
    """Returns a tar archive of what run_all.sh needs; it depends on the names and contents of the files only."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz", preset=9) as archive:
        for path in sorted({path for pattern in _PACKED for path in ROOT.glob(pattern) if path.is_file()}):
            name = path.relative_to(ROOT)
            if not any(part == "__pycache__" or part.startswith(".") for part in name.parts):
                entry = tarfile.TarInfo(name.as_posix())
                entry.size = path.stat().st_size
                with path.open("rb") as file:
                    archive.addfile(entry, file)
    return buffer.getvalue()


def next_steps(folder: Path, name: str) -> str:
    """Returns how to try the notebook in `folder` without Kaggle, and how to push it as the kernel OWNER/KERNEL."""
    owner = ", with your name in the place of OWNER" * name.startswith("OWNER/")
    return (
        f"try it: DIGITS_KAGGLE_ROOT=DIR jupyter nbconvert --execute --to html {folder / NOTEBOOK}\n"
        "  (pip install nbconvert ipykernel; the competition's files are in DIR/input/digit-recognizer)\n"
        f"push it: kaggle kernels push --path {folder}{owner},\n"
        "  or import the notebook at https://www.kaggle.com/code (New Notebook, File) and attach the competition"
    )


def push(folder: Path, name: str) -> None:
    """Pushes the kernel OWNER/KERNEL in `folder`, which starts it; raises UserError if Kaggle refuses it."""
    api = connect()
    with kaggle_request(name):
        answer = api.kernels_push(str(folder))
    if answer.error:
        raise UserError(f"Kaggle does not take the kernel {name}: {redacted(answer.error)}")
    if refused := [*answer.invalid_competition_sources, *answer.invalid_kernel_sources]:
        raise UserError(f"{name} is pushed without {', '.join(refused)}: accept the rules, or correct the name")
    print(f"{name} is pushed: {_PAGE}{name}; {_FETCH}", flush=True)


def wait_and_fetch(folder: Path, name: str) -> None:
    """Waits for the end of the kernel OWNER/KERNEL and downloads its output to `folder`/output, whole or not at all.

    Raises UserError if the kernel ends with an error, or if it cannot be followed or its output cannot be fetched.
    """
    api = connect()
    answer: Any = None

    def look() -> tuple[str, bool]:
        nonlocal answer
        with kaggle_request(name):
            answer = api.kernels_status(name)
        status = answer.status.name.lower()
        return status, status in ("complete", "error") or status.startswith("cancel")

    try:
        poll(look, "the kernel")
        if answer.status.name == "COMPLETE":
            _fetch(api, name, folder)
            return
    except UserError as error:
        raise UserError(f"{error}; {_FETCH}") from None
    status, message = answer.status.name.lower(), redacted(answer.failure_message)
    raise UserError(f"{name} ended: {status} {message}; its log is at {_PAGE}{name}")


def _fetch(api: Any, name: str, folder: Path) -> None:
    """Downloads the kernel's output to `folder`/output, or output_2 and so on if there is one already."""

    def download_needed(response: Any, *arguments: Any, **options: Any) -> bool:
        response.raise_for_status()  # client 2.0 keeps the answer, whatever it is, as the file
        return api.download_needed(response, *arguments, **options)

    strict = copy.copy(api)
    strict.download_needed = download_needed
    names = itertools.chain(["output"], (f"output_{number}" for number in itertools.count(2)))
    output = next(folder / name for name in names if not (folder / name).exists())
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary, kaggle_request(name):
        staging = Path(temporary, "output")
        _, page = strict.kernels_output(name, str(staging))
        while page:  # the output is listed in pages; client 2.0 knows the first one only, and fails here
            _, page = strict.kernels_output(name, str(staging), page_token=page)
        staging.rename(output)
    print(f"its output is in {output}; python scripts/submit.py --output {output} sends it")
