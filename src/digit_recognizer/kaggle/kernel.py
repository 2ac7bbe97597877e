"""This project as a Kaggle kernel: packed into the one code file that Kaggle takes, pushed, followed, fetched."""

import base64
import io
import json
import re
import time
import zipfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from digit_recognizer.data.places import ROOT
from digit_recognizer.errors import UserError
from digit_recognizer.files import atomic, write_json
from digit_recognizer.kaggle.client import connect, speaking, telling

CODE_FILE = "digit_recognizer_kernel.py"
METADATA = "kernel-metadata.json"

# Kaggle's names of its machines (kaggle-cli, docs/kernels.md); T4 x2 is the GPU there.
ACCELERATORS = {"none": None, "t4x2": "NvidiaTeslaT4", "tpu": "TpuV5E8"}

# Between two looks at a kernel, in seconds: it runs for minutes or hours.
FIRST_PAUSE, LONGEST_PAUSE, BACK_OFF = 5.0, 120.0, 1.5

_PACKED = ("scripts/*.sh", "scripts/*.py", "src/digit_recognizer/**/*.py", "requirements.txt")

_KERNEL = '''"""{title}: a kernel packed by scripts/kernel.py. Edit the project, not this file.

It unpacks the project, runs scripts/run_all.sh on the competition's files, and leaves submission.csv and
the report in the working directory.
"""

import base64
import io
import os
import pathlib
import subprocess
import sys
import tempfile
import zipfile

OPTIONS = {options}
PACKAGE = """
{package}
"""

with tempfile.TemporaryDirectory() as folder:
    zipfile.ZipFile(io.BytesIO(base64.b64decode(PACKAGE))).extractall(folder)
    # The Python that runs this kernel comes first; where this is a test and not Kaggle, it says so itself.
    path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", "")])
    environment = {{"KAGGLE_KERNEL_RUN_TYPE": "Batch", **os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}}
    command = ["bash", f"{{folder}}/scripts/run_all.sh", *OPTIONS]
    run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    for line in run.stdout:  # a notebook shows what Python prints, not what its child processes do
        print(line, end="", flush=True)
if run.wait():
    raise SystemExit(run.returncode)
'''


def pack(folder: Path, metadata: dict[str, Any], options: list[str]) -> Path:
    """Writes the kernel's code and its kernel-metadata.json to `folder`, and returns the code's path.

    `metadata` is what `describe` returns, `options` are those of train.py. The same project and options
    give the same bytes.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(path for pattern in _PACKED for path in ROOT.glob(pattern)):
            # an entry of a fixed date and mode: only the contents count
            entry = zipfile.ZipInfo(str(path.relative_to(ROOT)), (2020, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, path.read_bytes())
    package = re.sub("(.{100})", r"\1\n", base64.b64encode(archive.getvalue()).decode())
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / CODE_FILE) as file:
        file.write_text(_KERNEL.format(title=metadata["title"], options=json.dumps(options), package=package))
    write_json(folder / METADATA, metadata)
    return folder / CODE_FILE


def describe(
    owner: str, title: str, competition: str, accelerator: str, internet: bool, earlier: str | None
) -> dict[str, Any]:
    """The contents of kernel-metadata.json.

    Args:
        owner: a Kaggle user's name.
        title: from which Kaggle derives the kernel's address; at least five letters or digits.
        competition: whose files are mounted.
        accelerator: a key of ACCELERATORS.
        internet: whether the session may use it.
        earlier: OWNER/KERNEL, whose output is mounted too, or None.

    Raises UserError for a title that Kaggle does not take.
    """
    slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
    if len(slug) < 5:
        raise UserError(f"--title {title!r}: Kaggle wants at least five letters or digits")
    return {
        "id": f"{owner}/{slug}",
        "title": title,
        "code_file": CODE_FILE,
        "language": "python",
        "kernel_type": "script",
        "is_private": True,
        "enable_gpu": accelerator == "t4x2",
        "enable_tpu": accelerator == "tpu",
        "enable_internet": internet,
        "machine_shape": ACCELERATORS[accelerator] or "",
        "dataset_sources": [],
        "competition_sources": [competition],
        "kernel_sources": [earlier] if earlier else [],
        "model_sources": [],
    }


def push(folder: Path) -> str:
    """Pushes what `pack` wrote to `folder`, which starts it; returns OWNER/KERNEL.

    Raises UserError where Kaggle does not take it.
    """
    kernel = json.loads((folder / METADATA).read_text())["id"]
    api = connect()
    with telling(kernel), speaking():
        answer = api.kernels_push(str(folder))
    if answer is None or answer.error:
        raise UserError(
            f"Kaggle does not take the kernel {kernel}: {answer.error if answer else 'no answer'}"
        )
    refused = [*answer.invalid_competition_sources, *answer.invalid_kernel_sources]
    if refused:
        raise UserError(
            f"{kernel} is pushed, but without {', '.join(refused)}: accept the rules, or mend the name"
        )
    print(f"{kernel} is pushed: {answer.url}", flush=True)
    return kernel


def follow(kernel: str) -> None:
    """Waits until the kernel has ended; raises UserError if it did not end well.

    An interruption ends the waiting alone: the kernel goes on at Kaggle.
    """
    api, pause, began, last = connect(), FIRST_PAUSE, time.monotonic(), ""
    while True:
        with telling(kernel), speaking():
            answer = api.kernels_status(kernel)
        status = str(getattr(answer.status, "name", answer.status)).lower()
        if status != last:
            print(f"{tqdm.format_interval(time.monotonic() - began)} {status}", flush=True)
            last = status
        if status == "complete":
            return
        if status == "error" or status.startswith("cancel"):
            raise UserError(
                f"{kernel} ended with {status}: {answer.failure_message or 'no message'}; its log is at "
                f"https://www.kaggle.com/code/{kernel}"
            )
        time.sleep(pause)
        pause = min(pause * BACK_OFF, LONGEST_PAUSE)


def fetch(kernel: str, folder: Path) -> None:
    """Downloads what the kernel left in its working directory to `folder`."""
    api = connect()
    folder.mkdir(parents=True, exist_ok=True)
    with telling(kernel), speaking():
        api.kernels_output(kernel, str(folder))
