"""Messages as a server's chat route hands them to its template, which is not always how a client sent them.

SGLang parses the arguments of calls and prints them again, so that compact JSON gets its spaces; it gives null content
as an empty text, joins text parts with a space for a template that wants text, and leaves out fields that are null.
Directives count in the tokens that come of that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from leyline.directives import JsonMapping, Message, Rendered
from leyline.rendering.renderer import TokenRenderer

_TEXT = ("text", "input_text")
_MEDIA = re.compile("image|audio|video|vision")
_CONTENT = r"""(?:message|msg|m)(?:\.content|\[\s*['"]content['"]\s*\])"""
_LOOP = re.compile(rf"\bfor\s[^%]*?\bin\s+{_CONTENT}(?:\s*\[[^\]]*:[^\]]*\])?\s*(?:\||if\b|recursive\b|-?%\}})")


class ServedRenderer:
    """Renders a history as the chat route of a server does, with the template and tokenizer of `inner`."""

    def __init__(self, inner: TokenRenderer) -> None:
        self._inner, self._parts = inner, bool(getattr(inner, "takes_parts", False))

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[JsonMapping] | None = None,
        pinned: Mapping[int, Sequence[int]] | None = None,
    ) -> Rendered:
        """The tokens of a conversation and the generation prompt."""
        return self._inner.render(as_served(messages, parts=self._parts), tools, pinned)


def as_served(messages: Sequence[Message], *, parts: bool = False) -> list[Message]:
    """The messages as a template of the server sees them. parts: whether it takes content in parts."""
    return [_served(message, parts) for message in messages]


def takes_parts(template: str) -> bool:
    """Whether a server gives a template content in parts: one that walks over them, or that knows media."""
    return bool(_MEDIA.search(template) or _LOOP.search(template))


def _served(message: Message, parts: bool) -> Message:
    changed = {name: value for name, value in message.items() if value is not None}
    content = message.get("content")
    if content is None:
        changed["content"] = ""
    elif isinstance(content, list) and not parts:
        texts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") in _TEXT]
        changed["content"] = " ".join(text for text in texts if isinstance(text, str))
    calls = message.get("tool_calls")
    if message.get("role") == "assistant" and isinstance(calls, list):
        changed["tool_calls"] = [_call(call) for call in calls]
    return changed


def _call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    arguments = function.get("arguments") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(arguments, str):
        return call
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):  # the server refuses it, or leaves it as it is
        return call
    return {**call, "function": {**function, "arguments": parsed}} if isinstance(parsed, dict) else call
