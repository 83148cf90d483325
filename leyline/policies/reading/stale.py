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
    views: list[tuple[View, int]] = []
    runs: list[tuple[SuiteRun, int]] = []
    found: list[Stale] = []
    for call in calls(messages, tools):
        if call.result_index is None:
            continue
        now, at = effect(call, tools), call.result_index
        # A failing test run is a result, not a failed call.
        if call.failed and not (now.tests is not None and kind_of(call.name, call.arguments, tools) == "shell"):
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
