"""The tree as the design draws it: which package may import which, and modules that one can read at a sitting."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "leyline"
MODULES = sorted(PACKAGE.rglob("*.py"))
# The data flows one way: policy -> directive -> wire -> backend -> report.
# Each room imports only rooms before it; the commands and `cli.py` stand on top of everything.
ROOMS = [
    *(
        "directives",
        "policies",
        "dialects",
        "rendering",
        "models",
        "backends",
        "harness",
        "suites",
        "evals",
        "commands",
    ),
]
MAY_IMPORT = {room: set(ROOMS[:index]) for index, room in enumerate(ROOMS)}
MAY_IMPORT["policies"] = {"directives"}
BELOW_ALL = {"_lazy", "_moved"}
LONGEST = 300
MOST_ANY = 290  # half of what there was; give a type, `object` where nothing is asked of a value, or `JsonObject`


def imports(path: Path) -> Iterator[str]:
    """The sub-packages of leyline that a module imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            names = [node.module or ""]
        for name in names:
            parts = name.split(".")
            if parts[0] == "leyline" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_packages_import_only_what_comes_before_them(package: str) -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in sorted((PACKAGE / package).rglob("*.py"))
        for name in imports(path)
        if name not in MAY_IMPORT[package] | {package} | BELOW_ALL
    ]
    assert not wrong


def test_every_package_is_one_of_these() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(MAY_IMPORT)


def test_no_module_is_too_long_to_read() -> None:
    long = {
        str(path.relative_to(PACKAGE)): lines
        for path in MODULES
        if (lines := len(path.read_text().splitlines())) > LONGEST
    }
    assert not long


def test_every_module_says_in_its_first_line_what_it_is() -> None:
    silent = []
    for path in MODULES:
        text = path.read_text(encoding="utf-8")
        said = (ast.get_docstring(ast.parse(text)) or "").partition("\n")[0]
        if not text.startswith(('"""', 'r"""')) or len(said) < 10 or not said.endswith((".", ":", "`", "?")):
            silent.append(f"{path.relative_to(PACKAGE)}: {said!r}")
    assert not silent


def test_no_room_holds_more_than_a_quarter() -> None:
    lines = {room: sum(len(p.read_text().splitlines()) for p in (PACKAGE / room).rglob("*.py")) for room in ROOMS}
    whole = sum(len(path.read_text().splitlines()) for path in MODULES)
    assert not {room: f"{count / whole:.1%}" for room, count in lines.items() if count > whole / 4}


def test_no_module_imports_itself_by_a_circle() -> None:
    """By what is imported while a module loads; what a function imports when it is called closes no circle."""
    known = {_name(path): path for path in MODULES}
    edges = {name: {found for found in _at_load(path, set(known)) if found != name} for name, path in known.items()}
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def _name(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def _at_load(path: Path, known: set[str]) -> Iterator[str]:
    for node in _top_level(ast.parse(path.read_text(encoding="utf-8")).body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in below if name in known]
            yield from modules
            if len(modules) < len(below) and node.module in known:
                yield node.module


def _top_level(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when a module is imported, `if TYPE_CHECKING` left out."""
    for node in body:
        if isinstance(node, ast.If):
            if "TYPE_CHECKING" not in ast.unparse(node.test):
                yield from _top_level(node.body)
            yield from _top_level(node.orelse)
        elif isinstance(node, ast.Try):
            yield from _top_level([*node.body, *node.orelse, *node.finalbody])
        elif isinstance(node, ast.With):
            yield from _top_level(node.body)
        else:
            yield node


def anys(path: Path) -> int:
    """How often a module's annotations say `Any`."""
    annotations: list[ast.expr | None] = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            annotations.append(node.returns)
        elif isinstance(node, ast.arg | ast.AnnAssign):
            annotations.append(node.annotation)
    names = (part for annotation in annotations if annotation for part in ast.walk(annotation))
    return sum(isinstance(name, ast.Name) and name.id == "Any" for name in names)


def test_annotations_seldom_say_any() -> None:
    found = {str(path.relative_to(PACKAGE)): count for path in MODULES if (count := anys(path))}
    most = dict(sorted(found.items(), key=lambda item: -item[1])[:5])
    assert sum(found.values()) < MOST_ANY, f"{sum(found.values())} annotations say Any, most of them in {most}"
