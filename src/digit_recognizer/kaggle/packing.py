"""This project packed as a Kaggle kernel: one code file that holds the whole project, as a script or a notebook."""

import base64
import io
import json
import re
import unicodedata
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from digit_recognizer.data.paths import ROOT
from digit_recognizer.files import UserError

METADATA = "kernel-metadata.json"
SCRIPT, NOTEBOOK = "digit_recognizer_kernel.py", "digit_recognizer_kernel.ipynb"

# Kaggle's names of its machines (kaggle-cli, docs/kernels.md); T4 x2 is the GPU there.
ACCELERATORS = {"none": None, "t4x2": "NvidiaTeslaT4", "tpu": "TpuV5E8"}

BUDGET = "11h"  # of training; a session ends after 12 hours

_PACKED = ("scripts/*.sh", "scripts/*.py", "src/digit_recognizer/**/*", "requirements.txt")

_ABOUT = """packed by scripts/kernel.py. Edit the project, not this file.

It unpacks the project, runs scripts/run_all.sh on the competition's files, and leaves submission.csv and
the report in the working directory."""

_UNPACK = '''import base64
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
'''

_RUN = """zipfile.ZipFile(io.BytesIO(base64.b64decode(PACKAGE))).extractall(folder)
# The Python that runs this kernel comes first; where this is a test and not Kaggle, it says so itself.
path = os.pathsep.join([str(pathlib.Path(sys.executable).parent), os.environ.get("PATH", "")])
environment = {"KAGGLE_KERNEL_RUN_TYPE": "Batch", **os.environ, "PATH": path, "PYTHONUNBUFFERED": "1"}
command = ["bash", f"{folder}/scripts/run_all.sh", *OPTIONS]
run = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
for line in run.stdout:  # a notebook shows what Python prints, not what its child processes do
    print(line, end="", flush=True)
"""

_SCRIPT_END = """if run.wait():
    raise SystemExit(run.returncode)
"""

# SystemExit would not fail a notebook
_NOTEBOOK_END = """if run.wait():
    raise RuntimeError(f"run_all.sh ended with exit code {run.returncode}: its last line says why")
"""

_SHOW = """sys.path.insert(0, f"{folder}/src")

from digit_recognizer.data.paths import KAGGLE
from digit_recognizer.results import report

report.show(KAGGLE / "working")
"""


@dataclass(frozen=True)
class Kernel:
    """What a kernel is called, what it may use and which form it has.

    Raises UserError for a title that Kaggle does not take.
    """

    owner: str  # a Kaggle user's name
    title: str  # from which Kaggle derives the address; at least five letters or digits
    competition: str  # whose files are mounted
    accelerator: str  # a key of ACCELERATORS
    internet: bool  # whether the session may use it
    previous: str | None  # OWNER/KERNEL, whose output is mounted too
    notebook: bool  # an .ipynb that ends with the report, not a script

    def __post_init__(self):
        """Checks the title."""
        if len(self.slug) < 5:
            raise UserError(f"--title {self.title!r}: Kaggle wants at least five letters or digits")

    @property
    def slug(self) -> str:
        """The last part of the kernel's address, of letters without their accents."""
        plain = unicodedata.normalize("NFKD", self.title).encode("ascii", "ignore").decode()
        return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-")

    @property
    def code_file(self) -> str:
        """The name of the kernel's one file."""
        return NOTEBOOK if self.notebook else SCRIPT

    def metadata(self) -> dict[str, Any]:
        """Returns the contents of kernel-metadata.json."""
        return {
            "id": f"{self.owner}/{self.slug}",
            "title": self.title,
            "code_file": self.code_file,
            "language": "python",
            "kernel_type": "notebook" if self.notebook else "script",
            "is_private": True,
            "enable_gpu": self.accelerator == "t4x2",
            "enable_tpu": self.accelerator == "tpu",
            "enable_internet": self.internet,
            "machine_shape": ACCELERATORS[self.accelerator] or "",
            "dataset_sources": [],
            "competition_sources": [self.competition],
            "kernel_sources": [self.previous] if self.previous else [],
            "model_sources": [],
        }


def training_options(options: list[str], previous: bool) -> list[str]:
    """Returns options of train.py with those that a session needs, unless they are given.

    With `previous`, the output of an earlier kernel is mounted, to go on from.
    """
    needed = {"--time-budget": BUDGET} | ({"--resume-from": "/kaggle/input"} if previous else {})
    given = {option.partition("=")[0] for option in options}
    return [*options, *(part for name in needed if name not in given for part in (name, needed[name]))]


def pack(folder: Path, kernel: Kernel, options: list[str]) -> Path:
    """Writes the kernel's code file and kernel-metadata.json into `folder`, and returns the path of the code.

    The kernel trains with `options`, the options that train.py takes. The same project with the same options is
    packed into the same bytes.
    """
    from digit_recognizer.files import atomic, write_json  # with numpy, which --help does not need

    package = re.sub("(.{100})", r"\1\n", base64.b64encode(_archive()).decode())
    # ascii() makes Python literals: neither a title nor an option is ever read as code
    unpack = _UNPACK.format(options=ascii(options), package=package)
    code = _notebook(kernel, unpack) if kernel.notebook else _script(kernel, unpack)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic(folder / kernel.code_file) as file:
        file.write_text(code, encoding="utf-8")
    write_json(folder / METADATA, kernel.metadata())
    return folder / kernel.code_file


def _archive() -> bytes:
    """A zip archive of what run_all.sh and the package need, templates and styles included."""
    found = {path for pattern in _PACKED for path in ROOT.glob(pattern) if path.is_file()}
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(found):
            name = path.relative_to(ROOT)
            if any(part == "__pycache__" or part.startswith(".") for part in name.parts):
                continue
            # an entry of a fixed date and mode: only the contents count
            entry = zipfile.ZipInfo(name.as_posix(), (2020, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, path.read_bytes())
    return archive.getvalue()


def _script(kernel: Kernel, unpack: str) -> str:
    run = "".join(f"    {line}\n" for line in _RUN.splitlines())
    return "\n".join(
        [
            f"# {kernel.title!a}",
            f'"""A kernel {_ABOUT}\n"""\n',
            unpack,
            f"with tempfile.TemporaryDirectory() as folder:\n{run}{_SCRIPT_END}",
        ]
    )


def _notebook(kernel: Kernel, unpack: str) -> str:
    """The notebook as JSON (nbformat 4.4): the project, the training, the report."""
    title = " ".join(kernel.title.split())
    cells = [
        {"cell_type": "markdown", "metadata": {}, "source": f"# {title}\n\nA notebook {_ABOUT}"},
        _code_cell(unpack),
        _code_cell(f"folder = tempfile.mkdtemp()\n{_RUN}{_NOTEBOOK_END}"),
        _code_cell(_SHOW),
    ]
    kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    about = {"kernelspec": kernelspec, "language_info": {"name": "python"}}
    return (
        json.dumps({"cells": cells, "metadata": about, "nbformat": 4, "nbformat_minor": 4}, indent=1) + "\n"
    )


def _code_cell(source: str) -> dict[str, Any]:
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": {},
        "outputs": [],
        "source": source.rstrip("\n"),
    }
