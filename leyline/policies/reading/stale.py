"""Which outputs of a history are out of date, and through what."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leyline.directives import Message
from leyline.policies.reading.calls import Call, calls
from leyline.policies.reading.shell import Effect, View, command_effect
from leyline.policies.reading.testruns import SuiteRun

VIEW_TOOLS = frozenset({"view", "read", "read_file", "cat", "open"})
EDIT_TOOLS = frozenset({"edit", "write", "write_file", "create", "str_replace", "insert", "apply_patch"})
TEST_TOOLS = frozenset({"eval", "test", "run_tests"})
_PATH_KEYS = ("path", "file", "file_path", "filename")
_DIRECTORY_KEYS = ("cwd", "workdir", "working_directory")
_RANGES = (("start", "end"), ("start_line", "end_line"), ("line_start", "line_end"))


@dataclass(frozen=True, slots=True)
class Stale:
    """An output that a later one supersedes.

    index: the output; by: the output of the call that superseded it; what, why: both in words.
    """

    index: int
    by: int
    what: str
    why: str


def effect(call: Call) -> Effect:
    """What a call shows, writes or tests, from its name and arguments."""
    if call.name == "bash" or isinstance(call.arguments.get("command"), str):
        command = call.arguments.get("command")
        directory = next((call.arguments[k] for k in _DIRECTORY_KEYS if isinstance(call.arguments.get(k), str)), ".")
        return command_effect(command, directory) if isinstance(command, str) else Effect()
    key = next((k for k in _PATH_KEYS if isinstance(call.arguments.get(k), str)), None)
    path = None if key is None else call.arguments[key]
    paths = frozenset() if path is None else frozenset({path})
    if path is not None and call.name in VIEW_TOOLS:
        others = {k: v for k, v in call.arguments.items() if k != key and v is not None}
        return Effect(_view(path, others), paths=paths, program=call.name)
    if path is not None and call.name in EDIT_TOOLS:
        return Effect(edited=paths, paths=paths, program=call.name)
    if call.name in TEST_TOOLS:
        select = frozenset(f"{k}={json.dumps(v)}" for k, v in call.arguments.items() if v is not None)
        return Effect(tests=SuiteRun(call.name, select=select), paths=paths, program=call.name)
    return Effect(paths=paths, program=call.name)


def stale_outputs(messages: Sequence[Message]) -> list[Stale]:
    """Outputs superseded within this history, in the order in which that happened.

    A view is superseded by an edit of its file and by a later view that covers it, a test run by a later run of at
    least the same tests in the same directory that shows their result. A call that failed supersedes nothing, and its
    own output is left alone.
    """
    views: list[tuple[View, int]] = []
    runs: list[tuple[SuiteRun, int]] = []
    found: list[Stale] = []
    for call in calls(messages):
        if call.result_index is None:
            continue
        now, at = effect(call), call.result_index
        # A failing test run is a result, not a failed call.
        if call.failed and not (now.tests is not None and call.name == "bash"):
            continue
        for view, index in list(views):
            covered = now.view is not None and now.view.covers(view)
            if view.path in now.edited or covered:
                views.remove((view, index))
                why = "a later view" if covered else "a later edit of that file"
                found.append(Stale(index, at, f"view of {view.path}", why))
        if now.tests is not None:
            for run, index in list(runs):
                if now.tests.covers(run):
                    runs.remove((run, index))
                    found.append(Stale(index, at, "test run", "a later test run"))
            runs.append((now.tests, at))
        if now.view is not None:
            views.append((now.view, at))
    return found


def _view(path: str, arguments: Mapping[str, Any]) -> View:
    """The view that a tool gives with these arguments beside the path. Any other argument may select something."""
    given = arguments.keys()
    span = arguments.get("view_range")
    pair = next((keys for keys in _RANGES if given <= set(keys)), None)
    first, last, count = None, None, arguments.get("limit")
    if pair is not None:
        first, last = arguments.get(pair[0], 1), arguments.get(pair[1])
    elif given == {"view_range"} and isinstance(span, list) and len(span) == 2:
        first, last = span[0], None if span[1] == -1 else span[1]
    elif given <= {"offset", "limit"}:
        first = arguments.get("offset", 1)
    start, end, size = _number(first), _number(last), _number(count)
    if start is None or start < 0:
        return View(path, known=False)
    start = max(start, 1)  # some tools count from 0
    if size is not None:
        end = start + max(size, 0) - 1
    bounded = last is not None or count is not None
    return View(path, start, end, known=not bounded or (end is not None and end >= start))


def _number(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):  # OverflowError: JSON's 1e999 is read as infinity
        return None
