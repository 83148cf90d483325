"""The two ways to shorten a message: cut its middle, or leave a stub."""

from __future__ import annotations

import re
from typing import Any

from leyline.directives import Message
from leyline.directives.content import content_text, is_text, other_parts
from leyline.policies.errors import PolicyError

_REMOVED = " characters removed ...]\n"
_MARKER = re.compile(r"\n\[\.\.\. (\d{1,18}) characters removed \.\.\.\]\n")


def truncate(message: Message, max_chars: int = 200) -> Message:
    """Keep the first and last `max_chars // 2` characters of a message and say how many were removed.

    A content of at most `max_chars` characters is returned unchanged, and so is one that would not get shorter. The
    text parts of a list content count together, as `content_text` joins them; where they are cut, one part takes the
    place of the first, and images stay. Cutting what was already cut gives what one cut to the smaller size gives, so
    the result does not depend on how often it is done. Raises PolicyError for a `max_chars` that is no whole number of
    at least 0.
    """
    if type(max_chars) is not int or max_chars < 0:
        raise PolicyError(f"truncate: max_chars must be a whole number of at least 0, got {max_chars!r}")
    content: Any = message.get("content")
    text = content_text(message)
    shorter = cut(text, max_chars)
    if shorter == text:
        return message
    if not isinstance(content, list):
        return {**message, "content": shorter}
    first = next(k for k, part in enumerate(content) if is_text(part))
    behind = [part for part in content[first + 1 :] if not is_text(part)]
    part = shorter if isinstance(content[first], str) else {**content[first], "text": shorter}
    return {**message, "content": [*content[:first], part, *behind]}


def cut(text: str, max_chars: int) -> str:
    """`truncate` for a string."""
    if len(text) <= max_chars:
        return text
    half, removed, whole = max_chars // 2, 0, text
    for marker in _MARKER.finditer(text) if _REMOVED in text else ():
        kept = marker.start()
        if kept == len(text) - marker.end():
            if kept <= half:
                return text
            removed = int(marker[1])
            text = text[:kept] + text[marker.end() :]
            break
    removed += len(text) - 2 * half
    shorter = f"{text[:half]}\n[... {removed} characters removed ...]\n{text[len(text) - half :]}"
    return shorter if len(shorter) < len(whole) else whole


def stub(message: Message, note: str) -> Message:
    """The message with `note` for its content, or unchanged where that would not make it shorter.

    A content with parts that are not text is always longer.
    """
    shorter = bool(other_parts(message)) or len(note) < len(content_text(message))
    return {**message, "content": note} if shorter else message
