"""What still separates the files from the correct program, as edits of one line each."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from leyline.suites.micro.units import Unit

MOST_IN_PLACE = 3


@dataclass(frozen=True, slots=True)
class Repair:
    """Replace line `line` of `path`, which reads `old`, by `new` ("" deletes it).

    kind: replace; delete; before and after: `new` is the old line with lines put in front of it or behind it.
    """

    path: str
    line: int
    old: str
    new: str
    kind: Literal["replace", "delete", "before", "after"]


def lines_of(text: str) -> list[str]:
    """The lines of a file that ends in a line break."""
    return text.removesuffix("\n").split("\n")


def find_unit(lines: Sequence[str], header: str) -> tuple[int, int] | None:
    """First and last line of a unit, from 1: from its header to its last indented line. None where there is none."""
    start = next((i for i, line in enumerate(lines) if line.startswith(header)), None)
    if start is None:
        return None
    end = start
    for i in range(start + 1, len(lines)):
        if lines[i].startswith(" "):
            end = i
        elif lines[i].strip():
            break
    return start + 1, end + 1


def unit_repairs(files: Mapping[str, str], path: str, unit: Unit) -> list[Repair] | None:
    """The repairs of one unit, from the top. None where its header is not in the file."""
    lines = lines_of(files[path])
    found = find_unit(lines, unit.header)
    if found is None:
        return None
    return _compare(path, lines[found[0] - 1 : found[1]], unit.lines, found[0])


def file_repairs(files: Mapping[str, str], path: str, reference: str) -> list[Repair]:
    """The repairs of a whole file, from the top."""
    return _compare(path, lines_of(files[path]), lines_of(reference), 1)


def _compare(path: str, now: Sequence[str], right: Sequence[str], first: int) -> list[Repair]:
    """Repairs that turn `now`, which stands at line `first`, into `right`. Later ones hold until an earlier one moves
    lines."""
    if len(now) == len(right):
        wrong = [i for i, (a, b) in enumerate(zip(now, right, strict=True)) if a != b]
        if len(wrong) <= MOST_IN_PLACE:
            return [Repair(path, first + i, now[i], right[i], "replace") for i in wrong]
    found = []
    for tag, i1, i2, j1, j2 in difflib.SequenceMatcher(None, now, right, autojunk=False).get_opcodes():
        new = list(right[j1:j2])
        if tag == "replace":
            # One line a turn: the first takes what is too much, so that the rest pairs up.
            count = max(1, len(new) - (i2 - i1) + 1)
            found.append(Repair(path, first + i1, now[i1], "\n".join(new[:count]), "replace"))
        elif tag == "delete":
            found.append(Repair(path, first + i1, now[i1], "", "delete"))
        elif tag == "insert" and i1 < len(now):
            found.append(Repair(path, first + i1, now[i1], "\n".join([*new, now[i1]]), "before"))
        elif tag == "insert":
            found.append(Repair(path, first + i1 - 1, now[i1 - 1], "\n".join([now[i1 - 1], *new]), "after"))
    return found
