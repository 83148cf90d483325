"""Callers of the Responses and the messages API in front of an upstream that speaks chat completions."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from leyline.backends.contract import BackendError
from leyline.backends.http.errors import body_message, clean
from leyline.dialects import Dialect, DialectError
from leyline.directives import JsonMapping, JsonObject
from leyline.harness.exchange import dumped
from leyline.harness.proxy.errors import RefusedError, failure
from leyline.harness.proxy.kept import KeptResponses
from leyline.harness.translate import Translation, translate

MOST_BYTES = 64 << 20
"""Of an answer in one piece, which must be read whole to be translated."""
_EVENTS, _JSON = b"text/event-stream; charset=utf-8", b"application/json"


def chat_path(path: str) -> str:
    """The endpoint of chat completions beside that of another dialect."""
    return f"{path.rstrip('/').rpartition('/')[0]}/chat/completions"


def chat_headers(headers: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The headers of a request as a chat server wants them: the key as a bearer's, and nothing of Anthropic's."""
    names = {name.lower(): value for name, value in headers}
    kept = [(k, v) for k, v in headers if k.lower() != "x-api-key" and not k.lower().startswith("anthropic-")]
    if "authorization" not in names and "x-api-key" in names:
        kept.append(("authorization", f"Bearer {names['x-api-key']}"))
    return kept


@dataclass(frozen=True)
class Said:
    """An answer in the caller's dialect."""

    content_type: bytes
    streamed: bool
    pieces: AsyncIterator[bytes]


class Translator:
    """Translates requests, and keeps the responses that later requests go on from by their id."""

    def __init__(self) -> None:
        self._kept = KeptResponses()

    def followed(self, body: JsonObject, dialect: Dialect, tenant: str) -> JsonObject:
        """The body with its whole history. Raises RefusedError for a `previous_response_id` that is not kept."""
        try:
            return self._kept.followed(body, tenant) if dialect == "responses" else body
        except DialectError as error:
            raise RefusedError(400, str(error)) from None

    def translated(self, given: JsonObject, edited: JsonMapping, dialect: Dialect, tenant: str) -> Translated:
        """given: as the caller sent it. edited: what is to be translated. Raises RefusedError."""
        if given.get("previous_response_id") is not None:  # the answer names it
            edited = {**edited, "previous_response_id": given["previous_response_id"]}
        try:
            made = translate(edited, dialect)
        except DialectError as error:
            raise RefusedError(400, str(error)) from None
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            said = clean(error) or type(error).__name__
            raise RefusedError(400, f"the request is none of the {dialect} dialect ({said})") from None
        return Translated(self._kept, given, made, dialect, tenant)


class Translated:
    """One request as a chat completion, and the way back of its answer."""

    def __init__(
        self, kept: KeptResponses, given: JsonObject, made: Translation, dialect: Dialect, tenant: str
    ) -> None:
        self._kept, self._given, self._made = kept, given, made
        self._dialect: Dialect = dialect
        self._tenant = tenant
        self.body = made.body

    async def answered(self, status: int, pieces: AsyncIterator[bytes], *, streamed: bool) -> Said:
        """The upstream's answer in the caller's dialect. Raises RefusedError for one that is none."""
        wanted = bool(self._given.get("stream"))
        if 200 <= status < 300 and streamed and wanted:
            return Said(_EVENTS, True, self._events(pieces))
        content = await _whole(pieces)
        if not 200 <= status < 300:
            return Said(_JSON, False, _once(dumped(failure(self._dialect, _error(content, status), status))))
        if wanted:  # asked for a stream, it answered in one piece
            return Said(_EVENTS, True, self._events(_once(b"data: " + _line(content) + b"\n\n")))
        try:
            made = self._made.gathered(content) if streamed else self._made.whole(content)
        except BackendError as error:
            raise RefusedError(502, str(error)) from None
        self._keep()
        return Said(_JSON, False, _once(dumped(made)))

    async def _events(self, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        events = self._made.events()
        async for piece in pieces:
            if made := events.feed(piece):
                yield made
        last = events.end()
        self._keep()  # before the caller learns the id
        yield last

    def _keep(self) -> None:
        if self._dialect == "responses":
            answer = self._made.answer
            self._kept.keep(self._given, self._tenant, answer.id, answer.output)


async def _once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def _whole(pieces: AsyncIterator[bytes]) -> bytes:
    found, size = [], 0
    async for piece in pieces:
        size += len(piece)
        if size > MOST_BYTES:
            raise RefusedError(502, f"the upstream's answer has over {MOST_BYTES:,} bytes")
        found.append(piece)
    return b"".join(found)


def _line(content: bytes) -> bytes:
    try:
        return json.dumps(json.loads(content)).encode()
    except (ValueError, RecursionError):
        return content.replace(b"\n", b" ")


def _error(content: bytes, status: int) -> str:
    """What the upstream said, in one line."""
    try:
        said = body_message(json.loads(content))[0]
    except (ValueError, RecursionError):
        said = content[:300].decode(errors="replace")
    return clean(said) or f"the upstream answered with status {status}"
