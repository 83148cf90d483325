"""A proxy in this process in front of a server that records what reaches it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

pytest.importorskip("starlette", reason="the proxy needs pip install 'leyline-kv[proxy]'")
pytest.importorskip("prometheus_client", reason="the proxy needs pip install 'leyline-kv[proxy]'")

POLICY = "truncate_older_than(n=1, max_chars=40)"


@dataclass
class Upstream:
    """A model server: `answer` is called with each request; `bodies` and `headers` are what came."""

    answer: Callable[[httpx.Request], httpx.Response]
    requests: list[httpx.Request] = field(default_factory=list)

    @property
    def bodies(self) -> list[Any]:
        return [json.loads(request.content) for request in self.requests]

    def serve(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.answer(request)


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
    import anyio

    from leyline.harness import Editor
    from leyline.harness.proxy import ProxySettings, make_app

    def run(
        call: Call,
        answer: Callable[[httpx.Request], httpx.Response] = reply,
        policy: str = POLICY,
        *,
        editor: Any = None,
        audit: bool = False,
        **settings: Any,
    ) -> tuple[Any, Upstream]:
        upstream = Upstream(answer)
        made = editor or Editor(policy, audit=audit)

        async def main() -> Any:
            inner = httpx.AsyncClient(transport=httpx.MockTransport(upstream.serve))
            app = make_app(made, ProxySettings("http://up/v1", **settings), client=inner)
            transport = httpx.ASGITransport(app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://proxy", timeout=60) as client:
                return await call(client)

        return anyio.run(main), upstream

    return run


async def pieces(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part
