"""An edit as a diff that a person can read: what goes, what comes, and how much of it is not shown."""

from __future__ import annotations

from difflib import SequenceMatcher

from leyline.directives.content import message_text
from leyline.directives.counts import count
from leyline.evals.replay.dryrun import ShownEdit

WIDTH = 110


def heading(shown: ShownEdit) -> str:
    """`message 3 (tool): 4,120 -> 231 characters, amortize`."""
    edit, before = shown.edit, shown.before
    role = (before or edit.replacement or {}).get("role", "?")
    old, new = len(message_text(before)), len(message_text(edit.replacement))
    if edit.insert:
        what = f"inserted, {count(new, 'character')}"
    elif edit.replacement is None:
        what = f"dropped, {count(old, 'character')}"
    else:
        what = f"{old:,} -> {count(new, 'character')}"
    return f"message {edit.message_index} ({role}): {what}, {edit.mode.value}"


def diff_lines(shown: ShownEdit, limit: int) -> list[str]:
    """At most `limit` lines that start with `-`, `+` or a space; what is left out is counted in the last line."""
    old, new = message_text(shown.before).splitlines(), message_text(shown.edit.replacement).splitlines()
    blocks: list[tuple[str, list[str]]] = []
    for tag, a, b, c, d in SequenceMatcher(None, old, new, autojunk=False).get_opcodes():
        if tag == "equal":
            continue
        blocks += [(sign, part) for sign, part in (("-", old[a:b]), ("+", new[c:d])) if part]
    if not blocks or limit < 1:
        return []
    each = max(1, limit // len(blocks))
    lines: list[str] = []
    for sign, part in blocks:
        shown_part = part if len(part) <= each else part[: max(1, each - 1)]
        lines += [f"{sign} {_cut(line)}" for line in shown_part]
        if len(part) > len(shown_part):
            lines[-1] += f"   (and {count(len(part) - len(shown_part), 'more line')})"
    hidden = len(lines) - limit
    return lines if hidden <= 0 else [*lines[:limit], f"  ({count(hidden, 'more change')})"]


def _cut(line: str) -> str:
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."
