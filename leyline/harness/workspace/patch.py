"""Git-style unified patches of text files, such as `git apply` and the SWE-bench scorer take."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Mapping

NO_NEWLINE = "\\ No newline at end of file"


def unified_patch(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """The patch that turns the files `before` into `after`, by path; empty when nothing changed.

    Lines end at "\\n" only, so a carriage return is part of its line and survives.
    """
    changed = [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
    return "".join(_file_patch(path, before.get(path), after.get(path)) for path in changed)


def _file_patch(path: str, old: str | None, new: str | None) -> str:
    lines = [f"diff --git {_name('a/' + path)} {_name('b/' + path)}\n"]
    if old is None:
        lines.append("new file mode 100644\n")
    elif new is None:
        lines.append("deleted file mode 100644\n")
    if not old and not new:  # an empty file appears or goes: git wants the index line, there are no hunks
        ids = ["0000000" if text is None else _blob(text)[:7] for text in (old, new)]
        return "".join([*lines, f"index {ids[0]}..{ids[1]}\n"])
    source = "/dev/null" if old is None else _header(_name(f"a/{path}"))
    target = "/dev/null" if new is None else _header(_name(f"b/{path}"))
    hunks = difflib.unified_diff(_lines(old or ""), _lines(new or ""), source, target)
    for line in hunks:
        lines.append(line if line.endswith("\n") else f"{line}\n{NO_NEWLINE}\n")
    return "".join(lines)


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    last = lines.pop()
    return [line + "\n" for line in lines] + ([last] if last else [])


def _blob(text: str) -> str:
    data = text.encode("utf-8", "surrogateescape")
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def _header(name: str) -> str:
    return name + "\t" if " " in name else name  # as git does: a tab ends a name that holds a space


def _name(name: str) -> str:
    """`name` as git writes it: quoted, with octal escapes, when it holds anything out of the ordinary."""
    if all(32 <= ord(c) < 127 and c not in '"\\' for c in name):
        return name
    escaped = "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:03o}"
        for byte in name.encode("utf-8", "surrogateescape")
    )
    return f'"{escaped}"'
