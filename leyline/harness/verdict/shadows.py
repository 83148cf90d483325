"""New files of an agent that stand in front of a module of the interpreter, and the guard against them."""

from __future__ import annotations

import ast
import functools
import json
import os
import secrets
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from importlib.machinery import PathFinder
from pathlib import Path

from leyline.harness.sandbox.sandbox import Sandbox
from leyline.harness.verdict import guard
from leyline.harness.workspace.jail import WorkspaceError, read_bytes
from leyline.harness.workspace.snapshot import MAX_FILE_BYTES, decode
from leyline.harness.workspace.workspace import DiskWorkspace

_SUFFIXES = (".py", ".so", ".pyd")


def lay_guard(agent: DiskWorkspace, copy: DiskWorkspace) -> dict[str, str]:
    """What the environment of a verdict on `copy` needs so that new modules stand in front of nothing it uses, and so
    that its end is seen.
    """
    folder = copy.home / "guard"
    folder.mkdir()
    (folder / "sitecustomize.py").write_bytes(Path(guard.__file__).read_bytes())
    made = {"PYTHONPATH": str(folder), "LEYLINE_ENDS": str(folder / secrets.token_hex(8))}
    new = {name for name in _modules(_paths(copy.root)) - _modules(agent.start) if _of_the_interpreter(name)}
    if not new:
        return made
    guarded = [path for path in agent.start if path.endswith(".py") and agent.guarded(path)]
    others = [path for path in copy.files() if path.endswith(".py") and path not in guarded]
    asked = {name: sorted(wanted) for name, wanted in _asked(copy, guarded).items() if name in new}
    used = sorted(new & _asked(copy, others).keys())
    spec = {"root": str(copy.root), "new": sorted(new), "asked": asked, "used": used}
    (folder / "guard.json").write_text(json.dumps(spec), "utf-8")
    return made


def cut_short(sandbox: Sandbox) -> bool:
    """Whether an interpreter that the command of a verdict started has not come to its end: code under test ended the
    process, or something killed it.
    """
    note = Path(sandbox.env["LEYLINE_ENDS"])
    return any(place.name.startswith(f"{note.name}.") for place in note.parent.iterdir())


def _modules(paths: Iterable[str]) -> set[str]:
    """The names that paths offer for import at their top; a folder without `__init__` gives way to any module."""
    found = set()
    for path in paths:
        top, _, below = path.partition("/")
        name = below if below else top
        stem = name.split(".")[0]
        if name.endswith(_SUFFIXES) and (stem == "__init__" if below else True):
            found.add(top if below else stem)
    return found


def _paths(root: Path) -> Iterator[str]:
    for entry in os.scandir(root):
        yield entry.name
        if entry.is_dir():
            yield from (f"{entry.name}/{below.name}" for below in os.scandir(entry.path))


@functools.cache
def _of_the_interpreter(name: str) -> bool:
    """Whether the interpreter brings a module of this name, in its library or among what is installed."""
    if name in sys.stdlib_module_names:
        return True
    places = [sysconfig.get_path(kind) for kind in ("purelib", "platlib", "stdlib")]
    return PathFinder.find_spec(name, list(dict.fromkeys(places))) is not None


def _asked(copy: DiskWorkspace, paths: Iterable[str]) -> Mapping[str, set[str]]:
    """The modules that the files import, each with the names that they want of it."""
    found: dict[str, set[str]] = {}
    for path in paths:
        try:
            tree = ast.parse(decode(read_bytes(str(copy.root), path, MAX_FILE_BYTES)))
        except (WorkspaceError, SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        for name, wanted in guard.asked_of(tree).items():
            found.setdefault(name, set()).update(wanted)
    return found
