"""What a message says, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from leyline.directives.messages import Message


def content_text(message: Message) -> str:
    """The content as one string; the text parts of a list content are joined by line breaks."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if is_text(part)) if isinstance(content, list) else ""


def other_parts(message: Message) -> list[Any]:
    """The parts of a list content that are not text, such as images."""
    content = message.get("content")
    return [part for part in content if not is_text(part)] if isinstance(content, list) else []


def is_text(part: Any) -> bool:
    """Whether a part of a list content is text."""
    return isinstance(part, Mapping) and isinstance(part.get("text"), str)


def message_text(message: Message | None) -> str:
    """A message for people: its content, `[image_url]` for a part that is no text, `name(arguments)` for each call."""
    if message is None:
        return ""
    kinds = [part.get("type") if isinstance(part, Mapping) else type(part).__name__ for part in other_parts(message)]
    lines = [content_text(message), *(f"[{kind or 'part'}]" for kind in kinds)]
    for call in message.get("tool_calls") or ():
        function = (call.get("function") if isinstance(call, Mapping) else None) or {}
        lines.append(f"{function.get('name', '?')}({function.get('arguments', '')})")
    return "\n".join(line for line in lines if line)
