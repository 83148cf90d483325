"""One HTTP exchange through an editor: which dialect a path speaks, and what a response says, read as it goes by."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Protocol

from leyline.dialects import Dialect
from leyline.dialects.plain import as_message
from leyline.directives import JsonObject
from leyline.harness.editor.plan import EditPlan
from leyline.harness.editor.told import is_receipt

SESSION_HEADER = "x-session-id"
_LARGEST = 16 << 20  # bytes of a response that is read for its usage; a larger one goes by uncounted


def dialect_of(path: str) -> Dialect | None:
    """The dialect of an endpoint's path or URL; None for any other endpoint."""
    parts = path.partition("?")[0].rstrip("/").split("/")
    if parts[-2:] == ["chat", "completions"]:
        return "chat"
    if parts[-1] == "responses":
        return "responses"
    return "messages" if parts[-1] == "messages" and "threads" not in parts else None


def session_of(headers: Mapping[str, object]) -> str | None:
    """The session id of a request. Of several spellings the last counts; a value that is no text leaves it out."""
    named = {str(key).lower(): value for key, value in headers.items()}.get(SESSION_HEADER)
    return named if isinstance(named, str) else None


def holds_history(body: Mapping[str, object], dialect: Dialect) -> bool:
    """Whether a body has a history at all. One that has none is the server's to refuse, in its own words."""
    items = body.get("input" if dialect == "responses" else "messages")
    if isinstance(items, str):
        return dialect == "responses"
    return isinstance(items, (list, tuple)) and all(as_message(item) is not None for item in items)


def changed(before: Mapping[str, object], after: Mapping[str, object]) -> JsonObject:
    """The fields of a body that an edit changed or added."""
    return {key: value for key, value in after.items() if key not in before or before[key] is not value}


def dumped(body: Mapping[str, object]) -> bytes:
    """A body as JSON. A lone surrogate, which UTF-8 cannot hold, is escaped as its client escaped it."""
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(body, separators=(",", ":")).encode()


def refusal(dialect: Dialect, message: str) -> JsonObject:
    """An error in the words of a dialect, for a request that is not sent on."""
    if dialect == "messages":
        return {"type": "error", "error": {"type": "invalid_request_error", "message": message}}
    return {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": "leyline"}}


def watch(response: Any, plan: EditPlan) -> None:
    """Count the usage and the receipt of an httpx response for a plan, now or while the response is read.

    response: an `httpx.Response` (or of its twin `httpx2`), read or not. Its content stays as it is, but that a
    receipt, which the harness did not ask for, is kept out of a stream of events.
    """
    streamed = is_stream(response.headers)
    reader = reader_of(plan, streamed=streamed)
    if response.is_stream_consumed and not streamed:
        reader.feed(response.content)
        reader.end()
        return
    sync, later = response.iter_bytes, response.aiter_bytes

    def iter_bytes(*args: Any, **options: Any) -> Iterator[bytes]:
        for piece in sync(*args, **options):
            passed = reader.feed(piece)
            if passed:
                yield passed
        rest = reader.end()
        if rest:
            yield rest

    async def aiter_bytes(*args: Any, **options: Any) -> AsyncIterator[bytes]:
        async for piece in later(*args, **options):
            passed = reader.feed(piece)
            if passed:
                yield passed
        rest = reader.end()
        if rest:
            yield rest

    response.iter_bytes, response.aiter_bytes = iter_bytes, aiter_bytes


def is_stream(headers: Mapping[str, str]) -> bool:
    """Whether a response is a stream of events."""
    return "text/event-stream" in headers.get("content-type", "")


class Reader(Protocol):
    """Reads a response piece by piece; what its methods return is passed on."""

    def feed(self, piece: bytes) -> bytes: ...

    def end(self) -> bytes: ...


def reader_of(plan: EditPlan, *, streamed: bool) -> Reader:
    """What counts the usage of a response piece by piece: `feed` gives what to pass on, and so does `end`."""
    return _Events(plan) if streamed else _Whole(plan)


class _Whole:
    """A response in one piece: read at its end."""

    def __init__(self, plan: EditPlan) -> None:
        self._plan, self._pieces, self._size = plan, list[bytes](), 0

    def feed(self, piece: bytes) -> bytes:
        self._size += len(piece)
        if self._size <= _LARGEST:
            self._pieces.append(piece)
        return piece

    def end(self) -> bytes:
        if self._size <= _LARGEST:
            _count(self._plan.served, b"".join(self._pieces))
        self._pieces.clear()
        return b""


class _Events:
    """A stream of events, each read as it goes by; where a receipt was asked for, its event is left out."""

    def __init__(self, plan: EditPlan) -> None:
        self._plan, self._rest = plan, b""
        self._hide = bool(plan.request_fields)

    def feed(self, piece: bytes) -> bytes:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        kept: list[bytes] = []
        for line in lines:
            if self._is_receipt(line):
                continue  # the empty line behind it ends no event, which the rules of event streams allow
            kept.append(line + b"\n")
        return b"".join(kept) if self._hide else piece

    def end(self) -> bytes:
        rest, self._rest = self._rest, b""
        hidden = self._is_receipt(rest)
        return rest if self._hide and not hidden else b""

    def _is_receipt(self, line: bytes) -> bool:
        """Count the usage of a line; whether it is a receipt that the harness is not to see."""
        if not line.startswith(b"data:") or not (b'"usage' in line or b'"leyline"' in line):
            return False
        found = _count(self._plan.served, line[5:])
        return self._hide and found is not None and is_receipt(found)


def _count(served: Callable[[object], None], text: bytes) -> Any:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(found, dict):
        served(found)
    return found
