"""A proxy in this process in front of a server that records what reaches it."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

pytest.importorskip("starlette", reason="the proxy needs pip install 'leyline-kv[proxy]'")
pytest.importorskip("prometheus_client", reason="the proxy needs pip install 'leyline-kv[proxy]'")
pytest.importorskip("aiohttp", reason="the proxy needs pip install 'leyline-kv[proxy]'")

from aiohttp import web

ANNOUNCING = ("/server_info", "/get_server_info", "/workers")
POLICY = "truncate_older_than(n=1, max_chars=40)"


@dataclass
class Upstream:
    """A model server: `answer` is called with each request; `bodies` is what came. info: what it says of itself; asked:
    for what of it, and with which key.
    """

    answer: Callable[[httpx.Request], Any]
    requests: list[httpx.Request] = field(default_factory=list)
    info: dict[str, Any] | None = None
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests]

    async def serve(self, got: web.Request) -> web.StreamResponse:
        headers = list(got.headers.items())
        request = httpx.Request(got.method, f"http://up{got.path_qs}", headers=headers, content=await got.read())
        if got.path in ANNOUNCING:
            self.asked.append((got.path, got.headers.get("authorization")))
            return web.json_response(self.info) if self.info is not None else web.Response(status=404)
        self.requests.append(request)
        made = self.answer(request)
        answer = await made if inspect.isawaitable(made) else made
        response = web.StreamResponse(status=answer.status_code, headers=answer.headers)
        try:
            await response.prepare(got)
            async for piece in answer.stream:
                await response.write(piece)
        except httpx.HTTPError:
            assert got.transport is not None
            got.transport.abort()
        except (ConnectionError, asyncio.CancelledError) as error:
            self.left.set()
            if isinstance(error, asyncio.CancelledError):
                raise
        return response

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its address in this event loop."""
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self.serve)
        runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


@pytest.fixture
def upstream_of() -> Callable[[Callable[[httpx.Request], Any]], Upstream]:
    return Upstream


Call = Callable[[httpx.AsyncClient], Awaitable[Any]]


def reply(request: httpx.Request) -> httpx.Response:
    """What each dialect answers, whole or as events."""
    body = json.loads(request.content)
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 40}}
    if request.url.path.endswith("messages"):
        usage = {"input_tokens": 60, "cache_read_input_tokens": 40, "output_tokens": 5}
        whole: dict[str, Any] = {"role": "assistant", "content": [{"type": "text", "text": "ok"}], "usage": usage}
    elif request.url.path.endswith("responses"):
        usage = {"input_tokens": 100, "output_tokens": 5, "input_tokens_details": {"cached_tokens": 40}}
        whole = {"output": [], "usage": usage}
    else:
        whole = {"choices": [{"index": 0, "message": {"role": "assistant", "content": "ok"}}], "usage": usage}
    if not body.get("stream"):
        return httpx.Response(200, json=whole)
    events = [{"choices": [{"index": 0, "delta": {"content": "o"}}]}, {"choices": [], "usage": usage}]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return httpx.Response(200, content=text.encode(), headers={"content-type": "text/event-stream"})


@pytest.fixture
def through() -> Callable[..., Any]:
    """`through(call, answer=reply, policy=POLICY, token=None, ...)`: run `call(client)` against a proxy; gives both."""
    from leyline.harness import Editor
    from leyline.harness.proxy import ProxySettings, make_app

    def run(
        call: Call,
        answer: Callable[[httpx.Request], Any] = reply,
        policy: str = POLICY,
        *,
        editor: Any = None,
        audit: bool = False,
        at: str | None = None,
        info: dict[str, Any] | None = None,
        **settings: Any,
    ) -> tuple[Any, Upstream]:
        upstream = Upstream(answer, info=info)
        made = editor or Editor(policy, audit=audit, splice=True)

        async def main() -> Any:
            async with upstream.serving() as url:
                app = make_app(made, ProxySettings(at or f"{url}/v1", **settings))
                transport = httpx.ASGITransport(app, raise_app_exceptions=False)
                async with httpx.AsyncClient(transport=transport, base_url="http://proxy", timeout=60) as client:
                    try:
                        return await call(client)
                    finally:
                        await app.close()

        return asyncio.run(main()), upstream

    return run


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
