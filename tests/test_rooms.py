"""The rooms of the package: imports go down only, and training and results do not know each other."""

import ast

import pytest
from conftest import ROOT, SCRIPTS

PACKAGE = ROOT / "src/digit_recognizer"

# What each room may import besides itself; the ground, which is the modules beside the rooms, imports no room.
MAY_IMPORT = {
    "ground": set(),
    "data": {"ground"},
    "training": {"ground", "data"},
    "results": {"ground", "data"},
    "pictures": {"ground", "data", "training", "results"},
    "kaggle": {"ground", "data", "results"},
    "benchmark": {"ground", "data", "training"},
}
KERAS = {"keras", "tensorflow", "jax", "torch"}


def room(path) -> str:
    """The room of a module."""
    return path.parent.name if path.parent != PACKAGE else "ground"


def imported(path) -> set[str]:
    """The dotted names that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


MODULES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_only(path):
    own = room(path)
    for name in imported(path):
        first, *rest = name.split(".")
        if first == "digit_recognizer" and rest:
            other = rest[0] if (PACKAGE / rest[0]).is_dir() else "ground"
            assert other == own or other in MAY_IMPORT[own], f"{own} imports {name}"
        if own not in ("training", "benchmark"):
            assert first not in KERAS, f"{own} imports {name}"


def test_every_folder_is_a_room():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(MAY_IMPORT) - {"ground"}


def test_the_graph_of_imports_has_no_circle():
    graph = {}
    for path in MODULES:
        name = ".".join(("digit_recognizer", *path.relative_to(PACKAGE).with_suffix("").parts))
        graph[name.removesuffix(".__init__")] = imported(path)
    edges = {
        name: {
            other for other in graph if other in found or any(each.startswith(f"{other}.") for each in found)
        }
        - {name, "digit_recognizer", name.rpartition(".")[0]}
        for name, found in graph.items()
    }
    while leaves := [name for name, others in edges.items() if not others & set(edges)]:
        for name in leaves:
            del edges[name]
    assert not edges, f"these import each other: {', '.join(edges)}"


def test_scripts_are_a_parser_and_one_call():
    """The listing reads as the pipeline; what a script does is in the package."""
    for path in SCRIPTS.glob("*.py"):
        functions = [
            node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)
        ]
        assert set(functions) <= {"main", "parse"}, path
