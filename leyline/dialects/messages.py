"""Anthropic messages: blocks to plain messages and back. Signed thinking and cache marks stay as they came.

A user message becomes one tool message for each `tool_result` and one user message for each run of other blocks; an
assistant message stays one, with its `tool_use` blocks as tool calls and its thinking as `reasoning_content`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from leyline.dialects.base import DialectError, Item, Placed, Reading, Written, items_of, place
from leyline.dialects.parts import rewritten
from leyline.dialects.plain import as_message, without_marks
from leyline.directives import JsonObject, Message
from leyline.directives.clone import clone

_THINKING = ("thinking", "redacted_thinking")
# Blocks whose insides are the server's own (its tools and their results) or no text: policies see them as parts.
_PARTS = frozenset(
    {
        *("text", "image", "document", "search_result", "container_upload", "tool_reference", "browser_state"),
        *("server_tool_use", "web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result"),
        *("bash_code_execution_tool_result", "text_editor_code_execution_tool_result", "tool_search_tool_result"),
        *("advisor_tool_result", "mcp_tool_use", "mcp_tool_result", "mcp_tool_listing", "compaction", "fallback"),
        *("tool_addition", "tool_removal"),
    }
)


@dataclass(frozen=True)
class _Source:
    """Where a plain message came from. native: index of the message, None for the `system` field.

    blocks: the message's blocks, as they were given, that make it up; None where its content is text.
    """

    native: int | None
    blocks: list[JsonObject] | None


class MessagesReading(Reading):
    """`system` and `messages` of a request to the messages API."""

    field_name = "messages"

    def __init__(
        self, items: Sequence[Item], messages: list[Message], history: list[Message], sources: list[_Source]
    ) -> None:
        super().__init__(items, history)
        self._messages, self._sources = messages, sources
        self._sizes: dict[int | None, int] = {}
        for source in sources:
            self._sizes[source.native] = self._sizes.get(source.native, 0) + 1

    def write(self, edited: Sequence[Placed]) -> Written:
        items: list[Item] = []
        origins: list[int | None] = []
        fields: dict[str, object] = {}
        if None in self._sizes:
            first = next((placed for placed in edited if placed.index == 0), None)
            if first is None:
                fields["system"] = None
            elif not self.kept(first):
                fields["system"] = _content(first.message.get("content"), self._sources[0])
        for native, group in self._groups(edited):
            if native is None:
                items.append(_new(group[0].message))
            elif len(group) == self._sizes[native] and all(map(self.kept, group)):
                items.append(self.items[native])
            else:
                content = self._rebuilt(group)
                if not content:
                    continue  # the API takes no message without content
                items.append({**self._messages[native], "content": content})
            origins.append(native)
        return Written(items, origins, fields)

    def _groups(self, edited: Sequence[Placed]) -> list[tuple[int | None, list[Placed]]]:
        """The edited history by the message that each belongs to; a new user message between two of one joins it."""
        groups: list[tuple[int | None, list[Placed]]] = []
        for placed in edited:
            source = self._sources[placed.index] if placed.index is not None else None
            if source is not None and source.native is None:
                continue
            native = source.native if source is not None else None
            last = groups[-1] if groups else None
            before = groups[-2] if len(groups) > 1 else None
            if native is not None and last is not None and last[0] == native:
                last[1].append(placed)
            elif native is not None and last is not None and before is not None and before[0] == native:
                before[1].extend([*last[1], placed])
                groups.pop()
            else:
                groups.append((native, [placed]))
        return groups

    def _rebuilt(self, group: Sequence[Placed]) -> str | list[dict[str, object]]:
        blocks: list[dict[str, object]] = []
        for placed in group:
            source = self._sources[placed.index] if placed.index is not None else None
            if source is None:
                blocks += _as_blocks(placed.message.get("content"))
            elif source.blocks is None:
                text = _content(placed.message.get("content"), source)
                if len(group) == 1:
                    return text
                blocks += _as_blocks(text)
            elif self.kept(placed):
                blocks += source.blocks
            elif placed.message.get("role") == "tool":
                blocks.append(_result(placed.message, source.blocks[0]))
            elif placed.message.get("role") == "assistant":
                read = self.history[placed.index] if placed.index is not None else {}
                blocks += _assistant(placed.message, read, source.blocks)
            else:
                blocks += _as_blocks(_content(placed.message.get("content"), source))
        return blocks


def read_messages(body: Mapping[str, object]) -> MessagesReading:
    """Read `body["messages"]` and `body["system"]`. Raises DialectError, which names what cannot be read."""
    items = items_of(body, "messages")
    messages: list[Message] = []
    history: list[Message] = []
    sources: list[_Source] = []
    system = as_message({"content": body.get("system")})
    if system is not None and system["content"] not in (None, "", []):
        blocks = _blocks(system["content"], "system")
        content = system["content"] if blocks is None else [without_marks(block) for block in blocks]
        history.append({"role": "system", "content": content})
        sources.append(_Source(None, blocks))
    for index, item in enumerate(items):
        message = as_message(item)
        role = message.get("role") if message is not None else None
        if message is None or role not in ("user", "assistant", "system"):
            what = f"a {type(item).__name__}" if message is None else f"of role {role!r}"
            raise DialectError(f"{place('messages', index)} is {what}; the messages dialect has user and assistant")
        messages.append(message)
        blocks = _blocks(message.get("content"), place("messages", index) + ".content")
        if blocks is None:
            history.append({"role": role, "content": message.get("content")})
            sources.append(_Source(index, None))
            continue
        for run in _runs(blocks, role, index):
            history.append(_read_run(run, role))
            sources.append(_Source(index, run))
    return MessagesReading(items, messages, history, sources)


def _blocks(content: object, where: str) -> list[dict[str, object]] | None:
    """The blocks of a content, None where it is text."""
    if content is None or isinstance(content, str):
        return None
    if not isinstance(content, list):
        raise DialectError(f"{where} is a {type(content).__name__}; give text or a list of blocks")
    for k, block in enumerate(content):
        kind = block.get("type") if isinstance(block, dict) else None
        if not isinstance(kind, str) or not (
            kind in _PARTS or kind in _THINKING or kind in ("tool_use", "tool_result")
        ):
            what = f"a block of type {kind!r}" if isinstance(block, dict) else f"a {type(block).__name__}"
            raise DialectError(f"{where}[{k}] is {what}, which the messages dialect does not have")
        need = {"text": "text", "tool_use": "id", "tool_result": "tool_use_id"}.get(kind)
        if need is not None and not isinstance(block.get(need), str):
            raise DialectError(f"{where}[{k}] is a {kind} block without {need}")
    return content


def _runs(blocks: list[dict[str, object]], role: str, index: int) -> list[list[dict[str, object]]]:
    """The blocks of a message by the plain message that they become."""
    wrong = "tool_result" if role == "assistant" else "tool_use"
    if any(block["type"] == wrong for block in blocks):
        raise DialectError(f"{place('messages', index)} of role {role} holds a {wrong} block")
    if role == "assistant" or not blocks:
        return [blocks]
    runs: list[list[dict[str, object]]] = []
    for block in blocks:
        alone = block["type"] == "tool_result"
        if runs and not alone and runs[-1][0]["type"] != "tool_result":
            runs[-1].append(block)
        else:
            runs.append([block])
    return runs


def _read_run(run: list[JsonObject], role: str) -> Message:
    if run and run[0]["type"] == "tool_result":
        block = run[0]
        content = block.get("content")
        parts = _blocks(content, f"the result of {block['tool_use_id']}")
        message: Message = {"role": "tool", "tool_call_id": block["tool_use_id"]}
        message["content"] = (content or "") if parts is None else [without_marks(part) for part in parts]
        return {**message, "is_error": True} if block.get("is_error") is True else message
    if role != "assistant":
        return {"role": role, "content": [without_marks(block) for block in run]}
    parts = [without_marks(b) for b in run if b["type"] not in _THINKING and b["type"] != "tool_use"]
    message = {"role": role, "content": parts or None}
    thinking = [b["thinking"] for b in run if b["type"] == "thinking" and isinstance(b.get("thinking"), str)]
    if thinking:
        message["reasoning_content"] = "\n".join(thinking)
    calls = [_call(b) for b in run if b["type"] == "tool_use"]
    return {**message, "tool_calls": calls} if calls else message


def _call(block: Mapping[str, object]) -> dict[str, object]:
    arguments = json.dumps(block.get("input") or {}, ensure_ascii=False)
    function = {"name": str(block.get("name") or ""), "arguments": arguments}
    return {"id": block["id"], "type": "function", "function": function}


def _assistant(new: Message, read: Message, blocks: list[dict[str, object]]) -> list[dict[str, object]]:
    """Blocks of an answer with an edit. Thinking is signed: it stays as it came, or, where edited, goes."""
    own = [block for block in blocks if block["type"] not in _THINKING and block["type"] != "tool_use"]
    content = new.get("content")
    same = content == read.get("content")
    slots = [[block] for block in own] if same else rewritten(content, read.get("content") or [], own, "text")
    thinks = new.get("reasoning_content") == read.get("reasoning_content")
    calls = {call.get("id"): call for call in new.get("tool_calls") or () if isinstance(call, dict)}
    was = {call["id"]: call for call in read.get("tool_calls") or ()}
    added = [name for name in calls if name not in was]
    if added:
        raise DialectError(f"an edit adds the tool call {added[0]!r} to an answer")
    made: list[dict[str, object]] = []
    used = 0
    for block in blocks:
        if block["type"] in _THINKING:
            made += [block] if thinks else []
        elif block["type"] == "tool_use":
            call = calls.get(block["id"])
            if call is not None:
                made.append(block if call == was[block["id"]] else {**block, "input": _input(call)})
        else:
            made += slots[used]
            used += 1
    return made if own or same else [*slots[0], *made]


def _input(call: Mapping[str, object]) -> dict[str, object]:
    function = call.get("function")
    arguments = function.get("arguments") if isinstance(function, Mapping) else None
    try:
        value = json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise DialectError(f"an edit leaves the arguments of the tool call {call.get('id')!r} without a JSON object")
    return clone(value)


def _result(new: Message, block: dict[str, object]) -> dict[str, object]:
    content = block.get("content")
    if isinstance(content, list) and isinstance(new.get("content"), list):
        slots = rewritten(new["content"], [without_marks(part) for part in content], content, "text")
        return {**block, "content": [part for slot in slots for part in slot]}
    return {**block, "content": clone(new.get("content")) or ""}


def _content(content: object, source: _Source) -> str | list[dict[str, object]]:
    if source.blocks is not None:
        read = [without_marks(block) for block in source.blocks]
        return [block for slot in rewritten(content, read, source.blocks, "text") for block in slot]
    return content if isinstance(content, str) else _as_blocks(content)


def _as_blocks(content: Any) -> list[dict[str, object]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [clone(part) for part in content or ()]


def _new(message: Message) -> Message:
    """A message that a policy put in. Raises DialectError for one that the API has no place for."""
    role = message.get("role")
    if role not in ("user", "assistant", "system") or message.get("tool_calls"):
        raise DialectError(f"an edit puts in a message of role {role!r}: here only user and assistant text can be")
    return {"role": role, "content": clone(message.get("content"))}
