"""Bugs: single-line changes to a correct unit, each with the kind it is counted under."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from leyline.suites.micro.units import Unit

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
LOGIC = {
    " and ": (" or ",),
    " or ": (" and ",),
    "True": ("False",),
    "False": ("True",),
    " not in ": (" in ",),
    " in ": (" not in ",),
    "if not ": ("if ",),
    "is None": ("is not None",),
    "is not None": ("is None",),
    "any(": ("all(",),
    "all(": ("any(",),
}
BOUNDS = {
    "[0]": ("[-1]", "[1]"),
    "[-1]": ("[0]",),
    "[:-1]": ("[:]",),
    "[1:]": ("[2:]",),
    "[::-1]": ("[::2]", "[1:]"),
    "[::2]": ("[1::2]", "[:2]"),
    "[1::2]": ("[::2]",),
    ".pop()": (".pop(0)",),
    ".pop(0)": (".pop()",),
    "range(len(": ("range(1, len(",),
}
CALLS = {
    "min(": ("max(",),
    "max(": ("min(",),
    "abs(": ("(",),
    "len(": ("sum(",),
    "sum(": ("len(", "max("),
    "sorted(": ("list(",),
    "reverse=True": ("reverse=False",),
    "key=len": ("key=str",),
    ".upper()": (".lower()",),
    ".lower()": (".upper()",),
    ".capitalize()": (".upper()",),
    ".isupper()": (".islower()",),
    ".islower()": (".isupper()",),
    ".startswith(": (".endswith(",),
    ".endswith(": (".startswith(",),
    ".append(": (".insert(0, ",),
    ".add(": (".discard(",),
    ".get(": (".pop(",),
    ".values()": (".keys()",),
    ".split()": (".split(',')",),
}
FLOW = {"break": ("continue",), "continue": ("break",), "elif ": ("if ",)}
DEFAULTS = {"None": ("0",), "{}": ("[]",)}
WORDS = {
    "'yes'": ("'no'",),
    "'no'": ("'yes'",),
    "'low'": ("'mid'",),
    "'mid'": ("'high'",),
    "'big'": ("'small'",),
    "'small'": ("'big'",),
}
ALIASES = (("list(", "("), ("dict(", "("), ("[:]", ""), ("set(", "list("))
_TABLES = (
    ("comparison", COMPARISONS),
    ("operator", OPERATORS),
    ("logic", LOGIC),
    ("bounds", BOUNDS),
    ("call", CALLS),
    ("flow", FLOW),
    ("default", DEFAULTS),
    ("literal", WORDS),
)


def line_mutations(line: str, variables: Sequence[str], fields: Sequence[str] = ()) -> list[tuple[str, str | None]]:
    """All (kind, new line) of a line; None deletes it."""
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
    for old, new in ALIASES:
        if old in line:
            out.append(("alias", line.replace(old, new, 1)))
    for match in re.finditer(r"(?<=[ (\[])([\w.]+) ([-<>]|//|%) ([\w.]+)", line):
        swapped = f"{match.group(3)} {match.group(2)} {match.group(1)}"
        out.append(("swapped operands", line[: match.start()] + swapped + line[match.end() :]))
    for match in re.finditer(r"self\.(\w+)(?!\w*\()", line):
        out += [("attribute", line[: match.start(1)] + f + line[match.end(1) :]) for f in fields if f != match.group(1)]
    for match in re.finditer(r"(?:default=|get\(\w+, )(-?\d+)", line):
        out.append(("default", line[: match.start(1)] + str(int(match.group(1)) + 1) + line[match.end(1) :]))
    quoted = re.search(r"'([^']*)'", line)
    if quoted and quoted.group(1):
        out.append(("literal", line[: quoted.start(1)] + line[quoted.end(1) :]))
    indent = line[: len(line) - len(line.lstrip())]
    if body.startswith("return ") and len(body) > 8:
        out.append(("no return", indent + body[7:]))
    if match_ := re.search(r"\((\w+), (\w+)\)", line):
        swapped = f"({match_.group(2)}, {match_.group(1)})"
        out.append(("swapped arguments", line[: match_.start()] + swapped + line[match_.end() :]))
    if not body.endswith(":") and not body.startswith("return"):
        out.append(("missing line", None))
    return [(kind, new) for kind, new in out if new != line]


def block_mutations(lines: Sequence[str], first: int) -> list[tuple[str, tuple[str, ...]]]:
    """(kind, new lines) of changes that move lines: order, indentation, a line twice."""
    out: list[tuple[str, tuple[str, ...]]] = []
    for i in range(max(first, 2), len(lines)):
        here, body = _indent(lines[i]), lines[i].strip()
        if not body or body.startswith(("def ", "class ", '"""', "#", "else", "elif")):
            continue
        simple = not body.endswith(":")
        before = lines[i - 1]
        if simple and _indent(before) == here and not before.strip().startswith(("def ", "return", '"""')):
            out.append(("order", (*lines[: i - 1], lines[i], before, *lines[i + 1 :])))
        if simple and _indent(before) > here:
            out.append(("indentation", (*lines[:i], "    " + lines[i], *lines[i + 1 :])))
        after = _indent(lines[i + 1]) if i + 1 < len(lines) else 0
        if simple and here > 4 and after < here and _indent(before) == here:
            out.append(("indentation", (*lines[:i], lines[i][4:], *lines[i + 1 :])))
        if simple and not body.startswith(("return", "break", "continue")):
            out.append(("line twice", (*lines[: i + 1], *lines[i:])))
    return out


WEIGHTS = {
    "variable": 2.5,
    "comparison": 3,
    "operator": 3,
    "constant": 3,
    "logic": 2,
    "bounds": 2,
    "call": 3,
    "missing line": 2.5,
    "no return": 0.7,
}


def draw_bug(rng: random.Random, unit: Unit) -> tuple[str, tuple[str, ...]] | None:
    """A kind and the unit's lines with one bug of it, or None when no line can be changed.

    The kind is drawn first, so that rare kinds are not drowned by those that fit every line.
    """
    found: dict[str, list[tuple[str, ...]]] = {}
    fields = sorted(set(re.findall(r"self\.(\w+) = ", "\n".join(unit.lines))))
    for i in range(unit.first_buggable, len(unit.lines)):
        for kind, new in line_mutations(unit.lines[i], unit.variables, fields):
            middle = () if new is None else (new,)
            found.setdefault(kind, []).append((*unit.lines[:i], *middle, *unit.lines[i + 1 :]))
    for kind, changed in block_mutations(unit.lines, unit.first_buggable):
        found.setdefault(kind, []).append(changed)
    if not found:
        return None
    kinds = sorted(found)
    kind = rng.choices(kinds, [WEIGHTS.get(k, 1.5) for k in kinds])[0]
    return kind, rng.choice(found[kind])


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
