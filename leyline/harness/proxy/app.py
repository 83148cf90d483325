"""The proxy as an ASGI application: the history of a request is edited on its way; all else goes by as it is."""

from __future__ import annotations

import hmac
import json
import logging
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from hashlib import blake2b

import httpx
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from leyline.dialects import Dialect
from leyline.directives import LeylineError
from leyline.harness.editor import Editor, EditPlan
from leyline.harness.exchange import dialect_of, dumped, holds_history, refusal, session_of, watch
from leyline.harness.proxy.metrics import ProxyMetrics
from leyline.harness.proxy.sessions import account

log = logging.getLogger("leyline.proxy")

TOKEN_HEADER = "x-leyline-token"
MAX_BODY = 64 << 20
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
# Of one connection only (RFC 9110, 7.6.1), or said anew for the other one.
_HOP = (
    "connection keep-alive proxy-authenticate proxy-authorization proxy-connection te trailer transfer-encoding upgrade"
)
_OWN = frozenset([*_HOP.split(), "upgrade", "host", "content-length", "accept-encoding", "x-leyline-token"])


@dataclass(frozen=True)
class ProxySettings:
    """upstream: the server's root; a request's path is put behind it, with `/v1` where both have it taken once.
    token: what callers must send in `X-Leyline-Token`, or as the first part of the path; None asks for none.
    timeout: seconds between two pieces of an answer. max_body: bytes of a request.
    """

    upstream: str
    token: str | None = None
    timeout: float = 600.0
    max_body: int = MAX_BODY

    def url(self, path: str) -> str:
        """Where a request for `path` goes."""
        root = self.upstream.rstrip("/")
        if root.endswith("/v1") and (path == "/v1" or path.startswith("/v1/")):
            root = root.removesuffix("/v1")
        return root + path


def make_app(editor: Editor, settings: ProxySettings, *, client: httpx.AsyncClient | None = None) -> Starlette:
    """The application. client: sends the requests upstream; None makes one, which ends with the application."""
    proxy = _Proxy(editor, settings, client)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        await proxy.close()

    routes = [
        Route("/healthz", proxy.healthz),
        Route("/readyz", proxy.readyz),
        Route("/metrics", proxy.metrics_page),
        Route("/sessions", proxy.sessions),
        Route("/{path:path}", proxy.any, methods=_METHODS),
    ]
    return Starlette(routes=routes, lifespan=lifespan)


class _RefusedError(Exception):
    """A request that is answered here."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Proxy:
    def __init__(self, editor: Editor, settings: ProxySettings, client: httpx.AsyncClient | None) -> None:
        self.editor, self.settings, self.metrics = editor, settings, ProxyMetrics()
        self._client = client or httpx.AsyncClient(
            timeout=httpx.Timeout(settings.timeout, connect=10.0, pool=60.0),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=256),
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def healthz(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        """Ready where the upstream answers at all, whatever it says."""
        try:
            await self._client.get(self.settings.url("/v1/models"), timeout=5.0)
        except httpx.HTTPError as error:
            return PlainTextResponse(f"not ready: {_reason(error, self.settings.upstream)}\n", 503)
        return PlainTextResponse("ok\n")

    async def metrics_page(self, request: Request) -> Response:
        return self._guarded(request) or Response(self.metrics.text(), media_type="text/plain; version=0.0.4")

    async def sessions(self, request: Request) -> Response:
        """The account of every conversation, turn by turn."""
        return self._guarded(request) or JSONResponse(account(self.editor.report()))

    async def any(self, request: Request) -> Response:
        path, allowed = self._admitted(request)
        dialect = dialect_of(path) if request.method == "POST" else None
        if not allowed:
            return self._answer(_RefusedError(401, f"this proxy wants its token in {TOKEN_HEADER}"), dialect)
        self.metrics.active.inc()
        response: Response
        try:
            response = await self._send(request, path, dialect)
        except _RefusedError as refused:
            response = self._answer(refused, dialect)
        except ClientDisconnect:
            response = Response(status_code=499)
        self.metrics.requests.labels(dialect or "other", str(response.status_code)).inc()
        if not isinstance(response, StreamingResponse):
            self.metrics.active.dec()
        return response

    def _guarded(self, request: Request) -> Response | None:
        """The refusal of a page of the proxy's own, or None."""
        given = request.headers.get(TOKEN_HEADER) or request.query_params.get("token")
        return None if self._is_token(given) else PlainTextResponse(f"token wanted in {TOKEN_HEADER}\n", 401)

    def _is_token(self, given: str | None) -> bool:
        wanted = self.settings.token
        return wanted is None or hmac.compare_digest((given or "").encode(), wanted.encode())

    def _admitted(self, request: Request) -> tuple[str, bool]:
        """The path to ask for, and whether the caller may. A client without headers has the token in its base URL."""
        path = request.url.path
        if self.settings.token is None or self._is_token(request.headers.get(TOKEN_HEADER)):
            return path, True
        first, _, rest = path.removeprefix("/").partition("/")
        return f"/{rest}", self._is_token(first)

    async def _send(self, request: Request, path: str, dialect: Dialect | None) -> Response:
        content = await self._body(request)
        plan = await self._plan(request, content, dialect) if dialect is not None else None
        if plan is not None and plan.edited:
            content = dumped(plan.body or {})
        headers = _forwarded(request.headers)
        if plan is not None:
            tenant = _tenant(request.headers)
            headers += plan.headers_beside(request.headers, tenant).items()
        url = httpx.URL(self.settings.url(path), query=request.url.query.encode() or None)
        sent = self._client.build_request(request.method, url, headers=headers, content=content)
        try:
            answer = await self._client.send(sent, stream=True)
        except httpx.TimeoutException as error:
            raise _RefusedError(504, _reason(error, self.settings.upstream)) from None
        except httpx.HTTPError as error:
            raise _RefusedError(502, _reason(error, self.settings.upstream)) from None
        taken = plan if plan is not None and answer.is_success else None
        if taken is not None:
            try:
                taken.served()
            except LeylineError as error:  # the ledger's disk: what was not written down was not acknowledged
                await answer.aclose()
                raise _RefusedError(507, str(error)) from None
            watch(answer, taken)
        passed = [(name, value) for name, value in answer.headers.multi_items() if name.lower() not in _OWN]
        response = StreamingResponse(self._pieces(answer, taken, dialect), answer.status_code)
        response.raw_headers = [
            (name.lower().encode("latin-1"), value.encode("latin-1"))
            for name, value in passed
            if name.lower() != "content-encoding"  # undone by now
        ]
        return response

    async def _body(self, request: Request) -> bytes:
        pieces, size = [], 0
        async for piece in request.stream():
            size += len(piece)
            if size > self.settings.max_body:
                raise _RefusedError(
                    413, f"the request has over {self.settings.max_body:,} bytes; send a shorter history"
                )
            pieces.append(piece)
        return b"".join(pieces)

    async def _plan(self, request: Request, content: bytes, dialect: Dialect) -> EditPlan | None:
        """The edits of a request; None for one that holds no history: the server says itself what is wrong with it."""
        if request.headers.get("content-encoding", "identity") != "identity":
            raise _RefusedError(415, "a compressed request cannot be edited; send it without content-encoding")
        try:
            body = json.loads(content)
        except (ValueError, RecursionError):
            return None
        if not isinstance(body, dict) or not holds_history(body, dialect):
            return None
        tenant, named = _tenant(request.headers), session_of(request.headers)
        started = time.perf_counter()
        try:
            # Conversations are a caller's own: its key goes into the names by which they are told apart.
            return await self.editor.aplan(
                body,
                dialect=dialect,
                session=None if named is None else f"{tenant}/{named}",
                model=f"{tenant}/{body.get('model')}",
            )
        except LeylineError as error:
            raise _RefusedError(400, str(error)) from None
        except Exception:  # a bug must not send on what a policy may have had to redact
            log.exception("editing a request failed")
            raise _RefusedError(500, "editing the request failed; see the proxy's log") from None
        finally:
            self.metrics.planning.observe(time.perf_counter() - started)

    async def _pieces(
        self, answer: httpx.Response, plan: EditPlan | None, dialect: Dialect | None
    ) -> AsyncIterator[bytes]:
        """The answer as it comes. One that breaks off says so where its form has a place for it, and ends broken."""
        try:
            async for piece in answer.aiter_bytes():
                yield piece
        except httpx.HTTPError as error:
            said = _reason(error, self.settings.upstream)
            log.warning("an answer broke off: %s", said)
            if dialect is None or "text/event-stream" not in answer.headers.get("content-type", ""):
                raise
            event = b"event: error\n" if dialect != "chat" else b""
            yield b"\n" + event + b"data: " + dumped(_upstream_error(dialect, said)) + b"\n\n"
        finally:
            await answer.aclose()
            self.metrics.active.dec()
            if plan is not None and plan.turn is not None:
                self.metrics.served(plan.turn)

    def _answer(self, refused: _RefusedError, dialect: Dialect | None) -> Response:
        """A refusal in the caller's dialect."""
        log.warning("refused with %d: %s", refused.status, refused)
        if dialect is None:
            return PlainTextResponse(f"leyline: {refused}\n", refused.status)
        said = refusal(dialect, f"leyline: {refused}")
        if refused.status >= 500:
            said = _upstream_error(dialect, f"leyline: {refused}")
        return Response(dumped(said), refused.status, media_type="application/json")


def _upstream_error(dialect: Dialect, message: str) -> dict[str, object]:
    """A server's error in the words of a dialect."""
    if dialect == "messages":
        return {"type": "error", "error": {"type": "api_error", "message": message}}
    if dialect == "responses":
        return {"type": "error", "code": "server_error", "message": message, "param": None}
    return {"error": {"message": message, "type": "server_error", "param": None, "code": "leyline"}}


def _forwarded(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """What goes upstream: all that is not of this connection. The answer is asked for uncompressed, to be read."""
    named = {token.strip().lower() for token in headers.get("connection", "").split(",")}
    kept = [(name, value) for name, value in headers.items() if name.lower() not in _OWN | named]
    return [*kept, ("accept-encoding", "identity")]


def _tenant(headers: Mapping[str, str]) -> str:
    """A short digest of the caller's key: it tells callers apart and gives nothing away."""
    key = headers.get("authorization") or headers.get("x-api-key") or headers.get("api-key") or ""
    return blake2b(key.encode(errors="backslashreplace"), digest_size=6, key=b"leyline-proxy").hexdigest()


def _reason(error: Exception, upstream: str) -> str:
    """What went wrong with the upstream, in one line without its headers."""
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        return f"cannot connect to {upstream}; start it, or correct --upstream"
    if isinstance(error, httpx.TimeoutException):
        return f"no answer from {upstream} in time; raise --timeout or lower the load"
    said = " ".join(str(error).split())[:200] or type(error).__name__
    return f"the connection to {upstream} broke off ({said})"
