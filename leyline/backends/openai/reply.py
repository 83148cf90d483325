"""Reads what an OpenAI-compatible server answers, from untrusted JSON and without trust in its shape."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from leyline.backends.contract import BackendError, ContextOverflowError, Usage
from leyline.backends.http.errors import body_message, clean, is_overflow
from leyline.backends.http.sse import events
from leyline.directives import Message
from leyline.rendering.toolcalls import parse_output


class MalformedReplyError(ValueError):
    """The answer is not a chat completion; the text says what is missing."""


class CutShortError(BackendError):
    """A stream ended without its last chunk: a restarted server, a proxy's time limit. Asking again may help."""

    def __init__(self) -> None:
        super().__init__(
            "the stream ended before the answer was complete; try again, and see the log of the server or of a proxy "
            "before it if this repeats",
            retryable=True,
        )


@dataclass
class Reply:
    """A chat completion: the message, why it ended, and the usage block, None where the server sent none."""

    message: Message
    finish_reason: str
    usage: Usage | None
    meta_info: Mapping[str, Any] | None = None


@dataclass
class _Call:
    id: str = ""
    name: str = ""
    arguments: str = ""


@dataclass
class Assembly:
    """A streamed completion as it grows: `add` each chunk, then `reply`."""

    content: list[str] = field(default_factory=list)
    calls: dict[int, _Call] = field(default_factory=dict)
    finish_reason: str | None = None
    usage: Usage | None = None

    def add(self, chunk: Mapping[str, Any]) -> str:
        """Take a chunk in; returns its text, if any. Raises `MalformedReplyError`, `BackendError`."""
        if chunk.get("error"):
            raise _failed(chunk)
        self.usage = read_usage(chunk.get("usage")) or self.usage
        choices = _list(chunk.get("choices"), "'choices'")  # some servers leave them out of the usage's chunk
        if not choices:
            return ""
        choice = _mapping(choices[0], "a choice")
        reason = choice.get("finish_reason")
        self.finish_reason = reason if isinstance(reason, str) else self.finish_reason
        delta = _mapping(choice.get("delta") or {}, "'delta'")
        for part in _list(delta.get("tool_calls"), "'tool_calls'"):
            self._add_call(_mapping(part, "a tool call"))
        text = delta.get("content") or delta.get("refusal") or ""
        if not isinstance(text, str):
            raise MalformedReplyError("'content' is not a string")
        self.content.append(text)
        return text

    def _add_call(self, part: Mapping[str, Any]) -> None:
        index = part.get("index")
        index = len(self.calls) if index is None else index  # from servers that send each call whole
        if type(index) is not int:
            raise MalformedReplyError("the index of a tool call is not an int")
        call = self.calls.setdefault(index, _Call())
        function = _mapping(part.get("function") or {}, "'function'")
        call.id = call.id or str(part.get("id") or "")
        call.name += str(function.get("name") or "")
        call.arguments += str(function.get("arguments") or "")

    def reply(self, *, tools: bool) -> Reply:
        """The whole completion. Raises `CutShortError` when the stream broke off before it was complete."""
        if self.finish_reason is None:
            raise CutShortError
        calls: list[Mapping[str, Any]] = [
            {"id": c.id, "function": {"name": c.name, "arguments": c.arguments}} for _, c in sorted(self.calls.items())
        ]
        message = read_message({"content": "".join(self.content), "tool_calls": calls}, tools=tools)
        return Reply(message, self.finish_reason, self.usage)


def read_completion(text: str | bytes, *, tools: bool) -> Reply:
    """A completion that came in one piece.

    tools: whether tools were offered; then calls that the server left in the text are read from it.
    Raises `MalformedReplyError`, or `BackendError` for an error that came with status 200.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedReplyError(f"not JSON: {clean(text, 80)!r}") from None
    data = _mapping(data, "the answer")
    if data.get("error"):
        raise _failed(data)
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices:
        raise MalformedReplyError("no choices")
    choice = _mapping(choices[0], "a choice")
    message = read_message(_mapping(choice.get("message"), "'message'"), tools=tools)
    reason = choice.get("finish_reason")
    meta = choice.get("meta_info")
    return Reply(
        message,
        reason if isinstance(reason, str) else "stop",
        read_usage(data.get("usage")),
        meta if isinstance(meta, Mapping) else None,
    )


def read_models(text: str | bytes) -> list[str]:
    """The names on a server's list of models, sorted. Raises `MalformedReplyError`."""
    try:
        data = _mapping(json.loads(text), "the list of models")
    except (ValueError, RecursionError):
        raise MalformedReplyError(f"the list of models is not JSON: {clean(text, 80)!r}") from None
    entries = _list(data.get("data"), "'data'")
    return sorted(str(entry["id"]) for entry in entries if isinstance(entry, Mapping) and entry.get("id"))


def read_message(message: Mapping[str, Any], *, tools: bool) -> Message:
    """An assistant message of role, content and tool calls only. Raises `MalformedReplyError`."""
    content = message.get("content")
    if content is None:
        content = message.get("refusal")
    if content is not None and not isinstance(content, str):
        raise MalformedReplyError("'content' is not a string")
    calls = [_call(_mapping(call, "a tool call")) for call in _list(message.get("tool_calls"), "'tool_calls'")]
    if tools and not calls and content and "<tool_call>" in content:
        return parse_output(content, seed=uuid.uuid4().hex).message()
    result: Message = {"role": "assistant", "content": content or (None if calls else "")}
    if calls:
        result["tool_calls"] = calls
    return result


def read_usage(usage: object) -> Usage | None:
    """Tokens of a usage block; cached ones in OpenAI's place or in DeepSeek's. None where there is no block."""
    if not isinstance(usage, Mapping):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else None
    if cached is None:
        cached = usage.get("prompt_cache_hit_tokens")
    prompt = _count(usage.get("prompt_tokens"))
    return Usage(prompt, min(_count(cached), prompt), _count(usage.get("completion_tokens")))


def sse_chunks(pieces: Iterable[bytes]) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of a stream of server-sent events, up to `[DONE]`. Raises `MalformedReplyError`."""
    for data in events(pieces):
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            raise MalformedReplyError(f"a chunk is not JSON: {clean(data.decode(errors='replace'), 80)!r}") from None
        yield _mapping(chunk, "a chunk")


def _failed(data: Mapping[str, Any]) -> BackendError:
    message, code, _ = body_message(data)
    said = clean(message or data.get("error"))
    if code == "context_length_exceeded" or is_overflow(message):
        return ContextOverflowError(f"the prompt does not fit into the model's context: {said}; edit or shorten it")
    return BackendError(f"the server failed while it answered ({said}); see its log and try again", retryable=True)


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = _mapping(call.get("function"), "'function'")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name:
        raise MalformedReplyError("a tool call has no name")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments if arguments is not None else {})
    call_id = call.get("id")
    return {
        "id": call_id if isinstance(call_id, str) and call_id else f"call_{uuid.uuid4().hex}",
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _count(value: object) -> int:
    return value if type(value) is int and value > 0 else 0


def _mapping(value: object, what: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise MalformedReplyError(f"{what} is not an object")
    return value


def _list(value: object, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedReplyError(f"{what} is not a list")
    return value
