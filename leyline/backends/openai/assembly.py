"""A streamed completion, put together from its chunks. Providers cut answers up in ways of their own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from leyline.backends.contract import Usage
from leyline.backends.http.errors import is_failure
from leyline.backends.http.usage import find_usage
from leyline.backends.openai.reply import (
    CutShortError,
    MalformedReplyError,
    Reply,
    as_list,
    as_mapping,
    check_ended,
    extras,
    failed,
    read_message,
    shown_text,
)
from leyline.directives import JsonObject

_CALL_FIELDS = frozenset({"index", "id", "type", "function"})
_TEXTS = frozenset({"text", "summary", "thinking", "reasoning", "content"})


@dataclass
class _Call:
    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    extra: JsonObject = field(default_factory=dict)
    function_extra: JsonObject = field(default_factory=dict)

    def take(self, part: Mapping[str, object]) -> None:
        function = as_mapping(part.get("function") or {}, "'function'")
        self.id = self.id or str(part.get("id") or "")
        self.name = _name(self.name, str(function.get("name") or ""), begun=bool(self.arguments))
        arguments = function.get("arguments")
        self.arguments += arguments if isinstance(arguments, str) else json.dumps(arguments) if arguments else ""
        _merge(self.extra, {name: value for name, value in part.items() if name not in _CALL_FIELDS})
        more = {name: value for name, value in function.items() if name not in ("name", "arguments")}
        _merge(self.function_extra, more)

    @property
    def whole(self) -> bool:
        """Whether the arguments are complete, so that more of them belong to another call."""
        try:
            return isinstance(json.loads(self.arguments), dict)
        except (ValueError, RecursionError):
            return False

    def to_dict(self) -> JsonObject:
        function = {"name": self.name, "arguments": self.arguments, **self.function_extra}
        return {**self.extra, "id": self.id, "function": function}


@dataclass
class Assembly:
    """A streamed completion as it grows: `add` each chunk, then `reply`."""

    content: list[Any] = field(default_factory=list)
    calls: list[_Call] = field(default_factory=list)
    extra: JsonObject = field(default_factory=dict)
    finish_reason: str | None = None
    usage: Usage | None = None

    def add(self, chunk: Mapping[str, object]) -> str:
        """Take a chunk in; returns its text, if any. Raises `MalformedReplyError`, `BackendError`."""
        if is_failure(chunk):
            raise failed(chunk)
        self.usage = find_usage(chunk) or self.usage
        choices = as_list(chunk.get("choices"), "'choices'")  # some servers leave them out of the usage's chunk
        if not choices:
            return ""
        choice = as_mapping(choices[0], "a choice")
        reason = choice.get("finish_reason")
        self.finish_reason = reason if isinstance(reason, str) else self.finish_reason
        delta = as_mapping(choice.get("delta") or choice.get("message") or {}, "'delta'")
        seen: list[_Call] = []
        for part in as_list(delta.get("tool_calls"), "'tool_calls'"):
            seen.append(self._add_call(as_mapping(part, "a tool call"), seen))
        _merge(self.extra, extras(delta))
        return self._add_content(delta.get("content") or delta.get("refusal") or "")

    def _add_content(self, content: object) -> str:
        if not isinstance(content, str | list):
            raise MalformedReplyError("'content' is not a string or a list of parts")
        parts = [content] if isinstance(content, str) else content
        for part in parts:
            if not isinstance(part, str | Mapping):
                raise MalformedReplyError("a part of 'content' is not an object")
            last = self.content[-1] if self.content else None
            if isinstance(part, Mapping) and isinstance(last, dict) and last.get("type") == part.get("type"):
                _merge_part(last, part)
            elif part:
                self.content.append(dict(part) if isinstance(part, Mapping) else part)
        return shown_text(parts)

    def _add_call(self, part: Mapping[str, object], seen: list[_Call]) -> _Call:
        index = part.get("index")
        if index is not None and type(index) is not int:
            raise MalformedReplyError("the index of a tool call is not an int")
        call = self._continued(part, index, seen)
        if call is None:
            call = _Call(len(self.calls) if index is None else index)
            self.calls.append(call)
        call.take(part)
        return call

    def _continued(self, part: Mapping[str, object], index: int | None, seen: list[_Call]) -> _Call | None:
        """The call that a piece goes on with, None where it begins another.

        An index alone does not tell: some servers give 0 to each of several parallel calls, others none. Nor does an
        id: some make a new one for each piece.
        """
        function = as_mapping(part.get("function") or {}, "'function'")
        given, name = part.get("id") or "", function.get("name") or ""
        known = [call for call in self.calls if index is None or call.index == index]
        last = next((call for call in known if given and call.id == given), known[-1] if known else None)
        if last is None or not name:
            return last
        if any(last is call for call in seen):  # in one chunk a call stands once
            return None
        repeated = name == last.name and bool(last.arguments) and not last.whole
        if (given and given == last.id) or repeated:
            return last
        if (given and last.id) or (index is None and (given or name != last.name)):
            return None
        if last.arguments and name != last.name:
            return None
        return None if last.whole and function.get("arguments") else last

    def reply(self, *, tools: bool) -> Reply:
        """The whole completion. Raises `CutShortError` when the stream broke off before it was complete."""
        if self.finish_reason is None:
            raise CutShortError
        calls = [call.to_dict() for call in sorted(self.calls, key=lambda call: call.index)]
        texts = [part for part in self.content if isinstance(part, str)]
        whole = "".join(texts) if len(texts) == len(self.content) else _as_parts(self.content)
        message = read_message({**self.extra, "content": whole, "tool_calls": calls}, tools=tools)
        check_ended(message, self.finish_reason)
        return Reply(message, self.finish_reason, self.usage)


def _name(known: str, more: str, *, begun: bool) -> str:
    """A tool's name with one more piece of it: a piece, the whole once more, or all of it so far."""
    if not known or (more.startswith(known) and not begun):
        return more or known
    return known if begun or known == more else known + more


def _as_parts(content: list[Any]) -> list[Any]:
    """Content that came as texts and parts, as parts."""
    parts: list[Any] = []
    for part in content:
        if not isinstance(part, str):
            parts.append(part)
        elif parts and parts[-1].get("type") == "text" and set(parts[-1]) == {"type", "text"}:
            parts[-1] = {"type": "text", "text": parts[-1]["text"] + part}
        else:
            parts.append({"type": "text", "text": part})
    return parts


def _merge(known: dict[str, object], more: Mapping[str, object]) -> None:
    """Add what a chunk says of fields that we do not read: texts grow, lists of parts grow part by part."""
    for name, value in more.items():
        before = known.get(name)
        if value is None:
            continue
        if isinstance(before, str) and isinstance(value, str):
            known[name] = before + value
        elif isinstance(before, dict) and isinstance(value, Mapping):
            _update(before, value)
        elif isinstance(value, list):
            if not isinstance(before, list):
                known[name] = before = []
            for part in value:
                _add_part(before, part)
        else:
            known[name] = dict(value) if isinstance(value, Mapping) else value


def _update(known: JsonObject, more: Mapping[str, object]) -> None:
    for name, value in more.items():
        if isinstance(known.get(name), dict) and isinstance(value, Mapping):
            _update(known[name], value)
        elif value is not None:
            known[name] = value


def _add_part(parts: list[object], part: object) -> None:
    """Go on with the last part if the new one is a piece of it, else begin another.

    Pieces of one part share its index, or follow it with the same type until its signature closes it.
    """
    last = parts[-1] if parts else None
    if isinstance(part, Mapping) and isinstance(last, dict) and _goes_on(last, part):
        _merge_part(last, part)
    else:
        parts.append(dict(part) if isinstance(part, Mapping) else part)


def _goes_on(last: Mapping[str, object], part: Mapping[str, object]) -> bool:
    """Whether a part is a piece of the last one."""
    if last.get("type") != part.get("type") or (part.get("id") and part["id"] != last.get("id")):
        return False
    if last.get("index") is not None or part.get("index") is not None:
        return bool(last.get("index") == part.get("index"))
    return not last.get("signature") and "data" not in part


def _merge_part(known: JsonObject, more: Mapping[str, object]) -> None:
    for name, value in more.items():
        before = known.get(name)
        if name in _TEXTS and isinstance(before, str) and isinstance(value, str):
            known[name] = before + value
        elif name in _TEXTS and isinstance(before, list) and isinstance(value, list):
            known[name] = list(before)
            for part in value:
                _add_part(known[name], part)
        elif value is not None and value != "":
            known[name] = value
