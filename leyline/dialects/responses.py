"""Responses: input items to plain messages and back. Reasoning stays beside the answer that it belongs to.

What the model made in one go (reasoning, text, calls, its own tools) is one assistant message; each output of a call
is a tool message; `instructions` is the system message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leyline.dialects import response_calls as calls
from leyline.dialects.base import DialectError, Item, Placed, Reading, Written, place
from leyline.dialects.parts import rewritten
from leyline.dialects.plain import as_message, without_marks
from leyline.directives import Message
from leyline.directives.clone import clone

# Made by the model or by the server's own tools, and read as parts of the answer.
_SERVED = frozenset(
    {
        *("web_search_call", "file_search_call", "code_interpreter_call", "image_generation_call", "mcp_call"),
        *("mcp_list_tools", "mcp_approval_request", "compaction", "tool_search_call", "tool_search_output"),
    }
)
# Said by the client beside the conversation.
_CONTROL = frozenset({"mcp_approval_response", "additional_tools", "configuration_update", "compaction_trigger"})
_ELSEWHERE = {
    "previous_response_id": "send the whole input instead (store=False and the items of each response)",
    "conversation": "send the whole input instead of a conversation that the server holds",
    "prompt": "send its text as instructions instead of a prompt that the server holds",
}


@dataclass(frozen=True)
class _Source:
    """Where a plain message came from. items: indices in the input; empty for `instructions` and for a text input."""

    items: list[int]


class ResponsesReading(Reading):
    """`instructions` and `input` of a request to the Responses API."""

    field_name = "input"

    def __init__(
        self, given: object, plain_items: list[Message], history: list[Message], sources: list[_Source], *, told: bool
    ) -> None:
        super().__init__(given if isinstance(given, (list, tuple)) else [], history)
        self._given, self._plain, self._sources, self._told = given, plain_items, sources, told

    def write(self, edited: Sequence[Placed]) -> Written:
        items: list[Item] = []
        origins: list[int | None] = []
        fields: dict[str, object] = {}
        if self._told and not any(placed.index == 0 for placed in edited):
            fields["instructions"] = None
        for placed in edited:
            if placed.index == 0 and self._told:
                if not self.kept(placed):
                    fields["instructions"] = placed.message.get("content")
                continue
            source = self._sources[placed.index] if placed.index is not None else _Source([])
            if source.items and self.kept(placed):
                items += [self.items[k] for k in source.items]
                origins += source.items
                continue
            made = self._write(placed, source)
            items += [item for _, item in made]
            origins += [k for k, _ in made]
        return Written(items, origins, fields)

    def _write(self, placed: Placed, source: _Source) -> list[tuple[int | None, Message]]:
        new, given = placed.message, [(k, self._plain[k]) for k in source.items]
        role = new.get("role")
        if not given:
            if role == "tool" or new.get("tool_calls"):
                raise DialectError(f"an edit puts in a message of role {role!r}: here only text can be put in")
            return [(None, {"role": role, "content": clone(new.get("content")) or ""})]
        index, item = given[0]
        if role == "tool":
            return [(index, calls.write_output(item, new.get("content")))]
        if role != "assistant":
            if item.get("type") in _CONTROL:
                raise DialectError(f"{place('input', index)} is a {item['type']} item, which no edit can change")
            return [(index, {**item, "content": _parts(new.get("content"), item.get("content"), "input_text")})]
        read = self.history[placed.index] if placed.index is not None else {}
        return _write_answer(new, read, given)


def read_responses(body: Mapping[str, object]) -> ResponsesReading:
    """Read `body["input"]` and `body["instructions"]`. Raises DialectError, which names what cannot be read."""
    for name, instead in _ELSEWHERE.items():
        if body.get(name) is not None:
            raise DialectError(f"{name}: the history before it stands on the server, where no edit reaches; {instead}")
    history: list[Message] = []
    sources: list[_Source] = []
    told = body.get("instructions")
    if told is not None:
        if not isinstance(told, str):
            raise DialectError(f"instructions is a {type(told).__name__}; give text")
        history.append({"role": "system", "content": told})
        sources.append(_Source([]))
    given = body.get("input")
    if isinstance(given, str):
        history.append({"role": "user", "content": given})
        sources.append(_Source([]))
    elif not isinstance(given, (list, tuple)):
        what = "missing" if "input" not in body else f"a {type(given).__name__}"
        raise DialectError(f"input is {what}; give text or a list of items")
    listed = given if isinstance(given, (list, tuple)) else []
    items = [_item(item, index) for index, item in enumerate(listed)]
    ids = calls.call_ids(items)
    answer: list[int] = []
    for index, item in enumerate(items):
        kind = item["type"]
        if kind == "reasoning" or kind in calls.CALLS or kind in _SERVED or item.get("role") == "assistant":
            answer.append(index)
            continue
        _close(answer, items, history, sources)
        if kind in calls.OUTPUTS:
            history.append(calls.read_output(item, ids))
        elif kind in _CONTROL:
            history.append({"role": "developer", "content": [item]})
        else:
            history.append({"role": item["role"], "content": _unmarked(item.get("content"), place("input", index))})
        sources.append(_Source([index]))
    _close(answer, items, history, sources)
    return ResponsesReading(given, items, history, sources, told=told is not None)


def _item(item: Item, index: int) -> Message:
    """An item with its type, which the API lets a message leave out."""
    read = as_message(item)
    if read is None:
        raise DialectError(f"{place('input', index)} is a {type(item).__name__}; give an item as a dict")
    kind = read.get("type") or ("message" if isinstance(read.get("role"), str) else "item_reference")
    if not isinstance(kind, str):
        raise DialectError(f"{place('input', index)} is an item whose type is a {type(kind).__name__}; give its name")
    known = kind in _SERVED or kind in _CONTROL or kind in calls.CALLS or kind in calls.OUTPUTS
    if kind == "message" and isinstance(read.get("role"), str):
        if read["role"] == "tool" or read.get("tool_calls"):
            raise DialectError(f"{place('input', index)} is a message of chat completions, not an item of Responses")
    elif kind == "item_reference":
        raise DialectError(f"{place('input', index)} refers to an item on the server; give the item itself")
    elif kind != "reasoning" and not known:
        raise DialectError(f"{place('input', index)} is an item of type {kind!r}, which the Responses dialect lacks")
    calls.check(read, kind, place("input", index))
    if kind in ("message", "reasoning"):
        _check_parts(read, place("input", index))
    return read if read.get("type") == kind else {**read, "type": kind}


def _check_parts(item: Message, where: str) -> None:
    """Raise DialectError where a content or a summary is neither text nor a list of parts."""
    for name in ("content", "summary"):
        given = item.get(name)
        fine = given is None or (isinstance(given, list) and all(isinstance(part, dict) for part in given))
        if not fine and not (isinstance(given, str) and item.get("type") != "reasoning"):
            raise DialectError(f"the {name} of {where} is no text and no list of parts")


def _close(answer: list[int], items: Sequence[Message], history: list[Message], sources: list[_Source]) -> None:
    """What the model made in one go becomes one message."""
    if not answer:
        return
    made = [items[k] for k in answer]
    content = _answer_content(made)
    message: Message = {"role": "assistant", "content": content}
    thinking = [text for item in made if item["type"] == "reasoning" for text in _thoughts(item)]
    if thinking:
        message["reasoning_content"] = "\n".join(thinking)
    asked = [calls.read_call(item) for item in made if item["type"] in calls.CALLS]
    if asked:
        message["tool_calls"] = asked
    history.append(message)
    sources.append(_Source(list(answer)))
    answer.clear()


def _thoughts(item: Message) -> list[str]:
    parts = [*(item.get("summary") or ()), *(item.get("content") or ())]
    return [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]


def _answer_content(made: Sequence[Message]) -> Any:
    """Text where the answer is one message with text, else the parts of its messages and its server's tools."""
    said = [item for item in made if item["type"] == "message" or item["type"] in _SERVED]
    if len(said) == 1 and isinstance(said[0].get("content"), str) and said[0]["type"] == "message":
        return said[0]["content"]
    parts: list[dict[str, object]] = []
    for item in said:
        parts += [without_marks(part) for part in _own_parts(item)]
    return parts or None


def _own_parts(item: Message) -> list[dict[str, object]]:
    """The parts that an item of an answer adds to its content."""
    if item["type"] in _SERVED:
        return [item]
    content = item.get("content")
    if isinstance(content, str):
        return [{"type": "output_text", "text": content}]
    return [part for part in content or () if isinstance(part, dict)]


def _write_answer(new: Message, read: Message, given: list[tuple[int, Message]]) -> list[tuple[int | None, Message]]:
    """The items of an answer with an edit. Reasoning that an edit changed goes, and with it the ids that bind to it."""
    thinks = new.get("reasoning_content") == read.get("reasoning_content")
    wanted = {call.get("id"): call for call in new.get("tool_calls") or () if isinstance(call, dict)}
    was = {call["id"]: call for call in read.get("tool_calls") or ()}
    added = [name for name in wanted if name not in was]
    if added:
        raise DialectError(f"an edit adds the tool call {added[0]!r} to an answer")
    same = new.get("content") == read.get("content")
    parts = [part for _, item in given for part in _own_parts(item) if _speaks(item)]
    slots = [] if same else rewritten(new.get("content"), [without_marks(p) for p in parts], parts, "output_text")
    made: list[tuple[int | None, Message]] = []
    used = 0
    for index, item in given:
        if item["type"] == "reasoning":
            made += [(index, item)] if thinks else []
        elif item["type"] in calls.CALLS:
            call = wanted.get(calls.call_id(item))
            if call is not None:
                made.append((index, item if call == was[call["id"]] else calls.write_call(item, call)))
        elif same:
            made.append((index, item))
        else:
            count = len(_own_parts(item))
            own = [part for slot in slots[used : used + count] for part in slot]
            used += count
            made += [(index, changed) for changed in _said(item, own)]
    if not same and not parts and slots[0]:
        made.append((None, {"type": "message", "role": "assistant", "content": slots[0]}))
    return made if thinks else [(k, {key: v for key, v in item.items() if key != "id"}) for k, item in made]


def _speaks(item: Message) -> bool:
    return item["type"] == "message" or item["type"] in _SERVED


def _said(item: Message, parts: list[dict[str, object]]) -> list[Message]:
    """A message of an answer, or a server's tool, with the parts that an edit left of it."""
    if not parts:
        return []
    own = [part for part in parts if str(part.get("type")) not in _SERVED]
    served = [part for part in parts if str(part.get("type")) in _SERVED]
    if item["type"] in _SERVED:
        texts: list[Message] = [{"type": "message", "role": "assistant", "content": own}] if own else []
        return [*texts, *served]
    if isinstance(item.get("content"), str) and len(own) == 1 and own[0].get("type") in ("output_text", "input_text"):
        return [{**item, "content": own[0]["text"]}, *served]
    return [*([{**item, "content": own}] if own else []), *served]


def _unmarked(content: object, where: str) -> Any:
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list) or not all(isinstance(part, dict) for part in content):
        raise DialectError(f"the content of {where} is no text and no list of parts")
    return [without_marks(part) for part in content]


def _parts(content: object, given: object, text_type: str) -> Any:
    if not isinstance(given, list):
        return clone(content)
    slots = rewritten(content, [without_marks(part) for part in given], given, text_type)
    return [part for slot in slots for part in slot]
