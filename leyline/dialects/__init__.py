"""Dialects: the histories of chat completions, Responses and Anthropic messages, as policies read them, and back.

`read(body, "messages")` gives a `Reading`: `history` is what a policy sees, `write` puts an edited history back into
the dialect. Where nothing is edited, every element is the very object that was given. What cannot be read is refused
with a `DialectError` that names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from leyline.dialects.base import DialectError, Item, Placed, Reading, Written
from leyline.dialects.chat import read_chat
from leyline.dialects.messages import read_messages
from leyline.dialects.plain import as_message
from leyline.dialects.responses import read_responses

__all__ = ["DIALECTS", "Dialect", "DialectError", "Item", "Placed", "Reading", "Written", "detect", "read"]

Dialect = Literal["chat", "responses", "messages"]
DIALECTS: tuple[Dialect, ...] = ("chat", "responses", "messages")
_READERS = {"chat": read_chat, "responses": read_responses, "messages": read_messages}
_BLOCKS = frozenset({"tool_use", "tool_result", "thinking", "redacted_thinking", "server_tool_use"})


def read(body: Mapping[str, object], dialect: Dialect) -> Reading:
    """Read the history of a request. Raises DialectError."""
    reader = _READERS.get(dialect)
    if reader is None:
        raise DialectError(f"dialect {dialect!r} is not known; use 'chat', 'responses' or 'messages'")
    return reader(body)


def detect(body: Mapping[str, object]) -> Dialect:
    """The dialect of a request, or of a bare history in `messages`. Text that is the same in all of them is chat."""
    if "input" in body:
        return "responses"
    items = body.get("messages")
    if not isinstance(items, Sequence) or isinstance(items, (str, bytes)):
        return "chat"
    if "system" in body:
        return "messages"
    found: Dialect = "chat"
    for item in items:
        message = as_message(item) or {}
        if "role" not in message and isinstance(message.get("type"), str):
            return "responses"
        if message.get("role") == "tool" or message.get("tool_calls"):
            return "chat"
        content = message.get("content")
        parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
        kinds = {str(part.get("type")) for part in parts}
        if kinds & {"input_text", "output_text"}:
            return "responses"
        if kinds & _BLOCKS:
            found = "messages"
    return found
