"""The direction of imports: no room imports one above it, no two modules import each other, late imports say why."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FLOORS = (
    {"cli"},
    {"api", "dashboard"},
    {"launchers", "export", "compare", "firstfile"},
    {"worker"},
    {"experiment"},
    {"studyfile", "files"},
    {"search"},
    {"database"},
    {"settings", "machine"},
    {"errors", "strict_json"},
    {"trainers"},
)
"""A room may import its own floor (if that makes no circle) and every floor below it."""
FLOOR_OF = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; ``trainers/`` is imported as ``hpo.trainers``."""
    found = {}
    for folder, prefix in ((ROOT / "hpo", "hpo"), (ROOT / "trainers", "hpo.trainers")):
        for path in folder.rglob("*.py"):
            parts = path.relative_to(folder).with_suffix("").parts
            if not (prefix == "hpo" and parts[0] == "trainers"):
                found[".".join((prefix, *parts)).removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> Iterator[tuple[str, ast.stmt, bool]]:
    """(imported module of ours, its statement, whether it runs when the module is loaded)."""

    def visit(node: ast.AST, at_load: bool) -> Iterator[tuple[str, ast.stmt, bool]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Import):
                yield from ((alias.name, child, at_load) for alias in child.names)
            elif isinstance(child, ast.ImportFrom) and child.module:
                for alias in child.names:
                    full = f"{child.module}.{alias.name}"
                    yield (full if full in known else child.module), child, at_load
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) or (
                isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
            ):
                yield from visit(child, False)
            else:
                yield from visit(child, at_load)

    yield from (
        (name, node, at_load) for name, node, at_load in visit(ast.parse(path.read_text()), True) if name in known
    )


def room(module: str) -> str:
    """The folder or file of ``hpo/`` that a module belongs to; the package itself is the public interface."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in FLOOR_OF else "api"


def upward(known: dict[str, Path]) -> list[str]:
    lines = []
    for module, path in known.items():
        if module in ("hpo", "hpo.__main__"):
            continue  # names that are imported when they are used
        for target, node, _ in imports(path, known):
            here, there = room(module), room(target)
            if here != there and FLOOR_OF[there] < FLOOR_OF[here]:
                lines.append(
                    f"{path.relative_to(ROOT)}:{node.lineno}: {here} imports {there} ({target}), which is above it"
                )
    return lines


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components with more than one node (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(arrows.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1:
                found.append(sorted(component))

    for node in sorted(arrows):
        if node not in index:
            visit(node)
    return found


def test_no_room_imports_one_above_it() -> None:
    assert upward(modules()) == []


def test_no_two_modules_import_each_other() -> None:
    """Late and type-only imports count too: they hide circles."""
    known = modules()
    arrows = defaultdict(set)
    for module, path in known.items():
        if module != "hpo":
            arrows[module] |= {target for target, _, _ in imports(path, known) if target not in (module, "hpo")}
    assert circles(arrows) == []


def test_no_two_rooms_import_each_other() -> None:
    known = modules()
    arrows = defaultdict(set)
    for module, path in known.items():
        if module not in ("hpo", "hpo.__main__"):
            arrows[room(module)] |= {room(target) for target, _, _ in imports(path, known)} - {room(module)}
    assert circles(arrows) == []


def test_a_module_with_imports_inside_functions_says_why() -> None:
    """They are there for the time that a start takes: ``hpo --help``, or a worker that needs no torch."""
    silent = []
    for name, path in modules().items():
        tree = ast.parse(path.read_text())
        functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
        is_late = any(isinstance(n, ast.Import | ast.ImportFrom) for function in functions for n in ast.walk(function))
        if is_late and "import" not in (ast.get_docstring(tree) or "").lower():
            silent.append(name)
    assert silent == []


def test_nothing_outside_the_package_is_called_trainers() -> None:
    """The folder stands at the top; as a top-level module it would collide with folders that users have."""
    wrong = [
        str(path.relative_to(ROOT))
        for folder in ("hpo", "trainers", "tests", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "trainers" and not node.level)
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "trainers" for alias in node.names))
    ]
    assert wrong == []


@pytest.mark.parametrize(
    ("arrows", "expected"),
    [({"a": {"b"}, "b": {"c"}}, []), ({"a": {"b"}, "b": {"a"}, "c": {"a"}}, [["a", "b"]])],
)
def test_a_circle_is_found(arrows: dict[str, set[str]], expected: list[list[str]]) -> None:
    assert circles(arrows) == expected


def test_an_upward_import_is_found(tmp_path: Path) -> None:
    path = ROOT / "hpo" / "errors.py"
    known = modules()
    wrong = tmp_path / "errors.py"
    wrong.write_text(path.read_text() + "\n\ndef late():\n    from hpo.worker import worker\n")
    targets = [target for target, _, _ in imports(wrong, known)]
    assert targets == ["hpo.worker.worker"]
    assert FLOOR_OF[room(targets[0])] < FLOOR_OF["errors"]
