"""`leyline.transport(policy)`: an httpx transport that edits the histories of any client that is built on httpx."""

from __future__ import annotations

import json
import sys
from collections.abc import MutableMapping
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx

from leyline.dialects import Dialect, DialectError
from leyline.directives import JsonObject, LeylineError, Mode
from leyline.harness.editor.editor import MAX_CONVERSATIONS, Editor
from leyline.harness.editor.plan import EditPlan
from leyline.harness.exchange import dialect_of, dumped, holds_history, refusal, session_of, watch
from leyline.policies import Policy, keep_all
from leyline.rendering.renderer import TokenRenderer


def transport(
    policy: str | Policy = "keep_all",
    *,
    inner: object = None,
    mode: Mode | str = Mode.AMORTIZE,
    audit: bool = False,
    renderer: TokenRenderer | None = None,
    splice: bool = False,
    seam: int = 0,
    honest: bool = False,
    purge: bool = False,
    max_conversations: int = MAX_CONVERSATIONS,
    records: str | Path | None = None,
    store: MutableMapping[str, str] | None = None,
) -> Transport:
    """A transport for `httpx.Client(transport=...)` and `httpx.AsyncClient(transport=...)`, and those of `httpx2`.

    inner: the transport that sends; None takes httpx's own. The other settings are those of `Editor`.

    Requests to `/chat/completions`, `/responses` and `/messages` are edited, and any other goes by. Without an edit the
    very bytes of the client are sent. A history that cannot be read and a policy that fails are answered with status
    400 in the words of the dialect, and nothing is sent. `transport.leyline` is the `Editor`.
    Raises PolicyError or InputError for settings that cannot be used.
    """
    editor = Editor(
        policy,
        mode=mode,
        audit=audit,
        renderer=renderer,
        splice=splice,
        seam=seam,
        honest=honest,
        purge=purge,
        max_conversations=max_conversations,
        records=records,
        store=store,
        owner="transport",
    )
    return Transport(editor, inner)


class Transport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """See `transport`. One of these may serve any number of clients, synchronous and asynchronous ones."""

    def __init__(self, editor: Editor, inner: object = None) -> None:
        self.leyline = editor
        self._inner = inner
        self._made: JsonObject = {}

    def handle_request(self, request: Any) -> Any:
        web, inner = self._sender(request, "HTTPTransport")
        dialect = _edited(request)
        if dialect is None:
            return inner.handle_request(request)
        try:
            plan, content = self._plan(dialect, request.read(), request.headers)
        except LeylineError as error:
            return _refused(web, request, dialect, error)
        response = inner.handle_request(_with(web, request, plan, content))
        return _served(response, plan)

    async def handle_async_request(self, request: Any) -> Any:
        from anyio import to_thread  # httpx brings it

        web, inner = self._sender(request, "AsyncHTTPTransport")
        dialect = _edited(request)
        if dialect is None:
            return await inner.handle_async_request(request)
        body = await request.aread()
        try:
            plan, content = await to_thread.run_sync(self._plan, dialect, body, request.headers)
        except LeylineError as error:
            return _refused(web, request, dialect, error)
        response = await inner.handle_async_request(_with(web, request, plan, content))
        return _served(response, plan)

    def close(self) -> None:
        for name, made in self._made.items():
            if not name.endswith("AsyncHTTPTransport"):
                made.close()
        if hasattr(self._inner, "close"):
            self._inner.close()

    async def aclose(self) -> None:
        for name, made in self._made.items():
            if name.endswith("AsyncHTTPTransport"):
                await made.aclose()
        if hasattr(self._inner, "aclose"):
            await self._inner.aclose()

    def _sender(self, request: object, kind: str) -> tuple[ModuleType, Any]:
        """The library of a request, httpx or its successor, and the transport that sends it."""
        web = sys.modules[type(request).__module__.partition(".")[0]]
        if self._inner is not None:
            return web, self._inner
        name = f"{web.__name__}.{kind}"
        if name not in self._made:
            self._made.setdefault(name, getattr(web, kind)())
        return web, self._made[name]

    def _plan(self, dialect: Dialect, content: bytes, headers: Any) -> tuple[EditPlan | None, bytes | None]:
        """The plan of a request, None where there is nothing to plan, and its content where that changes."""
        editor = self.leyline
        try:
            body = _body(content, headers)
            if body is None or not holds_history(body, dialect):
                return None, None
            plan = editor.plan(body, dialect=dialect, session=session_of(headers))
        except DialectError:
            if isinstance(editor.policy, keep_all):
                return None, None  # there is nothing to edit in any history
            raise
        return plan, dumped(plan.body) if plan.edited and plan.body is not None else None


def _edited(request: Any) -> Dialect | None:
    return dialect_of(request.url.path) if request.method == "POST" else None


def _body(content: bytes, headers: Any) -> JsonObject | None:
    """The body of a request; None where it is no JSON object, which is the server's to refuse."""
    encoding = headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise DialectError(f"the request is sent with content-encoding {encoding}; send it uncompressed")
    try:
        body = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return body if isinstance(body, dict) else None


def _with(web: Any, request: Any, plan: EditPlan | None, content: bytes | None) -> Any:
    """The request with another content, where there is one, and the headers that keep it on its replica.

    The client's own request stays as it is: a redirect is made of it, and must not name a conversation.
    """
    if plan is None:
        return request
    left_out = ("content-length", "transfer-encoding")
    headers = [(key, value) for key, value in request.headers.raw if key.decode("ascii").lower() not in left_out]
    headers += [(key.encode(), value.encode()) for key, value in plan.headers_beside(request.headers).items()]
    content = request.content if content is None else content
    return web.Request(request.method, request.url, headers=headers, content=content, extensions=request.extensions)


def _served(response: Any, plan: EditPlan | None) -> Any:
    if plan is not None and response.is_success:
        plan.served()
        watch(response, plan)
    return response


def _refused(web: Any, request: Any, dialect: Dialect, error: LeylineError) -> Any:
    return web.Response(400, json=refusal(dialect, f"leyline: {error}"), request=request)
