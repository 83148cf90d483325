"""Responses and messages in front of a server that speaks chat completions: requests there, answers and events back.

What chat completions have no place for is refused with a `DialectError` that names it, before anything is sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from leyline.backends.contract import BackendError
from leyline.backends.http.sse import EventReader
from leyline.dialects import Dialect
from leyline.directives import JsonMapping, JsonObject
from leyline.harness.translate import from_messages, from_responses
from leyline.harness.translate.made import Growing, Made, whole
from leyline.harness.translate.to_messages import MessagesAnswer
from leyline.harness.translate.to_responses import ResponsesAnswer

__all__ = ["Translation", "translate"]


class Translation:
    """One request and its answer. body: the chat completion to ask for. answer: what is made of what comes back."""

    def __init__(self, body: JsonObject, answer: MessagesAnswer | ResponsesAnswer) -> None:
        self.body, self.answer = body, answer

    def whole(self, content: bytes) -> JsonObject:
        """The answer in one piece. Raises BackendError for a content that is no chat completion."""
        return self.answer.whole(whole(content))

    def gathered(self, stream: bytes) -> JsonObject:
        """The answer in one piece, of a server that streamed it unasked. Raises BackendError as `events` does."""
        events = self.events()
        events.feed(stream)
        events.end()
        return self.answer.whole(events.made)

    def events(self) -> Events:
        return Events(self.answer)


class Events:
    """A stream of chunks as the events of the other dialect: `feed` pieces of it, then `end`."""

    def __init__(self, answer: MessagesAnswer | ResponsesAnswer) -> None:
        self._answer, self._growing, self._reader, self._begun = answer, Growing(), EventReader(), False

    @property
    def made(self) -> Made:
        return self._growing.made

    def feed(self, piece: bytes) -> bytes:
        """What to pass on. Raises BackendError for a chunk that is an error, or that cannot be read."""
        return b"".join(self._chunk(data) for data in self._reader.feed(piece))

    def end(self) -> bytes:
        """The rest. Raises BackendError where the stream ended before its answer."""
        left = b"".join(self._chunk(data) for data in self._reader.end())
        return left + b"".join(_written(self._last()))

    def _last(self) -> Iterator[JsonObject]:
        for step in self._growing.end():
            yield from self._answer.step(step)
        yield from self._answer.ended(self._growing.made)

    def _chunk(self, data: bytes) -> bytes:
        if data == b"[DONE]":
            return b""
        try:
            chunk = json.loads(data)
        except (ValueError, RecursionError):
            raise BackendError("a chunk of the upstream's stream is no JSON; see its log") from None
        chunk = chunk[0] if isinstance(chunk, list) and chunk else chunk
        if not isinstance(chunk, dict):
            raise BackendError("a chunk of the upstream's stream is no object; see its log")
        return b"".join(_written(self._taken(chunk)))

    def _taken(self, chunk: JsonMapping) -> Iterator[JsonObject]:
        steps = list(self._growing.take(chunk))
        if not self._begun:
            self._begun = True
            yield from self._answer.begun(self._growing.made)
        for step in steps:
            yield from self._answer.step(step)


def _written(events: Iterator[JsonObject]) -> Iterator[bytes]:
    for event in events:
        yield f"event: {event['type']}\ndata: {json.dumps(event, separators=(',', ':'))}\n\n".encode()


def translate(body: JsonMapping, dialect: Dialect) -> Translation:
    """A request of another dialect as a chat completion. Raises DialectError, which names what has no place there."""
    if dialect == "responses":
        custom = from_responses.custom_tools(body)
        return Translation(from_responses.chat_request(body), ResponsesAnswer(body, custom))
    return Translation(from_messages.chat_request(body), MessagesAnswer(str(body.get("model") or "")))
