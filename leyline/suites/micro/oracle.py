"""The scripted agent that a model learns from. It looks first, then acts on what it sees.

It knows the correct program, but may name a line only when the messages it is given show that line as it is now. So it
views again what a policy has cut, and from any state of the files, a learner's too, it gives a next step that can be
imitated from the same messages.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from leyline.directives import JsonMapping, Message
from leyline.directives.hermes import block
from leyline.suites.micro.repair import Repair, file_repairs, find_unit, lines_of, unit_repairs
from leyline.suites.micro.sight import Sight, look
from leyline.suites.micro.task import MicroTask
from leyline.suites.micro.units import Unit

WHOLE_FILE, SMALL_FILE = 75, 40  # lines of a file that is viewed at once: a lone module, and any module
WINDOW = {"function": 17, "class": 30}  # lines viewed behind a header


@dataclass(frozen=True, slots=True)
class Action:
    """One assistant turn: what it says, and the tool it calls."""

    thought: str
    name: str
    arguments: JsonMapping

    @property
    def arguments_text(self) -> str:
        return json.dumps(self.arguments, ensure_ascii=False)

    @property
    def text(self) -> str:
        """What the model generates for this turn."""
        call = f'{{"name": "{self.name}", "arguments": {self.arguments_text}}}'
        return self.thought + block(call)

    def message(self, call_id: str) -> Message:
        """The turn as a message with a native tool call."""
        function = {"name": self.name, "arguments": self.arguments_text}
        call = {"id": call_id, "type": "function", "function": function}
        return {"role": "assistant", "content": self.thought, "tool_calls": [call]}


class Oracle:
    """Gives the next turn of a task. It has no memory: the messages and the files decide."""

    def __init__(self, task: MicroTask) -> None:
        self.task = task
        self.units = {unit.name: unit for unit in task.program}

    def relabel(self, messages: Sequence[Message], files: Mapping[str, str]) -> Action | None:
        """The right turn in a state that anyone may have got into; None where there is none to show.

        messages: what is seen, that is, the history as the policy edits it. files: the files as they are now.
        """
        sight = look(messages)
        if sight.edited:
            return Action("Check the change.", "eval", {})
        if sight.report is not None and sight.report.ok:
            return Action("All tests pass.", "submit", {})
        if sight.report is not None and sight.report.broken is not None:
            return self._mend(sight, files, sight.report.broken)
        if sight.place is not None:
            return self._mend(sight, files, sight.place)
        root = self._failing(sight)
        focus = sight.focus if sight.focus in self.units else root
        if focus is None:
            return _run_tests(sight, [])
        thoughts = []
        if sight.fresh and sight.report is not None:
            test = sight.report.failed[0]
            thoughts.append(f"{len(sight.report.failed)} failed. {test} fails, so check {focus}.")
        return self._search(sight, files, self.units[focus], thoughts)

    act = relabel

    def _failing(self, sight: Sight) -> str | None:
        """The unit that the first failing test is of."""
        if sight.report is None:
            return None
        return next((u for t in sight.report.failed if (u := _tested(t)) in self.units), None)

    def _search(self, sight: Sight, files: Mapping[str, str], unit: Unit, thoughts: list[str]) -> Action | None:
        """Go from a unit to what it calls until one is wrong."""
        returned = False
        while True:
            repairs = unit_repairs(files, self.task.where[unit.name], unit)
            if repairs is None:
                return self._anything(sight, files, thoughts)
            if not self._visible(sight, files, unit):
                return self._show(sight, files, unit, thoughts)
            if repairs:
                return _edit(sight, repairs, thoughts)
            if unit.calls is not None:
                callee = unit.calls
                thoughts.append(f"{unit.name} looks right. It calls {callee.name}, so check {callee.name}.")
                unit = callee
                continue
            if sight.report is None:
                return _run_tests(sight, [*thoughts, f"{unit.name} looks right."])
            suspect = self._suspect(sight, files)
            if suspect is None or returned:
                return self._anything(sight, files, [*thoughts, f"{unit.name} looks right."])
            thoughts.append(f"{unit.name} looks right, so check {suspect.name}.")
            unit, returned = suspect, True

    def _suspect(self, sight: Sight, files: Mapping[str, str]) -> Unit | None:
        """The unit of the first failing test that is wrong itself or calls one that is."""
        for test in sight.report.failed if sight.report is not None else ():
            unit: Unit | None = self.units.get(_tested(test))
            first = unit
            while unit is not None:
                if unit_repairs(files, self.task.where[unit.name], unit):
                    return first
                unit = unit.calls
        return None

    def _visible(self, sight: Sight, files: Mapping[str, str], unit: Unit) -> bool:
        path = self.task.where[unit.name]
        lines = lines_of(files[path])
        found = find_unit(lines, unit.header)
        known = sight.lines.get(path, {})
        return found is not None and all(known.get(n) == lines[n - 1] for n in range(found[0], found[1] + 1))

    def _show(self, sight: Sight, files: Mapping[str, str], unit: Unit, thoughts: list[str]) -> Action:
        """Look for a unit, or view it once it is found."""
        path, header = self.task.where[unit.name], unit.header
        found = find_unit(lines_of(files[path]), header)
        assert found is not None
        start, end = found
        known = sight.lines.get(path, {})
        length = sight.lengths.get(path, self.task.files[path].count("\n"))
        first_unknown = next((n for n in range(start, end + 1) if n not in known), start)
        if len(self.task.modules) == 1 and length <= WHOLE_FILE:
            named = any(text.endswith(f"check {unit.name}.") for text in thoughts)
            return _view(path, 1, length, [*thoughts, *([] if named else [f"Check {unit.name}."]), "View the file."])
        if not known.get(start, "").startswith(header):
            return Action(" ".join([*thoughts, f"Find {unit.name}."]), "grep", {"pattern": header})
        thoughts = [*thoughts, f"{unit.name} is at {path} line {start}."]
        if length <= SMALL_FILE:
            return _view(path, 1, length, [*thoughts, "View the file."])
        window = WINDOW[unit.kind]
        if first_unknown > start + window:
            return _view(path, first_unknown - 1, min(length, first_unknown + window), [*thoughts, "View the rest."])
        return _view(path, max(1, start - 2), min(length, start + window), thoughts)

    def _mend(self, sight: Sight, files: Mapping[str, str], place: tuple[str, int]) -> Action | None:
        """A file that does not load: view the place and undo what is wrong there."""
        path, line = place
        thoughts = [f"{path} line {line} does not load."] if sight.fresh else []
        repairs = file_repairs(files, path, self.task.reference[path]) if path in self.task.reference else []
        return self._near(sight, files, repairs, thoughts, line) if repairs else self._anything(sight, files, thoughts)

    def _anything(self, sight: Sight, files: Mapping[str, str], thoughts: list[str]) -> Action | None:
        """The first thing that is wrong anywhere."""
        for path, text in self.task.reference.items():
            repairs = file_repairs(files, path, text)
            if repairs:
                return self._near(sight, files, repairs, thoughts, repairs[0].line)
        return None

    def _near(
        self, sight: Sight, files: Mapping[str, str], repairs: list[Repair], thoughts: list[str], line: int
    ) -> Action:
        """View the lines around a repair, or make it."""
        repair = min(repairs, key=lambda r: abs(r.line - line))
        path, count = repair.path, len(lines_of(files[repair.path]))
        around = range(max(1, repair.line - 3), min(count, repair.line + 3) + 1)
        known, lines = sight.lines.get(path, {}), lines_of(files[path])
        if any(known.get(n) != lines[n - 1] for n in around):
            centre = line if abs(line - repair.line) <= 5 else repair.line
            return _view(path, max(1, centre - 12), min(count, centre + 8), [*thoughts, "View it."])
        return _edit(sight, [repair], thoughts)


def _tested(test: str) -> str:
    """The unit that a test is of: `test_NAME_3` is of NAME."""
    return test.removeprefix("test_").rpartition("_")[0]


def _run_tests(sight: Sight, thoughts: list[str]) -> Action:
    if sight.turns == 0:
        return Action("Let me run the tests first.", "eval", {})
    return Action(" ".join([*thoughts, "Run the tests again."]), "eval", {})


def _view(path: str, start: int, end: int, thoughts: list[str]) -> Action:
    return Action(" ".join(thoughts), "view", {"path": path, "start": start, "end": end})


def _edit(sight: Sight, repairs: list[Repair], thoughts: list[str]) -> Action:
    """Make the repair where the last change was, else the first."""
    again = next((r for r in repairs if (r.path, r.line) == sight.changed), None)
    repair = again or repairs[0]
    where, text = f"ine {repair.line} of {repair.path}", f"`{repair.old.strip()}`"
    words = {
        "replace": f"L{where} is {'still ' if again else ''}wrong: {text}.",
        "delete": f"L{where} should go: {text}.",
        "before": f"A line is missing before l{where}: {text}.",
        "after": f"A line is missing after l{where}: {text}.",
    }
    arguments = {"path": repair.path, "line": repair.line, "new_code": repair.new}
    return Action(" ".join([*thoughts, words[repair.kind]]), "edit", arguments)
