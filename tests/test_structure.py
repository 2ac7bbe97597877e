"""The structure of the project: imports go one way, scripts are short, and the package holds what it needs."""

import ast
import os
import subprocess
import sys
import zipfile
from email import message_from_bytes

import pytest
from conftest import ROOT, SCRIPTS
from packaging.requirements import Requirement

REPORT = """
import sys
from pathlib import Path
import digit_recognizer
from digit_recognizer.data import digits
from digit_recognizer.results.report import write_report
from digit_recognizer.runs.directory import Run
assert Path(digit_recognizer.__file__).is_relative_to(sys.argv[1]), digit_recognizer.__file__
write_report(Run(Path(sys.argv[3])), digits.load(Path(sys.argv[2])))
"""


def test_imports_go_one_way():
    """pyproject.toml has the contract."""
    program = "import sys; from importlinter.cli import lint_imports_command; sys.exit(lint_imports_command())"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    line = [sys.executable, "-c", program, "--no-cache"]
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_scripts_are_a_parser_and_one_call():
    for path in SCRIPTS.glob("*.py"):
        functions = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        assert set(functions) <= {"main", "parse"}, path


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The package as pip builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    line = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    subprocess.run(line, check=True, cwd=folder)
    return next(folder.glob("*.whl"))


def test_the_package_names_its_requirements(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("METADATA")]
        metadata = message_from_bytes(archive.read(name))
    required = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    listed = {str(Requirement(line)) for line in lines if line and not line.startswith("#")}
    assert {str(requirement) for requirement in required if requirement.marker is None} == listed
    assert {"ray", "heic", "tensorboard"} <= set(metadata.get_all("Provides-Extra"))


def test_the_installed_package_makes_a_report_outside_the_checkout(wheel, light, tmp_path):
    """From a copy of its own, with templates, style and script."""
    csvs, run = light
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    line = [sys.executable, "-c", REPORT, tmp_path / "installed", csvs, run]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "installed")}
    subprocess.run(line, check=True, cwd=tmp_path, env=environment)
    assert "</html>" in (run / "report/index.html").read_text()


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="not a checkout")
def test_scripts_have_the_line_ends_of_bash_in_every_checkout(tmp_path):
    """Also in one that git for Windows made, with core.autocrlf, and that WSL then runs."""
    line = ["git", "-c", "core.autocrlf=true", "clone", "--quiet", ROOT, tmp_path / "clone"]
    subprocess.run(line, check=True, capture_output=True)
    for path in (tmp_path / "clone/scripts").iterdir():
        assert b"\r" not in path.read_bytes(), path
    script = tmp_path / "clone/scripts/run_all.sh"
    helped = subprocess.run(["bash", script, "--help"], capture_output=True, text=True)
    assert helped.returncode == 0 and "--recipe" in helped.stdout
