"""The proxy as an ASGI application: its own pages, and everything else on its way to the server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from leyline.harness.editor import Editor
from leyline.harness.proxy.access import TOKEN_HEADER, ProxySettings
from leyline.harness.proxy.errors import RefusedError
from leyline.harness.proxy.metrics import ProxyMetrics
from leyline.harness.proxy.relay import Relay
from leyline.harness.proxy.sessions import account
from leyline.harness.proxy.upstream import Upstream


def make_app(editor: Editor, settings: ProxySettings) -> ProxyApp:
    """The application. Give an editor made with `splice=True` unless `settings.splice` is False."""
    return ProxyApp(editor, settings)


class ProxyApp:
    """`close` ends its connections; a server that speaks ASGI's lifespan does so by itself."""

    def __init__(self, editor: Editor, settings: ProxySettings) -> None:
        self._editor, self._settings, self._metrics = editor, settings, ProxyMetrics()
        self._upstream = Upstream(settings.upstream, settings.timeout)
        self._relay = Relay(editor, settings, self._upstream, self._metrics)
        self._paths = {
            "/healthz": self._healthz,
            "/readyz": self._readyz,
            "/metrics": self._metrics_page,
            "/sessions": self._sessions,
        }

        @asynccontextmanager
        async def lifespan(app: Starlette) -> AsyncIterator[None]:
            yield
            await self.close()

        self._pages = Starlette(routes=[Route(path, page) for path, page in self._paths.items()], lifespan=lifespan)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A request with a history does not pay for the routes and the layers of a page.
        own = scope["type"] != "http" or scope["path"] in self._paths
        await (self._pages if own else self._relay)(scope, receive, send)

    async def close(self) -> None:
        await self._relay.announced.close()
        await self._upstream.close()

    async def _healthz(self, request: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def _readyz(self, request: Request) -> Response:
        """Ready where the upstream answers at all, whatever it says."""
        try:
            await self._upstream.ask(self._settings.url("/v1/models"), {}, 5.0)
        except RefusedError as error:
            return PlainTextResponse(f"not ready: {error}\n", 503)
        return PlainTextResponse("ok\n")

    async def _metrics_page(self, request: Request) -> Response:
        return self._guarded(request) or Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def _sessions(self, request: Request) -> Response:
        """The account of every conversation, turn by turn."""
        if refused := self._guarded(request):
            return refused
        return JSONResponse(account(self._editor.report(), splices=self._relay.announced.known))

    def _guarded(self, request: Request) -> Response | None:
        """The refusal of a page of the proxy's own, or None."""
        given = request.headers.get(TOKEN_HEADER) or request.query_params.get("token")
        return None if self._settings.is_token(given) else PlainTextResponse(f"token wanted in {TOKEN_HEADER}\n", 401)
