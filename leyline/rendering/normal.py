"""Messages as chat templates expect them, whatever form a client gave them.

Templates are programs of many hands: some ask whether a content is none, some search it for a tag, some add the
arguments of a call to a string and some walk over them. The values here answer each of these as the value would that
the template's author had in mind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from leyline.directives import JsonMapping, JsonObject, Message
from leyline.directives.content import is_text, is_thinking
from leyline.rendering.errors import RenderingError


class NullText(str):
    """A content of null: an empty text, as OpenAI-compatible servers make of it, that is also `none` to a template.

    Some templates print a message of calls alone only where its content is none (DeepSeek V3); others search every
    content for a tag (Qwen3), or would print `None` (GLM).
    """

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return other is None or str.__eq__(self, other) is True

    def __ne__(self, other: object) -> bool:
        return not self == other

    __hash__ = str.__hash__


NULL = NullText()


class RawArguments(dict[str, Any]):
    """The arguments of a tool call that also know the JSON text they came from.

    Templates get a mapping, as most expect; printed, added to a string or put through `tojson` it is the text exactly
    as the model generated it.
    """

    def __init__(self, value: JsonMapping, raw: str) -> None:
        super().__init__(value)
        self.raw = raw

    def __str__(self) -> str:
        return self.raw

    def __add__(self, other: object) -> str:
        return self.raw + other if isinstance(other, str) else NotImplemented

    def __radd__(self, other: object) -> str:
        return other + self.raw if isinstance(other, str) else NotImplemented


class Parts(list[Any]):
    """A content of parts of which some are no text. Templates that know parts walk over it; it cannot be printed.

    read: whether a template has walked over it. thought: whether all parts are text or thinking.
    """

    def __init__(self, parts: Sequence[Any]) -> None:
        super().__init__(parts)
        self.read = False
        self.thought = all(is_text(part) or is_thinking(part) for part in parts)

    def __iter__(self) -> Any:
        self.read = True
        return super().__iter__()

    def __getitem__(self, index: Any) -> Any:
        self.read = True
        return super().__getitem__(index)

    def __str__(self) -> str:
        raise RenderingError(
            f"the chat template prints a content of parts ({', '.join(sorted(self.kinds()))}) as it is; give text"
        )

    __repr__ = __str__

    def lost(self, text: str) -> bool:
        """Whether a template left them out of `text`, all of them or a part that is text."""
        said = (_text(part).strip() for part in list.__iter__(self) if is_text(part))
        return not self.read or any(piece not in text for piece in said)

    def kinds(self) -> set[str]:
        """The types of the parts that are no text."""
        parts = list.__iter__(self)
        return {str(p.get("type") if isinstance(p, Mapping) else type(p).__name__) for p in parts if not is_text(p)}

    def flattened(self, message: Message) -> Message:
        """The message with what was said as its content, and what was thought as `reasoning_content`."""
        parts = list(list.__iter__(self))
        said = "".join(_text(part) for part in parts if is_text(part))
        thought = "".join(_thought(part) for part in parts if is_thinking(part))
        return {**message, "content": said, **({"reasoning_content": thought} if thought else {}), **_given(message)}


def normalise(message: Message) -> Message:
    """A message as templates expect it.

    A content of null, or none, is an empty text; text parts are joined; the arguments of calls are a mapping that
    prints as JSON. Fields of null say nothing and are left out.
    """
    changed = {key: value for key, value in message.items() if value is not None}
    content = message.get("content")
    if content is None:
        changed["content"] = NULL
    elif isinstance(content, (list, tuple)):
        changed["content"] = "".join(map(_text, content)) if all(map(is_text, content)) else Parts(content)
    calls = message.get("tool_calls")
    if isinstance(calls, (list, tuple)):
        changed["tool_calls"] = [_call(call) for call in calls]
    if not changed.get("tool_calls"):
        changed.pop("tool_calls", None)
    return changed


def normalised(messages: Sequence[Message]) -> list[Message]:
    """`normalise` for a conversation. Raises RenderingError for a content that is neither text, null nor a list."""
    for index, message in enumerate(messages):
        content = message.get("content")
        if not isinstance(content, (str, list, tuple, type(None))):
            raise RenderingError(
                f"message {index} has a content of type {type(content).__name__}; give text or a list of parts"
            )
    return [normalise(message) for message in messages]


def _text(part: Any) -> str:
    return part if isinstance(part, str) else str(part["text"])


def _thought(part: JsonMapping) -> str:
    """The text of a thinking part: `thinking` is text, or a list of parts (Mistral)."""
    inner = part.get("thinking", part.get("text", part.get("reasoning", "")))
    if isinstance(inner, list):
        return "".join(_text(piece) for piece in inner if is_text(piece))
    return inner if isinstance(inner, str) else ""


def _given(message: Message) -> JsonObject:
    """What the message itself says that was thought."""
    found = message.get("reasoning_content")
    return {"reasoning_content": found} if isinstance(found, str) and found else {}


def _call(call: Any) -> Any:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping):
        return call
    given = function.get("arguments")
    if isinstance(given, Mapping):
        arguments, raw = dict(given), json.dumps(given, ensure_ascii=False, default=str)
    elif given is None or (isinstance(given, str) and given.strip() in ("", "null")):
        arguments, raw = {}, "{}"
    elif isinstance(given, str):
        try:
            arguments, raw = json.loads(given), given
        except (ValueError, RecursionError):
            return call
    else:
        return call
    if not isinstance(arguments, dict):
        return call
    return {**call, "function": {**function, "arguments": RawArguments(arguments, raw)}}
