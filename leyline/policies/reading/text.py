"""The text of a message, and the two ways to shorten it: cut its middle, or leave a stub."""

from __future__ import annotations

import re
from typing import Any

from leyline.directives import Message
from leyline.policies.errors import PolicyError

_MARKER = re.compile(r"\n\[\.\.\. (\d{1,18}) characters removed \.\.\.\]\n")


def content_text(message: Message) -> str:
    """The content as one string; the text parts of a list content are joined by line breaks."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if _is_text(part)) if isinstance(content, list) else ""


def other_parts(message: Message) -> list[Any]:
    """The parts of a list content that are not text, such as images."""
    content = message.get("content")
    return [part for part in content if not _is_text(part)] if isinstance(content, list) else []


def _is_text(part: Any) -> bool:
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def truncate(message: Message, max_chars: int = 200) -> Message:
    """Keep the first and last `max_chars // 2` characters of a message and say how many were removed.

    A content of at most `max_chars` characters is returned unchanged. The text parts of a list content count together,
    as `content_text` joins them; where they are cut, one part takes the place of the first, and images stay. Cutting
    what was already cut gives what one cut to the smaller size gives, so the result does not depend on how often it is
    done. Raises PolicyError for a `max_chars` that is no whole number of at least 0.
    """
    if type(max_chars) is not int or max_chars < 0:
        raise PolicyError(f"truncate: max_chars must be a whole number of at least 0, got {max_chars!r}")
    content: Any = message.get("content")
    text = content_text(message)
    shorter = cut(text, max_chars)
    if shorter == text:
        return message
    if isinstance(content, str):
        return {**message, "content": shorter}
    first = next(k for k, part in enumerate(content) if _is_text(part))
    behind = [part for part in content[first + 1 :] if not _is_text(part)]
    return {**message, "content": [*content[:first], {**content[first], "text": shorter}, *behind]}


def cut(text: str, max_chars: int) -> str:
    """`truncate` for a string."""
    if len(text) <= max_chars:
        return text
    half, removed = max_chars // 2, 0
    for marker in _MARKER.finditer(text):
        kept = marker.start()
        if kept == len(text) - marker.end():
            if kept <= half:
                return text
            removed = int(marker[1])
            text = text[:kept] + text[marker.end() :]
            break
    removed += len(text) - 2 * half
    return f"{text[:half]}\n[... {removed} characters removed ...]\n{text[len(text) - half :]}"


def stub(message: Message, note: str) -> Message:
    """The message with `note` for its content, or unchanged where that would not make it shorter.

    A content with parts that are not text is always longer.
    """
    shorter = bool(other_parts(message)) or len(note) < len(content_text(message))
    return {**message, "content": note} if shorter else message
