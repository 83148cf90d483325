"""Chat completions: the dialect that policies read. Cache marks are taken off; the older function calls are read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leyline.dialects.base import DialectError, Item, Placed, Reading, Written, items_of, place
from leyline.dialects.plain import MARKS, as_message, marks_of, without_marks
from leyline.directives import JsonObject, Message
from leyline.directives.clone import clone

_ELSEWHERE = {"tool_use": "messages", "tool_result": "messages", "input_text": "responses", "output_text": "responses"}


class ChatReading(Reading):
    """`messages` of a chat completion."""

    field_name = "messages"

    def __init__(self, items: Sequence[Item], messages: list[Message], history: list[Message]) -> None:
        super().__init__(items, history)
        self._messages = messages  # as given, with their marks

    def write(self, edited: Sequence[Placed]) -> Written:
        items: list[Item] = []
        origins = [placed.index for placed in edited]
        for index, placed in zip(origins, edited, strict=True):
            if index is None:
                items.append(clone(placed.message))
            elif placed.message is self.history[index]:
                items.append(self.items[index])
            else:
                items.append(_write(placed.message, self.history[index], self._messages[index]))
        return Written(items, origins)


def read_chat(body: Mapping[str, object]) -> ChatReading:
    """Read `body["messages"]`. Raises DialectError, which names the message or the part that cannot be read."""
    items = items_of(body, "messages")
    messages: list[Message] = []
    history: list[Message] = []
    asked = 0
    for index, item in enumerate(items):
        message = as_message(item)
        role = message.get("role") if message is not None else None
        if message is None or not isinstance(role, str):
            what = f"a {type(item).__name__}" if message is None else "without a role"
            raise DialectError(f"{place('messages', index)} is {what}; give a dict with role and content")
        messages.append(message)
        read = _unmarked(message, index)
        if "function_call" in read and isinstance(read["function_call"], Mapping):
            asked += 1
            read = _calls(read, asked)
        elif role == "function":
            read = {**read, "role": "tool", "tool_call_id": f"function_{asked}"}
        history.append(read)
    return ChatReading(items, messages, history)


def _unmarked(message: Message, index: int) -> Message:
    """The message without marks; the very same where it has none."""
    content = message.get("content")
    if isinstance(content, list):
        marked = False
        for k, part in enumerate(content):
            if not isinstance(part, dict):
                raise DialectError(f"{place('messages', index, k)} is a {type(part).__name__}; give a part as a dict")
            kind = part.get("type")
            if isinstance(kind, str) and kind in _ELSEWHERE:
                raise DialectError(
                    f"{place('messages', index, k)} is a {kind} of the {_ELSEWHERE[kind]} dialect, not of chat "
                    f"completions; send it to that API, or give dialect={_ELSEWHERE[kind]!r}"
                )
            marked = marked or not MARKS.isdisjoint(part)
        if marked:
            message = {**message, "content": [without_marks(part) for part in content]}
    return message if MARKS.isdisjoint(message) else without_marks(message)


def _calls(message: Message, number: int) -> Message:
    """A message of the older API as one with a tool call, which the next function message answers."""
    rest = {key: value for key, value in message.items() if key != "function_call"}
    return {**rest, "tool_calls": [_named(message["function_call"], number)]}


def _named(function: object, number: int) -> JsonObject:
    return {"id": f"function_{number}", "type": "function", "function": function}


def _write(new: Message, read: Message, given: Message) -> Message:
    """A message with an edit, in the form of the one that was given."""
    made: Message = clone(new)
    if given["role"] == "function":
        made = {**{key: value for key, value in made.items() if key != "tool_call_id"}, "role": "function"}
    elif isinstance(given.get("function_call"), Mapping):
        calls = made.pop("tool_calls", None)
        if calls:
            made["function_call"] = calls[0]["function"]
    return _marked(made, given)


def _marked(made: Message, given: Message) -> Message:
    """Marks stay where they were: at the message, or at the last part of its content."""
    content = given.get("content")
    if type(content) is str and MARKS.isdisjoint(given):
        return made
    marks = next((m for p in reversed(content) if (m := marks_of(p))), {}) if isinstance(content, list) else {}
    parts = made.get("content")
    if marks and isinstance(parts, str) and parts:
        made["content"] = [{"type": "text", "text": parts, **marks}]
    elif marks and isinstance(parts, list) and parts:
        made["content"] = [*parts[:-1], {**parts[-1], **marks}]
    return {**made, **marks_of(given)}
