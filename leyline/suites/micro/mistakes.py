"""Wrong turns for training data: an agent that has only seen right ones does not know how to come back."""

from __future__ import annotations

import random
from collections.abc import Mapping

from leyline.suites.micro.mutations import line_mutations
from leyline.suites.micro.oracle import Action
from leyline.suites.micro.repair import find_unit, lines_of
from leyline.suites.micro.task import MicroTask

WRONG_EDIT, NOISE = 0.25, 0.06  # of the edits, and of the other turns, at rate 1
MOST_WRONG_EDITS = (0, 1, 1, 2, 2, 3)


class Mistakes:
    """Turns right actions into wrong ones, now and then. rate: 0 never, 1 as often as training wants."""

    def __init__(self, task: MicroTask, rng: random.Random, rate: float = 1.0) -> None:
        self._task, self._rng, self._rate = task, rng, rate
        self._left = rng.choice(MOST_WRONG_EDITS)

    def instead_of(self, action: Action, files: Mapping[str, str]) -> Action | None:
        """A wrong turn in the place of `action`, or None."""
        if action.name == "edit":
            if self._left > 0 and self._rng.random() < WRONG_EDIT * self._rate:
                self._left -= 1
                return self._wrong_edit(action, files)
        elif self._rng.random() < NOISE * self._rate:
            return self._noise(action, files)
        return None

    def _wrong_edit(self, action: Action, files: Mapping[str, str]) -> Action | None:
        """Another line, another change, broken code, or a line that is not there."""
        rng, path, line = self._rng, str(action.arguments["path"]), int(action.arguments["line"])
        lines, right = lines_of(files[path]), str(action.arguments["new_code"])
        first, last = self._around(path, line, lines)
        x = rng.random()
        if x < 0.04:
            return _edit(path, len(lines) + rng.randint(1, 9), right.split("\n")[0], lines)
        for _ in range(10):
            target, new = line, right
            if x < 0.25:
                target, new = line + rng.choice([-1, 1]), right.split("\n")[0]
            elif x < 0.35:
                new = rng.choice(["    " + right, right.removeprefix("    "), right.rstrip(":)"), ""])
            else:
                target = rng.choice([line, line, rng.randint(first, last)])
                changes = [c for _, c in line_mutations(lines[target - 1], self._names(lines, first, last)) if c]
                if target == line and rng.random() < 0.4:
                    changes = [c for _, c in line_mutations(right.split("\n")[0], self._names(lines, first, last)) if c]
                if not changes:
                    continue
                new = rng.choice(changes)
            if first < target <= last and new not in (lines[target - 1], right if target == line else None):
                return _edit(path, target, new, lines)
            x = rng.random()
        return None

    def _around(self, path: str, line: int, lines: list[str]) -> tuple[int, int]:
        for unit in self._task.program:
            found = find_unit(lines, unit.header) if self._task.where[unit.name] == path else None
            if found and found[0] <= line <= found[1]:
                return found
        return max(1, line - 4), min(len(lines), line + 4)

    def _names(self, lines: list[str], first: int, last: int) -> list[str]:
        text = "\n".join(lines[first - 1 : last])
        names = {v for u in self._task.program for v in u.variables if u.header in text}
        return sorted(names)

    def _noise(self, action: Action, files: Mapping[str, str]) -> Action | None:
        """Something that does not help: lines or a name of no interest, the tests once more, a call that fails."""
        rng, x = self._rng, self._rng.random()
        path = rng.choice(list(files))
        count = len(lines_of(files[path]))
        if x < 0.45:
            start = rng.randint(1, max(1, count - 5))
            return _view("Let me look around.", path, start, min(count, start + rng.choice([8, 15, 30])))
        if x < 0.65:
            return Action("Let me search.", "grep", {"pattern": rng.choice([u.name for u in self._task.program])})
        if x < 0.8:
            return Action("Run the tests again.", "eval", {})
        if x < 0.9:
            return _view("View it.", rng.choice(["src/", "lib/", "tests/"]) + path.rpartition("/")[2], 1, count)
        return Action("Change the test.", "edit", {"path": self._task.test_path, "line": 1, "new_code": ""})


def _view(thought: str, path: str, start: int, end: int) -> Action:
    return Action(thought, "view", {"path": path, "start": start, "end": end})


def _edit(path: str, line: int, new: str, lines: list[str]) -> Action:
    old = lines[line - 1].strip() if line <= len(lines) else ""
    arguments = {"path": path, "line": line, "new_code": new}
    return Action(f"Line {line} of {path} is wrong: `{old}`.", "edit", arguments)
