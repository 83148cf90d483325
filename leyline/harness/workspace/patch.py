"""Git-style patches of text files, such as `git apply` and the SWE-bench scorer take.

A patch is a text that travels in JSON, and a text cannot hold the bytes of a file that is not UTF-8 (Latin-1). Such a
file is patched as git does it with `--binary`, in ASCII.
"""

from __future__ import annotations

import base64
import difflib
import hashlib
import zlib
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
    if not (_is_utf8(old) and _is_utf8(new)):
        return "".join([*lines, *_binary(_bytes(old), _bytes(new), new_file=old is None, gone=new is None)])
    if not old and not new:  # an empty file appears or goes: git wants the index line, there are no hunks
        ids = ["0000000" if text is None else _blob(_bytes(text))[:7] for text in (old, new)]
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


def _is_utf8(text: str | None) -> bool:
    return text is None or text.isascii() or not any("\ud800" <= c <= "\udfff" for c in text)


def _bytes(text: str | None) -> bytes:
    try:
        return (text or "").encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half of an emoji, which no byte of a file was
        return (text or "").encode("utf-8", "replace")


def _binary(old: bytes, new: bytes, *, new_file: bool, gone: bool) -> list[str]:
    """What stands below the head of a binary patch: both blobs' full names, and both contents, deflated, in base 85."""
    names = ["0" * 40 if new_file else _blob(old), "0" * 40 if gone else _blob(new)]
    mode = "" if new_file or gone else " 100644"
    return [f"index {names[0]}..{names[1]}{mode}\n", "GIT binary patch\n", *_literal(new), *_literal(old)]


def _literal(data: bytes) -> list[str]:
    """One content. A line holds up to 52 bytes, and says how many: A to Z for 1 to 26, a to z for 27 to 52."""
    packed = zlib.compress(data)
    lines = [f"literal {len(data)}\n"]
    for start in range(0, len(packed), 52):
        piece = packed[start : start + 52]
        size = chr(ord("A") + len(piece) - 1) if len(piece) <= 26 else chr(ord("a") + len(piece) - 27)
        lines.append(size + base64.b85encode(piece + b"\0" * (-len(piece) % 4)).decode() + "\n")
    return [*lines, "\n"]


def _blob(data: bytes) -> str:
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
