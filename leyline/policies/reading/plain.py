"""Whether a history is in the form that policies read; the name of the form that it is in, where it is not.

A policy that does not know a form finds no outputs in it, edits nothing and says nothing. So a foreign history is
refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from leyline.directives import JsonMapping
from leyline.directives.content import is_thinking
from leyline.policies.reading.history import History

_FIX = "give chat messages: role, content, and tool_calls or tool_call_id"
_ANTHROPIC = "Anthropic's Messages API"
_BEDROCK = "Bedrock's Converse API"
_GEMINI = "Gemini's API"
# Blocks of tools that run at the server are not among these: their results are parts of an answer.
_FOREIGN_PARTS = {
    "tool_use": _ANTHROPIC,
    "tool_result": _ANTHROPIC,
    "tool-call": "the AI SDK",
    "tool-result": "the AI SDK",
    "tool_call": "another API",
    "function_call": "OpenAI's Responses API",
    "function_call_output": "OpenAI's Responses API",
}
_FOREIGN_KEYS = {
    "toolUse": _BEDROCK,
    "toolResult": _BEDROCK,
    "functionCall": _GEMINI,
    "functionResponse": _GEMINI,
    "function_call": _GEMINI,
    "function_response": _GEMINI,
}


def foreign(messages: Sequence[Any]) -> str | None:
    """What in a history policies cannot read, and what to do, in one line; None for a plain history."""
    if type(messages) is History:
        found = messages.each(_foreign)
        return next((f"message {index} {what}" for index, what in enumerate(found) if what is not None), None)
    for index, message in enumerate(messages):
        what = _foreign(message)
        if what is not None:
            return f"message {index} {what}"
    return None


def _foreign(message: Any) -> str | None:
    if type(message) is not dict and not isinstance(message, Mapping):
        return f"is a {type(message).__name__}; {_FIX}"
    if "content" not in message and isinstance(message.get("parts"), list):
        return f"is in the form of {_GEMINI} (parts); {_FIX}"
    if not isinstance(message.get("role"), str):
        return _without_role(message)
    content = message.get("content")
    for place, part in enumerate(content) if isinstance(content, list) else ():
        form = _form_of(part)
        if form is not None:
            return f"is in the form of {form}; {_FIX}"
        if not isinstance(part, (str, Mapping)):
            return f"has a {type(part).__name__} as content part {place}; {_FIX}"
    made = message.get("tool_calls")
    if made is not None and not isinstance(made, (list, tuple)):
        return f'has tool_calls that are a {type(made).__name__}; give a list of {{"id", "function"}}'
    for place, call in enumerate(made or ()):
        if type(call) is not dict and not isinstance(call, Mapping):
            return f'has a {type(call).__name__} as tool call {place}; give {{"id", "function"}}'
    return None


def _without_role(message: JsonMapping) -> str:
    kind = message.get("type")
    if isinstance(kind, str) and (kind in ("message", "reasoning") or kind.endswith(("_call", "_call_output"))):
        return f"is an item of OpenAI's Responses API ({kind}); {_FIX}"
    if "from" in message and "value" in message:
        return f"is in the form of ShareGPT (from, value); {_FIX}"
    if isinstance(kind, str):
        return f"has no role, and the type {kind!r}; {_FIX}"
    return f"has no role; {_FIX}"


def _form_of(part: Any) -> str | None:
    if not isinstance(part, Mapping) or is_thinking(part):
        return None
    kind = part.get("type")
    if isinstance(kind, str):
        return f"{_FOREIGN_PARTS[kind]} ({kind})" if kind in _FOREIGN_PARTS else None
    key = next((key for key in _FOREIGN_KEYS if key in part), None)
    return None if key is None else f"{_FOREIGN_KEYS[key]} ({key})"
