"""The order of the packages: what may import what, as `docs/architecture.md` draws it."""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FLOORS = (
    ("bsmamba2.errors", "bsmamba2"),
    ("bsmamba2.system",),
    ("bsmamba2.config",),
    ("bsmamba2.formats",),
    ("bsmamba2.plugins",),
    ("bsmamba2.checkpoints",),
    ("bsmamba2.models",),
    ("bsmamba2.runtime.audio",),
    ("bsmamba2.runtime.engines",),
    ("bsmamba2.runtime.separation",),
    ("bsmamba2.runtime.songs",),
    ("bsmamba2.runtime",),
    ("bsmamba2.data",),
    ("bsmamba2.evaluation",),
    ("bsmamba2.training", "bsmamba2.export"),
    ("bsmamba2.cli",),
    ("bsmamba2.__main__",),
    ("bench",),
)
"""Lowest floor first; packages of one floor do not import each other."""
LEVELS = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}


def module_name(path: Path) -> str:
    """Returns the name by which a file is imported."""
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    return name if name.startswith(("bench", "bsmamba2")) else f"bsmamba2.{name}"


FILES = {
    module_name(path): path
    for room in ("bsmamba2", "export", "plugins", "runtime", "bench")
    for path in (ROOT / room).rglob("*.py")
}


def imports(path: Path) -> set[str]:
    """Returns every module of ours that a file imports, at its top or in functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            assert node.module
            full = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in FILES else node.module for name in full}
    return found & FILES.keys()


def room(module: str) -> str:
    """Returns the innermost package of LEVELS that a module is in."""
    return max((name for name in LEVELS if f"{module}.".startswith(f"{name}.")), key=len)


@pytest.mark.parametrize("module", sorted(FILES))
def test_imports_run_down(module: str):
    own = room(module)
    for other in imports(FILES[module]):
        theirs = room(other)
        assert theirs == own or LEVELS[theirs] < LEVELS[own], f"{module} imports {other}"


def test_no_import_comes_back():
    graph = {module: imports(path) for module, path in FILES.items()}
    TopologicalSorter(graph).prepare()


def test_no_module_is_loose():
    assert {path.name for path in (ROOT / "bsmamba2").glob("*.py")} == {
        *("__init__.py", "__main__.py", "errors.py")
    }
