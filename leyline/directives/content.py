"""What a message says, as text."""

from __future__ import annotations

import json
from collections.abc import Mapping

from leyline.directives.messages import Message

THINKING_PARTS = frozenset({"thinking", "redacted_thinking", "reasoning", "reasoning_text", "summary_text"})
"""Types of content parts that hold what a model thought, which is no part of what it said."""

THOUGHTS = ("thinking_blocks", "reasoning_details", "reasoning_items")
"""Fields of a message that hold a list of pieces of thinking, beside its content."""
_SIGNED = ("signature", "thought_signature", "encrypted_content", "data")


def content_text(message: Message) -> str:
    """The content as one string.

    The text parts of a list content are joined by line breaks. A content that is neither text nor a list, such as a
    tool's result as an object, counts as the JSON that a server makes of it.
    """
    content = message.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(part if isinstance(part, str) else part["text"] for part in content if is_text(part))
    return "" if content is None else json.dumps(content, ensure_ascii=False, default=str)


def other_parts(message: Message) -> list[object]:
    """The parts of a list content that are neither text nor thinking, such as images."""
    content = message.get("content")
    return [p for p in content if not is_text(p) and not is_thinking(p)] if isinstance(content, list) else []


def is_thinking(part: object) -> bool:
    """Whether a content part holds what a model thought."""
    kind = part.get("type") if isinstance(part, Mapping) else None
    return isinstance(kind, str) and kind in THINKING_PARTS


def is_signed(piece: object) -> bool:
    """Whether a piece of thinking carries a signature, by which its API knows it again: it cannot be changed."""
    return isinstance(piece, Mapping) and _is_thought(piece) and any(piece.get(key) for key in _SIGNED)


def _is_thought(piece: Mapping[str, object]) -> bool:
    return is_thinking(piece) or str(piece.get("type", "")).startswith("reasoning.")


def is_text(part: object) -> bool:
    """Whether a part of a list content is text that was said."""
    if isinstance(part, str):
        return True
    return isinstance(part, Mapping) and isinstance(part.get("text"), str) and not is_thinking(part)


def message_text(message: Message | None) -> str:
    """A message for people: its content, `[image_url]` for a part that is no text, `name(arguments)` for each call."""
    if message is None:
        return ""
    content = message.get("content")
    others = [part for part in content if not is_text(part)] if isinstance(content, list) else []
    kinds = [part.get("type") if isinstance(part, Mapping) else type(part).__name__ for part in others]
    lines = [content_text(message), *(f"[{kind or 'part'}]" for kind in kinds)]
    for call in message.get("tool_calls") or ():
        function = (call.get("function") if isinstance(call, Mapping) else None) or {}
        lines.append(f"{function.get('name', '?')}({function.get('arguments', '')})")
    return "\n".join(line for line in lines if line)
