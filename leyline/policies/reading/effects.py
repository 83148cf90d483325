"""What a call shows, writes or tests, from its name and arguments."""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from leyline.directives import JsonMapping
from leyline.policies.reading.shell import Effect, View, command_effect
from leyline.policies.reading.testruns import SuiteRun
from leyline.policies.reading.tools import TOOLS, kind_of, shell_command

if TYPE_CHECKING:
    from leyline.policies.reading.calls import Call

# Names of arguments without their underscores, in lower case: `file_path`, `filePath` and `FilePath` are one.
_PATHS = [
    "path",
    "file",
    "filepath",
    "filename",
    "absolutepath",
    "targetfile",
    "notebookpath",
    "targetnotebook",
    "relativepath",
    "relativeworkspacepath",
    "uri",
    "source",
    "destination",
    "oldpath",
    "newpath",
]
_DIRECTORIES = ("cwd", "workdir", "workingdirectory", "dirpath", "directory")
_RANGES = (
    ("start", "end"),
    ("startline", "endline"),
    ("linestart", "lineend"),
    ("startlineoneindexed", "endlineoneindexedinclusive"),
    ("startlineoneindexed", "endlineoneindexed"),
)
_SAY_NOTHING = frozenset(
    ["explanation", "description", "instructions", "reason", "thought", "securityrisk", "requiresapproval"]
)
_MANY = ("edits", "replacements", "files", "changes", "paths")
_PATCHED = re.compile(r"^(?:\*\*\* (?:Update|Add|Delete) File: |\*\*\* Move to: |\+\+\+ (?:b/)?)([^\t\n]+)", re.M)
_REACH = {"read": 2000, "read_file": 2000, "open": 100}
"""Lines that a view tool shows where nothing says how many."""


def effect(call: Call, tools: Mapping[str, str] = TOOLS) -> Effect:
    """What a call shows, writes or tests."""
    kind = kind_of(call.name, call.arguments, tools)  # the table's word, which its user may change at any time
    found = call.effects.get(kind)
    if found is None:
        found = call.effects[kind] = _effect(call.name, call.arguments, kind)
    return found


def effect_of(name: str, arguments: JsonMapping, tools: Mapping[str, str] = TOOLS) -> Effect:
    """`effect` of a call with this name and these arguments."""
    return _effect(name, arguments, kind_of(name, arguments, tools))


def _effect(name: str, arguments: JsonMapping, kind: str) -> Effect:
    given = {_plain(key): value for key, value in arguments.items() if value is not None}
    if kind == "shell":
        command = shell_command(arguments)
        directory = next((given[k] for k in _DIRECTORIES if isinstance(given.get(k), str)), ".")
        found = command_effect(command, directory)
        if "*** Begin Patch" in command:
            patched = {posixpath.normpath(posixpath.join(directory, path)) for path in _PATCHED.findall(command)}
            found = replace(found, edited=found.edited | patched, view=None, program=found.program or "apply_patch")
        return found
    paths = frozenset(_named(given))
    if kind == "view":
        key = next((k for k in _PATHS if isinstance(given.get(k), str)), None)
        others = {k: v for k, v in given.items() if k not in (key, "command")}
        view = None if key is None else _view(posixpath.normpath(given[key]), others, name)
        return Effect(view, paths=paths, program=name)
    if kind == "edit":
        paths |= {posixpath.normpath(p) for v in given.values() if isinstance(v, str) for p in _PATCHED.findall(v)}
        return Effect(edited=paths, paths=paths, program=name)
    if kind == "test":
        select = frozenset(f"{k}={json.dumps(v, default=str)}" for k, v in arguments.items() if v is not None)
        return Effect(tests=SuiteRun(name, select=select), paths=paths, program=name, tested=True)
    return Effect(paths=paths, program=name)


@lru_cache(maxsize=1024)
def _plain(key: str) -> str:
    return key.replace("_", "").replace("-", "").lower()


def _named(given: JsonMapping) -> Iterator[str]:
    """The files that arguments name, those of a list of edits or files included."""
    for key in _PATHS:
        value = given.get(key)
        if isinstance(value, str) and value:
            yield posixpath.normpath(value)
    for key in _MANY:
        items = given.get(key)
        for item in items if isinstance(items, list) else ():
            if isinstance(item, Mapping):
                yield from _named({_plain(str(k)): v for k, v in item.items()})
            elif isinstance(item, str) and key in ("files", "paths"):
                yield posixpath.normpath(item)


def _view(path: str, arguments: JsonMapping, name: str) -> View:
    """The view that a tool gives with these arguments beside the path. Any other argument may select something."""
    given = {key: value for key, value in arguments.items() if key not in _SAY_NOTHING}
    if given.pop("shouldreadentirefile", False) is True:
        return View(path)
    span = given.get("viewrange")
    pair = next((keys for keys in _RANGES if given.keys() <= set(keys)), None)
    first, last, count = None, None, given.get("limit")
    if pair is not None:
        first, last = given.get(pair[0], 1), given.get(pair[1])
    elif given.keys() == {"viewrange"} and isinstance(span, list) and len(span) == 2:
        first, last = span[0], None if span[1] == -1 else span[1]
    elif given.keys() <= {"offset", "limit"}:
        first = given.get("offset", 1)
    start, end, size = _number(first), _number(last), _number(count)
    if start is None or start < 0:
        return View(path, known=False)
    start = max(start, 1)  # some tools count from 0
    if size is not None:
        end = start + max(size, 0) - 1
    bounded = last is not None or count is not None
    reach = None if bounded else _REACH.get(name.lower())
    return View(path, start, end, known=not bounded or (end is not None and end >= start), reach=reach)


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):  # OverflowError: JSON's 1e999 is read as infinity
        return None
