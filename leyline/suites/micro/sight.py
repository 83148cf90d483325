"""What a history shows: lines of files, where things are, the last test report, and what the agent was about to check.

Only text that stands in the given messages counts. An output that a policy has cut shows nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from leyline.directives import JsonObject, Message
from leyline.directives.content import content_text

_CUT = re.compile(r"\[\.\.\. \d+ characters removed \.\.\.\]")
_NUMBERED = re.compile(r"^(\d+)\|(.*)$", re.M)
_FOUND = re.compile(r"^([\w./-]+\.py):(\d+):(.*)$", re.M)
_VIEWED = re.compile(r"(\S+), lines (\d+) to (\d+) of (\d+)\n")
_EDITED = re.compile(r"Edited (\S+) line (\d+) \((\d+) lines now\)")
_LISTED = re.compile(r"^- (\S+) \((\d+) lines\)$", re.M)
_FAILED = re.compile(r"^FAILED \S+?::(\w+) - ", re.M)
_BROKEN = re.compile(r'^E     File "([^"]+)", line (\d+)$', re.M)
_CHECK = re.compile(r"\b(?:[Cc]heck|Find) (\w+)\.|\b(\w+) is at \S+ line \d+\.")
_DOES_NOT_LOAD = re.compile(r"(\S+) line (\d+) does not load\.")
SESSION = "==================== test session starts"


@dataclass(frozen=True, slots=True)
class Exchange:
    """One tool call with what the agent said before it and the output, None where it is not there."""

    thought: str
    name: str
    arguments: JsonObject
    output: str | None


@dataclass(frozen=True, slots=True)
class SeenRun:
    """A test report: failed tests in order, or the place that did not load."""

    failed: tuple[str, ...] = ()
    broken: tuple[str, int] | None = None

    @property
    def ok(self) -> bool:
        return not self.failed and self.broken is None


@dataclass
class Sight:
    """What is known from the messages.

    lines: text by path and line number, as the files are now; lengths: number of lines by path. report: of the last
    test run, None if it is cut or not there. fresh: nothing was done since. edited: a file was changed after the last
    test run; changed: path and line of the last change. focus: the unit, and place: path and line, that the agent said
    it would look at, since the last test run or change. turns: calls made.
    """

    lines: dict[str, dict[int, str]] = field(default_factory=dict)
    lengths: dict[str, int] = field(default_factory=dict)
    report: SeenRun | None = None
    fresh: bool = False
    edited: bool = False
    changed: tuple[str, int] | None = None
    focus: str | None = None
    place: tuple[str, int] | None = None
    turns: int = 0

    def knows(self, path: str, numbers: range) -> bool:
        known = self.lines.get(path, {})
        return all(n in known for n in numbers)


def look(messages: Sequence[Message]) -> Sight:
    """Read a history, edited or not."""
    sight = Sight()
    for message in messages:
        if message.get("role") == "user":
            sight.lengths.update((path, int(count)) for path, count in _LISTED.findall(content_text(message)))
    for exchange in exchanges(messages):
        _take(sight, exchange)
    return sight


def exchanges(messages: Sequence[Message]) -> list[Exchange]:
    """The calls of native messages, each with its output."""
    outputs = {m.get("tool_call_id"): content_text(m) for m in messages if m.get("role") == "tool"}
    found = []
    for message in messages:
        for call in message.get("tool_calls") or ():
            try:
                arguments = json.loads(call["function"]["arguments"])
            except ValueError:
                arguments = None
            output = outputs.get(call.get("id"))
            name, thought = call["function"]["name"], content_text(message)
            found.append(Exchange(thought, name, arguments if isinstance(arguments, dict) else {}, output))
    return found


def _take(sight: Sight, exchange: Exchange) -> None:
    sight.turns += 1
    sight.fresh = False
    focus = _CHECK.findall(exchange.thought)
    place = _DOES_NOT_LOAD.findall(exchange.thought)
    if focus or place:
        sight.focus = focus[-1][0] or focus[-1][1] if focus else None
        sight.place = (place[-1][0], int(place[-1][1])) if place else None
    output = exchange.output
    whole = output is not None and not _CUT.search(output)
    if output is None or output.startswith("Error:"):
        return
    if exchange.name == "view" and whole:
        _take_view(sight, output)
    elif exchange.name == "grep" and whole:
        for path, number, text in _FOUND.findall(output):
            sight.lines.setdefault(path, {})[int(number)] = text
    elif exchange.name == "edit":
        _take_edit(sight, exchange, output if whole else "")
    elif exchange.name == "eval":
        sight.report = _read_report(output) if whole else None
        sight.fresh = sight.report is not None
        sight.edited, sight.focus, sight.place = False, None, None


def _take_view(sight: Sight, output: str) -> None:
    head = _VIEWED.match(output)
    if head:
        known = sight.lines.setdefault(head[1], {})
        known.update((int(n), text) for n, text in _NUMBERED.findall(output))
        sight.lengths[head[1]] = int(head[4])


def _take_edit(sight: Sight, exchange: Exchange, output: str) -> None:
    """The call says what was changed; where lines moved, only those that the output shows are known."""
    try:
        path, line = str(exchange.arguments["path"]), int(exchange.arguments["line"])
        code = str(exchange.arguments["new_code"])
    except (KeyError, TypeError, ValueError, OverflowError):
        return
    new = code.split("\n") if code else []
    known = sight.lines.setdefault(path, {})
    if len(new) == 1:
        known[line] = new[0]
    else:
        for number in [n for n in known if n >= line]:
            del known[number]
        known.update(enumerate(new, line))
        sight.lengths[path] = sight.lengths.get(path, 0) + len(new) - 1
    head = _EDITED.match(output)
    if head:
        known.update((int(n), text) for n, text in _NUMBERED.findall(output))
        sight.lengths[path] = int(head[3])
    sight.edited, sight.changed = True, (path, line)
    sight.focus, sight.place = None, None


def _read_report(output: str) -> SeenRun | None:
    if not output.startswith(SESSION):
        return None
    broken = _BROKEN.search(output)
    if broken:
        return SeenRun(broken=(broken[1], int(broken[2])))
    return SeenRun(failed=tuple(_FAILED.findall(output)))
