"""Bugs: single-line changes to a correct unit, each with the kind it is counted under."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from leyline.evals.suites.micro.units import Unit

COMPARISONS = {
    " < ": (" <= ", " > "),
    " <= ": (" < ", " >= "),
    " > ": (" >= ", " < "),
    " >= ": (" > ", " <= "),
    " == ": (" != ",),
    " != ": (" == ",),
}
OPERATORS = {
    " + ": (" - ", " * "),
    " - ": (" + ",),
    " * ": (" + ", " - "),
    " // ": (" % ", " * "),
    " % ": (" // ",),
    " += ": (" -= ", " = "),
    " -= ": (" += ",),
    " *= ": (" += ",),
}
TEXTS = {
    "min(": ("max(",),
    "max(": ("min(",),
    " and ": (" or ",),
    " or ": (" and ",),
    "True": ("False",),
    "False": ("True",),
    " not in ": (" in ",),
    "if not ": ("if ",),
    ".upper()": (".lower()",),
    ".lower()": (".upper()",),
    ".append(": (".insert(0, ",),
    "'yes'": ("'no'",),
    "'no'": ("'yes'",),
    "'low'": ("'mid'",),
    "'mid'": ("'high'",),
    "'big'": ("'small'",),
    "'small'": ("'big'",),
    "[::-1]": ("[::2]", "[1:]"),
    ".pop()": (".pop(0)",),
    ".pop(0)": (".pop()",),
    "reverse=True": ("reverse=False",),
    "break": ("continue",),
    "sorted(": ("list(",),
    "[1:]": ("[2:]",),
    "None": ("0",),
    ".values()": (".keys()",),
}
_TABLES = (("comparison", COMPARISONS), ("operator", OPERATORS), ("text", TEXTS))


def line_mutations(line: str, variables: Sequence[str]) -> list[tuple[str, str | None]]:
    """All (kind, new line) of a line; None deletes it (listed three times: deletions are drawn more often)."""
    body = line.strip()
    if not body or body.startswith(("def ", "class ", '"""', "#", "@")):
        return []
    out: list[tuple[str, str | None]] = []
    for kind, table in _TABLES:
        for old, replacements in table.items():
            for match in re.finditer(re.escape(old), line):
                out += [(kind, line[: match.start()] + new + line[match.end() :]) for new in replacements]
    for match in re.finditer(r"(?<![\w'.])\d+(?![\w'.])", line):
        number = int(match.group())
        for delta in (1, -1) if number > 0 else (1,):
            out.append(("constant", line[: match.start()] + str(number + delta) + line[match.end() :]))
    for name in variables:
        for match in re.finditer(rf"(?<![\w'.]){re.escape(name)}(?![\w'])", line):
            out += [("variable", line[: match.start()] + v + line[match.end() :]) for v in variables if v != name]
    indent = line[: len(line) - len(line.lstrip())]
    if body.startswith("return ") and len(body) > 8:
        out.append(("no return", indent + body[7:]))
    if match_ := re.search(r"\((\w+), (\w+)\)", line):
        swapped = f"({match_.group(2)}, {match_.group(1)})"
        out.append(("swapped arguments", line[: match_.start()] + swapped + line[match_.end() :]))
    if not body.endswith(":") and not body.startswith("return"):
        out += [("missing line", None)] * 3
    return [(kind, new) for kind, new in out if new != line]


def draw_bug(rng: random.Random, unit: Unit) -> tuple[str, tuple[str, ...]] | None:
    """A kind and the unit's lines with one bug of it, or None when no line can be changed."""
    candidates = {i: found for i, line in enumerate(unit.lines) if (found := line_mutations(line, unit.variables))}
    if not candidates:
        return None
    index = rng.choice(list(candidates))
    kind = rng.choice(sorted({k for k, _ in candidates[index]}))
    new = rng.choice([n for k, n in candidates[index] if k == kind])
    middle = () if new is None else (new,)
    return kind, (*unit.lines[:index], *middle, *unit.lines[index + 1 :])
