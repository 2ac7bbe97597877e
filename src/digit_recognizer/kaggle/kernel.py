"""The project as a Kaggle kernel: packed into a script or a notebook, pushed, followed to its end, its output fetched."""

import base64
import copy
import io
import itertools
import json
import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

from digit_recognizer.files import ROOT, UserError, atomic, write_json
from digit_recognizer.kaggle.client import connect, kaggle_request, poll, quoted

# Kaggle's names of its machines (kaggle-cli, docs/kernels.md)
ACCELERATORS = {"none": "", "t4x2": "NvidiaTeslaT4", "tpu": "TpuV5E8"}

TIME_BUDGET = "11h"  # of training; a session ends after 12 hours

_METADATA = "kernel-metadata.json"
_PACKED = ("scripts/*.sh", "scripts/*.py", "src/digit_recognizer/**/*", "requirements.txt")
_PAGE = "https://www.kaggle.com/code/"
_FETCH = "with --fetch the same command goes on and starts no second kernel"

_ABOUT = """Packed by scripts/kernel.py: edit the project, not this file. It unpacks the project, runs scripts/run_all.sh
on the competition's files, and leaves submission.csv and the report in the working directory."""

_UNPACK = '''import base64
import io
import os
import subprocess
import sys
import tempfile
import zipfile

OPTIONS = {options}
PACKAGE = """
{package}
"""
'''

_RUN = """temporary = tempfile.TemporaryDirectory()
folder = temporary.name
zipfile.ZipFile(io.BytesIO(base64.b64decode(PACKAGE))).extractall(folder)
os.environ.setdefault("KAGGLE_KERNEL_RUN_TYPE", "Batch")  # for a test outside of Kaggle
os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
os.environ["PYTHONUNBUFFERED"] = "1"
command = ["bash", f"{folder}/scripts/run_all.sh", *OPTIONS]
run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
for line in run.stdout:  # a notebook shows what Python prints, not what its child processes print
    print(line, end="", flush=True)
if run.wait():
"""

_SCRIPT_END = "    sys.exit(run.returncode)\n"
_NOTEBOOK_END = (
    "    raise RuntimeError('run_all.sh failed: its last line says why')  # SystemExit would not fail a notebook\n"
)

_SHOW = """sys.path.insert(0, f"{folder}/src")

from digit_recognizer.data import paths
from digit_recognizer.results import report

report.show(paths.output_folder(None))
"""


def make_metadata(
    owner: str | None, title: str, competition: str, accelerator: str, previous: str | None, is_notebook: bool
) -> dict[str, Any]:
    """Returns the contents of kernel-metadata.json; raises UserError for a title that Kaggle refuses.

    `owner` is a user's name at Kaggle, or None for the name that the client knows. `accelerator` is a key of
    ACCELERATORS. `previous` is OWNER/KERNEL whose output is mounted too, or None. A notebook ends with the report.
    """
    from slugify import slugify  # which the kaggle client uses too

    if len(slug := slugify(title)) < 5:
        raise UserError(f"--title {title!r}: Kaggle wants at least five letters or digits")
    return {
        "id": f"{owner or connect().get_config_value('username')}/{slug}",
        "title": title,
        "code_file": f"digit_recognizer_kernel.{'ipynb' if is_notebook else 'py'}",
        "language": "python",
        "kernel_type": "notebook" if is_notebook else "script",
        "is_private": True,
        "enable_gpu": accelerator == "t4x2",
        "enable_tpu": accelerator == "tpu",
        "enable_internet": False,
        "machine_shape": ACCELERATORS[accelerator],
        "competition_sources": [competition],
        "kernel_sources": [previous] if previous else [],
    }


def pack(folder: Path, metadata: dict[str, Any], options: list[str]) -> None:
    """Writes the kernel's code and kernel-metadata.json into `folder`.

    The kernel trains with `options` of train.py. By default it has a time budget and continues from the output of the
    previous kernel. The same project with the same options gives the same bytes.
    """
    given = {option.partition("=")[0] for option in options}
    if "--time-budget" not in given:
        options = [*options, "--time-budget", TIME_BUDGET]
    if "--resume-from" not in given and metadata["kernel_sources"]:
        options = [*options, "--resume-from", "/kaggle/input"]
    package = re.sub("(.{100})", r"\1\n", base64.b64encode(_archive()).decode())
    # ascii() makes Python literals: neither the title nor an option can become code
    unpack = _UNPACK.format(options=ascii(options), package=package)
    title = metadata["title"]
    code = f'# {title!a}\n"""{_ABOUT}"""\n\n{unpack}\n{_RUN}{_SCRIPT_END}'
    if metadata["kernel_type"] == "notebook":
        code = _notebook(f"# {' '.join(title.split())}\n\n{_ABOUT}", unpack, _RUN + _NOTEBOOK_END, _SHOW)
    path = folder / metadata["code_file"]
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(path) as file:
        file.write_text(code, encoding="utf-8")
    write_json(folder / _METADATA, metadata)
    print(f"{path}: {path.stat().st_size:,} bytes; {folder / _METADATA}: {metadata['id']}", flush=True)


def _archive() -> bytes:
    """Returns a zip archive of what run_all.sh needs; it depends on the names and contents of the files only."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for path in sorted({path for pattern in _PACKED for path in ROOT.glob(pattern) if path.is_file()}):
            name = path.relative_to(ROOT)
            if not any(part == "__pycache__" or part.startswith(".") for part in name.parts):
                entry = zipfile.ZipInfo(name.as_posix(), (2020, 1, 1, 0, 0, 0))
                packed.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    return archive.getvalue()


def _notebook(text: str, *sources: str) -> str:
    """Returns a notebook (nbformat 4.4) with a cell of text and cells of code."""
    code: dict[str, Any] = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    cells: list[dict[str, Any]] = [{"cell_type": "markdown", "metadata": {}, "source": text}]
    cells += [code | {"source": source.rstrip("\n")} for source in sources]
    kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernelspec, "language_info": {"name": "python"}}
    return json.dumps({"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 4}, indent=1)


def push(folder: Path, name: str) -> None:
    """Pushes the kernel OWNER/KERNEL that `pack` wrote to `folder`, which starts it.

    Raises UserError if Kaggle refuses it.
    """
    api = connect()
    with kaggle_request(name):
        answer = api.kernels_push(str(folder))
    if answer.error:
        raise UserError(f"Kaggle does not take the kernel {name}: {quoted(answer.error)}")
    if refused := [*answer.invalid_competition_sources, *answer.invalid_kernel_sources]:
        raise UserError(f"{name} is pushed without {', '.join(refused)}: accept the rules, or correct the name")
    print(f"{name} is pushed: {_PAGE}{name}; {_FETCH}", flush=True)


def wait_and_fetch(folder: Path, name: str) -> None:
    """Waits for the end of the kernel OWNER/KERNEL and downloads its output to `folder`/output, whole or not at all.

    An interruption ends the waiting only: the kernel goes on at Kaggle. An output of an earlier kernel is moved aside.
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
            _fetch(api, name, folder / "output", folder / ".output")
            return
    except UserError as error:
        raise UserError(f"{error}; {_FETCH}") from None
    status, message = answer.status.name.lower(), quoted(answer.failure_message)
    raise UserError(f"{name} ended: {status} {message}; its log is at {_PAGE}{name}")


def _fetch(api: Any, name: str, output: Path, staging: Path) -> None:
    """Downloads the kernel's output to `staging`, and moves it to `output` when it is complete."""
    shutil.rmtree(staging, ignore_errors=True)  # of a process that was killed
    staging.mkdir(parents=True)
    try:
        with kaggle_request(name):
            _, next_page = _strict(api).kernels_output(name, str(staging))
        if next_page:  # client 2.0 fetches one page of the list
            raise UserError("kaggle fetches a part of the output only: pip install --upgrade kaggle")
        if output.exists():
            numbered = (output.with_name(f"output_{number}") for number in itertools.count(1))
            aside = output.rename(next(path for path in numbered if not path.exists()))
            print(f"{output} of an earlier kernel is {aside} now")
        staging.rename(output)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    print(f"its output is in {output}; python scripts/submit.py --output {output} sends it")


def _strict(api: Any) -> Any:
    """Returns a client that raises if the address of a file answers with an error; otherwise it keeps that as the file."""
    strict = copy.copy(api)

    def download_needed(response: Any, *arguments: Any, **options: Any) -> bool:
        response.raise_for_status()
        return api.download_needed(response, *arguments, **options)

    strict.download_needed = download_needed
    return strict
