"""requirements.lock: exact builds of what requirements.txt allows, each with its hashes."""

import re

import pytest
from conftest import ROOT
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

TEXT = (ROOT / "requirements.lock").read_text()


def entries():
    """The name, version, marker and hashes of each locked package."""
    for block in re.split(r"\n(?=[a-zA-Z0-9])", re.sub(r"^#.*\n", "", TEXT, flags=re.MULTILINE).strip()):
        head, *options = block.replace("\\\n", " ").split(" --hash=sha256:")
        requirement, _, marker = head.partition(";")
        name, version = requirement.strip().split("==")
        yield (canonicalize_name(name), Version(version.strip()), marker.strip(), [each.strip() for each in options])


def test_the_lock_agrees_with_the_requirements_and_has_hashes():
    lines = [line.partition("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    locked = {}
    for name, version, _, hashes in entries():
        locked.setdefault(name, []).append(version)
        assert hashes and all(re.fullmatch("[0-9a-f]{64}", each) for each in hashes), name
    for requirement in map(Requirement, filter(None, lines)):
        versions = locked[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in versions), requirement


def test_the_lock_names_no_place():
    """Neither an index nor a folder: whoever installs it has an index of their own."""
    assert not re.search(r"https?://|file:|--index|--find-links|--extra|--trusted| @ |(^|\s)/", TEXT)
    assert "uv pip compile --generate-hashes" in TEXT.splitlines()[1]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", ["linux", "darwin", "win32"])
def test_each_python_has_one_version_of_each(python, system):
    environment = {"python_version": python, "python_full_version": f"{python}.1", "sys_platform": system}
    environment["platform_system"] = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}[system]
    names = [name for name, _, marker, _ in entries() if not marker or Marker(marker).evaluate(environment)]
    assert len(names) == len(set(names)) and {"tensorflow", "keras", "numpy", "kaggle"} <= set(names)
