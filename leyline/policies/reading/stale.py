"""Which outputs of a history are out of date, and through what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leyline.directives import Message
from leyline.policies.reading.calls import calls
from leyline.policies.reading.effects import effect
from leyline.policies.reading.shell import View
from leyline.policies.reading.testruns import SuiteRun
from leyline.policies.reading.tools import TOOLS, kind_of


@dataclass(frozen=True, slots=True)
class Stale:
    """An output that a later one supersedes.

    index: the output; by: the output of the call that superseded it; what, why: both in words.
    """

    index: int
    by: int
    what: str
    why: str


def stale_outputs(messages: Sequence[Message], tools: Mapping[str, str] = TOOLS) -> list[Stale]:
    """Outputs superseded within this history, in the order in which that happened.

    A view is superseded by an edit of its file and by a later view that covers it, a test run by a later run of at
    least the same tests in the same directory that shows their result. A call that failed supersedes nothing, and its
    own output is left alone. tools: what the names of tools mean.
    """
    # What may be superseded, by what a later call must share with it: the path, or the runner and its directory.
    views: dict[str, list[tuple[int, View, int]]] = {}
    runs: dict[tuple[str, str], list[tuple[SuiteRun, int]]] = {}
    found: list[Stale] = []
    for number, call in enumerate(calls(messages, tools)):
        if call.result_index is None:
            continue
        now, at = effect(call, tools), call.result_index
        # A failing test run is a result, not a failed call.
        if call.failed and not (now.tests is not None and kind_of(call.name, call.arguments, tools) == "shell"):
            continue
        gone: list[tuple[int, Stale]] = []
        for path in now.edited if now.view is None else now.edited | {now.view.path}:
            left = []
            for item in views.pop(path, ()):
                covered = now.view is not None and now.view.covers(item[1])
                if covered or path in now.edited:
                    why = "a later view" if covered else "a later edit of that file"
                    gone.append((item[0], Stale(item[2], at, f"view of {path}", why)))
                else:
                    left.append(item)
            if left:
                views[path] = left
        found += [stale for _, stale in sorted(gone, key=lambda pair: pair[0])]
        if now.tests is not None:
            same = runs.setdefault((now.tests.runner, now.tests.directory), [])
            found += [Stale(index, at, "test run", "a later test run") for run, index in same if now.tests.covers(run)]
            same[:] = [item for item in same if not now.tests.covers(item[0])]
            same.append((now.tests, at))
        if now.view is not None:
            views.setdefault(now.view.path, []).append((number, now.view, at))
    return found
