"""The import graph: rooms, arrows that point one way, no circles."""

import ast
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

import pyannote_av

PACKAGE = Path(pyannote_av.__file__).parent
#: which rooms each room may import from; ``core`` and ``pretrained`` are open to all
ARROWS = {
    "core": set(),
    "pretrained": set(),
    "formats": set(),
    "vision": set(),
    "evaluation": set(),
    "fusion": set(),
    "models": set(),
    "pipelines": {"models", "fusion", "vision"},
    "data": {"pipelines", "models", "vision"},
    "tasks": {"data", "models", "vision"},
    "clustering": {"tasks", "data", "pipelines", "models", "fusion", "vision"},
    "training": {"models"},
    "sharing": {"clustering", "models"},
    "simulation": {"data", "formats", "pipelines", "vision"},
    "player": set(),
    "batch": {"data", "formats", "player"},
    "tuning": {"sharing", "clustering", "pipelines", "fusion"},
}

#: methods for users that lead to a room above their own, when they are called
CONVENIENCES = {"pyannote_av.core.output": {"pyannote_av.player.page"}}


@cache
def modules() -> dict[str, Path]:
    """Modules of the package, by dotted name."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = ("pyannote_av", *path.relative_to(PACKAGE).with_suffix("").parts)
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def _imported(node: ast.AST):
    """Modules that a module imports, in functions too, but not for type checkers alone."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.dump(child.test):
            continue
        if isinstance(child, ast.ImportFrom) and child.module and not child.level:
            for alias in child.names:
                full = f"{child.module}.{alias.name}"
                yield full if full in modules() else child.module
        elif isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        yield from _imported(child)


@cache
def graph() -> dict[str, set[str]]:
    """What each module imports of the package."""
    found = {}
    for name, path in modules().items():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found[name] = {one for one in _imported(tree) if one in modules()} - {name}
    return found


def room(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def test_no_circles():
    """Modules are in an order in which each imports only earlier ones."""
    left = {name: set(needs) for name, needs in graph().items()}
    while free := [name for name, needs in left.items() if not needs]:
        for name in free:
            del left[name]
        for needs in left.values():
            needs.difference_update(free)
    assert not left, f"modules in circles, or behind them: {sorted(left)[:10]}"


def test_arrows_point_one_way():
    wrong = defaultdict(set)
    for name, needs in graph().items():
        own = room(name)
        if own in ("", "cli", "__main__"):  # which may import anything
            continue
        for other in needs - CONVENIENCES.get(name, set()):
            if room(other) not in ({own, "core", "pretrained", ""} | ARROWS[own]):
                wrong[own].add(f"{name} imports {other}")
    assert not wrong


@pytest.mark.parametrize("name", ["cli", "recipes"])
def test_nobody_imports(name):
    importers = [one for one, needs in graph().items() if any(room(n) == name for n in needs)]
    assert all(room(one) in (name, "__main__") for one in importers)
