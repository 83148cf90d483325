"""Reads what an OpenAI-compatible server answers, from untrusted JSON and without trust in its shape."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from leyline.backends.contract import BackendError, ContextOverflowError, Usage
from leyline.backends.http.errors import body_message, body_overflows, clean, is_failure
from leyline.backends.http.sse import events
from leyline.backends.http.usage import find_usage
from leyline.directives import Message
from leyline.directives.hermes import OPEN
from leyline.rendering.toolcalls import parse_output

_THINKING = re.compile(r"reason|think|thought|signature", re.IGNORECASE)
_CARRIED = frozenset({"extra_content", "provider_specific_fields", "encrypted_content"})
_FULL = frozenset({"model_context_window_exceeded", "context_window_exceeded", "context_length_exceeded"})


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


def read_completion(text: str | bytes, *, tools: bool) -> Reply:
    """A completion that came in one piece.

    tools: whether tools were offered; then calls that the server left in the text are read from it.
    Raises `MalformedReplyError`, or `BackendError` for an error that came with status 200.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedReplyError(f"not JSON: {clean(text, 80)!r}") from None
    data = as_mapping(_first_of(data), "the answer")
    if is_failure(data):
        raise failed(data)
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices:
        raise MalformedReplyError("no choices")
    choice = as_mapping(choices[0], "a choice")
    message = read_message(as_mapping(choice.get("message"), "'message'"), tools=tools)
    reason = choice.get("finish_reason")
    reason = reason if isinstance(reason, str) else "stop"
    check_ended(message, reason)
    return Reply(message, reason, find_usage(data))


def read_models(text: str | bytes) -> list[str]:
    """The names on a server's list of models, sorted. Raises `MalformedReplyError`."""
    try:
        data = as_mapping(json.loads(text), "the list of models")
    except (ValueError, RecursionError):
        raise MalformedReplyError(f"the list of models is not JSON: {clean(text, 80)!r}") from None
    entries = as_list(data.get("data"), "'data'")
    return sorted(str(entry["id"]) for entry in entries if isinstance(entry, Mapping) and entry.get("id"))


def read_message(message: Mapping[str, object], *, tools: bool) -> Message:
    """An assistant message: role, content, tool calls, and what must go back as it came. Raises `MalformedReplyError`.

    Providers bind thinking to a history with fields of their own (`reasoning_content`, `thinking_blocks`, signatures in
    tool calls) and refuse or misread a history without them. A field that is null is left out.
    """
    content = message.get("content")
    if content is None:
        content = message.get("refusal")
    if isinstance(content, list):
        content = _plain(content)
    if content is not None and not isinstance(content, str | list):
        raise MalformedReplyError("'content' is not a string or a list of parts")
    calls = [_call(as_mapping(call, "a tool call")) for call in as_list(message.get("tool_calls"), "'tool_calls'")]
    bound = extras(message)
    if tools and not calls and isinstance(content, str) and OPEN in content:
        return {**parse_output(content, seed=uuid.uuid4().hex).message(), **bound}
    result: Message = {"role": "assistant", "content": content or (None if calls else "")}
    if calls:
        result["tool_calls"] = calls
    return {**result, **bound}


def extras(message: Mapping[str, object]) -> dict[str, object]:
    """The fields of an answer that a provider wants back with the history, as they came."""
    return {name: value for name, value in message.items() if value is not None and is_bound(name)}


def is_bound(name: str) -> bool:
    """Whether a field of a message is one that a provider binds to its history: thinking, or a signature of it."""
    return name in _CARRIED or bool(_THINKING.search(name))


def shown_text(content: str | Iterable[object]) -> str:
    """The text of a message's content that is for the reader: no thinking."""
    parts = [content] if isinstance(content, str) else content
    return "".join(
        part if isinstance(part, str) else str(part.get("text") or "")
        for part in parts
        if isinstance(part, str) or (isinstance(part, Mapping) and part.get("type") == "text")
    )


def check_ended(message: Message, reason: str) -> None:
    """Raise `ContextOverflowError` for an answer that is empty because the context was full."""
    if reason in _FULL and not message.get("content") and not message.get("tool_calls"):
        raise ContextOverflowError(f"the prompt does not fit into the model's context ({reason}); edit or shorten it")


def _plain(content: list[object]) -> str | list[object]:
    """Content parts as one text; as they came where one of them is not text, such as thinking that must go back."""
    if not all(isinstance(part, str | Mapping) for part in content):
        raise MalformedReplyError("a part of 'content' is not an object")
    plain = all(
        isinstance(part, str) or (isinstance(part, Mapping) and set(part) <= {"type", "text"} and "text" in part)
        for part in content
    )
    return shown_text(content) if plain else content


def sse_chunks(pieces: Iterable[bytes]) -> Iterator[Mapping[str, object]]:
    """The JSON objects of a stream of server-sent events, up to `[DONE]`. Raises `MalformedReplyError`."""
    for data in events(pieces):
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            raise MalformedReplyError(f"a chunk is not JSON: {clean(data.decode(errors='replace'), 80)!r}") from None
        yield as_mapping(_first_of(chunk), "a chunk")


def _first_of(data: object) -> object:
    """The answer; some servers put an error into a list."""
    return data[0] if isinstance(data, list) and data else data


def failed(data: Mapping[str, object]) -> BackendError:
    """The error that came in place of an answer."""
    said = clean(body_message(dict(data))[0] or data.get("error"))
    if body_overflows(data):
        return ContextOverflowError(f"the prompt does not fit into the model's context: {said}; edit or shorten it")
    return BackendError(f"the server failed while it answered ({said}); see its log and try again", retryable=True)


def _call(call: Mapping[str, object]) -> dict[str, object]:
    function = as_mapping(call.get("function"), "'function'")
    name, arguments = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name:
        raise MalformedReplyError("a tool call has no name")
    if not isinstance(arguments, str):
        arguments = json.dumps(arguments if arguments is not None else {}, ensure_ascii=False)
    call_id = call.get("id")
    return {
        **_rest(call, ("index", "id", "type", "function")),
        "id": call_id if isinstance(call_id, str) and call_id else f"call_{uuid.uuid4().hex}",
        "type": "function",
        # A call without arguments goes back as JSON: servers that parse it refuse an empty text.
        "function": {
            **_rest(function, ("name", "arguments")),
            "name": name,
            "arguments": (arguments.strip() and arguments) or "{}",
        },
    }


def _rest(fields: Mapping[str, object], read: tuple[str, ...]) -> dict[str, object]:
    """What a provider says beside the fields that are read, such as a signature; it goes back as it came."""
    return {name: value for name, value in fields.items() if name not in read and value is not None}


def as_mapping(value: object, what: str) -> Mapping[str, object]:
    if not isinstance(value, Mapping):
        raise MalformedReplyError(f"{what} is not an object")
    return value


def as_list(value: object, what: str) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise MalformedReplyError(f"{what} is not a list")
    return value
