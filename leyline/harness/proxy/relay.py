"""One request on its way: read, edited, sent on, and its answer passed back piece by piece."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from typing import TypeVar

import aiohttp
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from leyline.backends.contract import BackendError
from leyline.dialects import Dialect, DialectError
from leyline.directives import JsonObject, LeylineError
from leyline.harness.editor import Editor, EditPlan
from leyline.harness.exchange import Reader, dialect_of, dumped, holds_history, is_stream, reader_of, session_of
from leyline.harness.proxy import errors
from leyline.harness.proxy.access import TOKEN_HEADER, ProxySettings
from leyline.harness.proxy.announced import KEYS, Announced
from leyline.harness.proxy.errors import RefusedError
from leyline.harness.proxy.metrics import ProxyMetrics
from leyline.harness.proxy.translator import Translated, Translator, chat_headers, chat_path
from leyline.harness.proxy.upstream import Upstream
from leyline.policies import keep_all

log = logging.getLogger("leyline.proxy")
T = TypeVar("T")

# Of one connection only (RFC 9110, 7.6.1), or said anew for the other one.
_HOP = (
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade"
)
_OWN = frozenset([*_HOP.split(), "expect", "host", "content-length", "accept-encoding", TOKEN_HEADER])
_DECODED = frozenset({"gzip", "deflate", "br", "zstd"})  # by aiohttp, though it is asked for none
_GONE = 499  # as nginx counts a caller that went away
_SMALL, _SLOW = 64 << 10, 0.02
"""A request of so many bytes is planned in the event loop, which costs less than handing it to a thread, as long as no
plan took so many seconds of a processor there, or ten times as many in all."""


@dataclass
class Sent:
    """A request as it goes upstream. plan: None where it holds no history. translated: where the upstream speaks
    another dialect than the caller.
    """

    method: str
    url: str
    headers: list[tuple[str, str]]
    content: bytes
    plan: EditPlan | None
    translated: Translated | None = None


class Relay:
    """The ASGI application of every route that is not the proxy's own."""

    def __init__(self, editor: Editor, settings: ProxySettings, upstream: Upstream, metrics: ProxyMetrics) -> None:
        self._editor, self._settings, self._upstream, self._metrics = editor, settings, upstream, metrics
        self.announced = Announced(upstream, settings.splice)
        self._translator = Translator()
        self._in_loop = True

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        path, allowed = self._settings.admitted(request)
        dialect = dialect_of(path) if request.method == "POST" else None
        self._metrics.active.inc()
        status = 500
        try:
            if not allowed:
                raise RefusedError(401, f"this proxy wants its token in {TOKEN_HEADER}")
            status = await self._exchange(request, path, dialect, send)
        except RefusedError as refused:
            status = refused.status
            await errors.answer(refused, dialect)(scope, receive, send)
        except (ClientDisconnect, OSError):
            status = _GONE
        except Exception:
            log.exception("a request failed")
            await errors.answer(RefusedError(500, "the request failed; see the proxy's log"), dialect)(
                scope, receive, send
            )
        finally:
            self._metrics.active.dec()
            self._metrics.requests.labels(dialect or "other", str(status)).inc()

    async def _exchange(self, request: Request, path: str, dialect: Dialect | None, send: Send) -> int:
        """Send it on and pass the answer back. Returns the status. Raises RefusedError before the answer began."""
        sent = await self._prepared(request, path, dialect, await self._body(request))
        gone = asyncio.create_task(_until_gone(request.receive))
        try:
            answer = await _unless(gone, self._upstream.send(sent.method, sent.url, sent.headers, sent.content))
            try:
                plan = sent.plan if 200 <= answer.status < 300 else None
                self._served(plan)
                await _unless(gone, self._answered(answer, plan, sent.translated, dialect, send))
            finally:
                answer.release()  # which closes the connection where the answer was not read to its end
                if plan is not None and plan.turn is not None:
                    self._metrics.served(plan.turn)
            return answer.status
        finally:
            gone.cancel()

    def _served(self, plan: EditPlan | None) -> None:
        try:
            if plan is not None:
                plan.served()
        except LeylineError as error:  # the ledger's disk: what was not written down was not acknowledged
            raise RefusedError(507, str(error)) from None

    async def _body(self, request: Request) -> bytes:
        pieces, size = [], 0
        async for piece in request.stream():
            size += len(piece)
            if size > self._settings.max_body:
                most = self._settings.max_body
                raise RefusedError(413, f"the request has over {most:,} bytes; send a shorter history")
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def _prepared(self, request: Request, path: str, dialect: Dialect | None, content: bytes) -> Sent:
        tenant = _tenant(request.headers)
        headers = _forwarded(request.headers)
        query = request.scope["query_string"].decode("latin-1")
        translated: Translated | None = None
        plan: EditPlan | None = None
        if dialect is not None and dialect != "chat" and self._settings.chat_upstream:
            given = _object(request, content)
            if given is None or not holds_history(given, dialect):
                raise RefusedError(400, "the request is no JSON object with a history")
            body = self._translator.followed(given, dialect, tenant)
            plan = await self._plan(request, body, dialect, tenant, len(content))
            translated = self._translator.translated(given, (plan and plan.body) or body, dialect, tenant)
            content, headers = dumped(translated.body), chat_headers(headers)
            path, query = chat_path(path), ""
        elif dialect is not None:
            read = _object(request, content)
            if read is not None and holds_history(read, dialect):
                plan = await self._plan(request, read, dialect, tenant, len(content))
            if plan is not None and plan.edited:
                content = dumped(plan.body or {})
        if plan is not None:
            headers += plan.headers_beside(request.headers, tenant).items()
        return Sent(request.method, self._settings.url(path, query), headers, content, plan, translated)

    async def _plan(
        self, request: Request, body: JsonObject, dialect: Dialect, tenant: str, size: int
    ) -> EditPlan | None:
        """The edits of a request; None where it cannot be read and there is nothing to edit in any."""
        named = session_of(request.headers)
        sent_as: Dialect = "chat" if self._settings.chat_upstream else dialect
        splice = await self.announced.splices(request.headers) if sent_as == "chat" else False
        started = time.perf_counter()
        try:
            plan = partial(
                self._editor.plan,
                body,
                dialect=dialect,
                # Conversations are a caller's own: its key goes into the names by which they are told apart.
                session=None if named is None else f"{tenant}/{named}",
                model=f"{tenant}/{body.get('model')}",
                splice=splice,
                sent_as=sent_as,
            )
            if not self._in_loop or size > _SMALL:
                return await asyncio.to_thread(plan)
            own = time.thread_time()  # on a busy machine the clock on the wall says nothing of the policy
            made = plan()
            self._in_loop = time.thread_time() - own < _SLOW and time.perf_counter() - started < 10 * _SLOW
            return made
        except LeylineError as error:
            if isinstance(error, DialectError) and isinstance(self._editor.policy, keep_all):
                return None
            raise RefusedError(400, str(error)) from None
        except Exception:  # a bug must not send on what a policy may have had to redact
            log.exception("editing a request failed")
            raise RefusedError(500, "editing the request failed; see the proxy's log") from None
        finally:
            self._metrics.planning.observe(time.perf_counter() - started)

    async def _answered(
        self,
        answer: aiohttp.ClientResponse,
        plan: EditPlan | None,
        translated: Translated | None,
        dialect: Dialect | None,
        send: Send,
    ) -> None:
        """The answer as it comes. One that breaks off says so where its form has a place for it, and ends broken."""
        streamed = is_stream(answer.headers)
        reader = reader_of(plan, streamed=streamed) if plan is not None else None
        headers = _passed(answer, streamed=streamed)
        pieces = read_by(reader, self._upstream.pieces(answer))
        if translated is not None:
            said = await translated.answered(answer.status, pieces, streamed=streamed)
            headers = [pair for pair in headers if pair[0] not in (b"content-type", b"content-length")]
            headers.append((b"content-type", said.content_type))
            streamed, pieces = said.streamed, said.pieces
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        rest = b""
        try:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        except (RefusedError, BackendError) as error:
            log.warning("an answer broke off: %s", error)
            if dialect is None or not streamed:
                return  # without an end, which a server passes on by closing the connection
            rest = b"\n\n" + errors.event(dialect, f"leyline: {error}")
        await send({"type": "http.response.body", "body": rest, "more_body": False})


async def read_by(reader: Reader | None, pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The pieces of an answer, while `reader` counts what they tell."""
    async for piece in pieces:
        kept = reader.feed(piece) if reader is not None else piece
        if kept:
            yield kept
    rest = reader.end() if reader is not None else b""
    if rest:
        yield rest


def _passed(answer: aiohttp.ClientResponse, *, streamed: bool) -> list[tuple[bytes, bytes]]:
    """The headers of an answer; its length where what is passed on has the same."""
    decoded = answer.headers.get("content-encoding", "").lower() in _DECODED
    passed = []
    for name, value in answer.headers.items():
        low = name.lower()
        same = low == "content-length" and not decoded and not streamed
        if (low not in _OWN or same) and not (low == "content-encoding" and decoded):
            passed.append((low.encode("latin-1"), value.encode("latin-1", "replace")))
    return passed


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _unless(gone: asyncio.Task[None], work: Coroutine[object, object, T]) -> T:
    """Do `work` unless the caller goes away meanwhile: then it is cancelled. Raises ClientDisconnect."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({gone, task}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise ClientDisconnect
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})


def _object(request: Request, content: bytes) -> JsonObject | None:
    """The body of a request; None where it is no JSON object."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RefusedError(415, "a compressed request cannot be edited; send it without content-encoding")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _forwarded(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """What goes upstream: all that is not of this connection. The answer is asked for uncompressed, to be read."""
    named = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    kept = [(name, value) for name, value in headers.items() if name.lower() not in _OWN | named]
    return [*kept, ("accept-encoding", "identity")]


def _tenant(headers: Mapping[str, str]) -> str:
    """A short digest of the caller's key: it tells callers apart and gives nothing away."""
    key = next((headers[name] for name in KEYS if headers.get(name)), "")
    return blake2b(key.encode(errors="backslashreplace"), digest_size=6, key=b"leyline-proxy").hexdigest()
