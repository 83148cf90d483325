"""The tree as the design draws it: which package may import which, and modules that one can read at a sitting."""

from __future__ import annotations

import ast
from collections.abc import Iterator
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
BELOW_ALL = {"_lazy"}
LONGEST = 350


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
