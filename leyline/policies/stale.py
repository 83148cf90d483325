"""Which outputs of a history are out of date, and through what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leyline.directives import Message
from leyline.policies.history import Call, calls
from leyline.policies.shell import Effect, SuiteRun, View, command_effect

VIEW_TOOLS = frozenset({"view", "read", "read_file", "cat", "open"})
EDIT_TOOLS = frozenset({"edit", "write", "write_file", "create", "str_replace", "insert", "apply_patch"})
TEST_TOOLS = frozenset({"eval", "test", "run_tests"})
_PATH_KEYS = ("path", "file", "file_path", "filename")


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
        return command_effect(command) if isinstance(command, str) else Effect()
    path = next((call.arguments[k] for k in _PATH_KEYS if isinstance(call.arguments.get(k), str)), None)
    paths = frozenset() if path is None else frozenset({path})
    if path is not None and call.name in VIEW_TOOLS:
        start, end = _line(call.arguments.get("start")), _line(call.arguments.get("end"))
        return Effect(View(path, start or 1, end), paths=paths, program=call.name)
    if path is not None and call.name in EDIT_TOOLS:
        return Effect(edited=paths, paths=paths, program=call.name)
    if call.name in TEST_TOOLS:
        return Effect(tests=SuiteRun(call.name), paths=paths, program=call.name)
    return Effect(paths=paths, program=call.name)


def stale_outputs(messages: Sequence[Message]) -> list[Stale]:
    """Outputs superseded within this history, in the order in which that happened.

    A view is superseded by an edit of its file and by a later view that covers it, a test run by a later run of at
    least the same tests. A call that failed supersedes nothing, and its own output is left alone.
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


def _line(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None
