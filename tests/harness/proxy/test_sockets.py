"""The proxy on real sockets: servers that are down, slow or cut short, callers that leave, and 64 MiB at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from leyline.harness import Editor
from leyline.harness.proxy import ProxySettings, make_app

pytest.importorskip("uvicorn", reason="the proxy needs pip install 'leyline-kv[proxy]'")

POLICY = "truncate_older_than(n=1, max_chars=40)"
KEY = "sk-very-secret"
SSE = {"content-type": "text/event-stream"}
CHUNK = b'data: {"choices": [{"index": 0, "delta": {"content": "o"}}]}\n\n'
Answer = Callable[[httpx.Request], Any]
Make = Callable[[Answer], Any]


def body(dialect: str, **more: Any) -> dict[str, Any]:
    history = [{"role": "user", "content": "Fix it."}]
    return {"model": "m", "max_tokens": 9, "input" if dialect == "responses" else "messages": history, **more}


@contextlib.asynccontextmanager
async def live(make: Make, answer: Answer, *, at: str | None = None, **settings: Any) -> AsyncIterator[tuple[str, Any]]:
    """The address of a proxy that listens, in front of a server that answers so, which is given too."""
    import uvicorn

    upstream = make(answer)
    async with upstream.serving() as url:
        app = make_app(Editor(POLICY, splice=True), ProxySettings(at or url, **settings))
        listening = socket.socket()
        listening.bind(("127.0.0.1", 0))
        config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        running = asyncio.create_task(server.serve(sockets=[listening]))
        while not server.started:
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}", upstream
        finally:
            server.should_exit = True
            await running
            listening.close()


WAYS = {
    "chat": ("/v1/chat/completions", "chat", False),
    "responses": ("/v1/responses", "responses", False),
    "messages": ("/v1/messages", "messages", False),
    "responses over chat": ("/v1/responses", "responses", True),
    "messages over chat": ("/v1/messages", "messages", True),
}


async def ask(url: str, way: str, **more: Any) -> httpx.Response:
    path, dialect, _ = WAYS[way]
    async with httpx.AsyncClient(timeout=60) as client:
        headers = {"authorization": f"Bearer {KEY}", "x-private": "my-own-header"}
        return await client.post(url + path, json=body(dialect, **more), headers=headers)


def said(answer: httpx.Response, way: str) -> str:
    error = answer.json()["error"]
    assert way.startswith("messages") == (answer.json().get("type") == "error")
    return str(error["message"])


def slow(request: httpx.Request) -> Any:
    async def later() -> httpx.Response:
        await asyncio.sleep(5)
        return httpx.Response(200)

    return later()


def stalled(request: httpx.Request) -> httpx.Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield CHUNK
        await asyncio.sleep(5)

    return httpx.Response(200, content=pieces(), headers=SSE)


def cut(request: httpx.Request) -> httpx.Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield CHUNK
        raise httpx.ReadError("reset")

    return httpx.Response(200, content=pieces(), headers=SSE)


def cut_whole(request: httpx.Request) -> httpx.Response:
    async def pieces() -> AsyncIterator[bytes]:
        yield b'{"choices"'
        raise httpx.ReadError("reset")

    return httpx.Response(200, content=pieces(), headers={"content-type": "application/json", "content-length": "99"})


@pytest.mark.parametrize("way", WAYS)
def test_every_failure_of_the_server_is_told(upstream_of: Make, way: str, caplog: pytest.LogCaptureFixture) -> None:
    translated = WAYS[way][2]
    settings: dict[str, Any] = {"chat_upstream": translated}

    async def main() -> None:
        async with live(upstream_of, slow, at="http://127.0.0.1:9", **settings) as (url, _):
            answer = await ask(url, way)
            assert (answer.status_code, "cannot connect" in said(answer, way)) == (502, True)
        async with live(upstream_of, slow, timeout=0.2, **settings) as (url, _):
            answer = await ask(url, way)
            assert (answer.status_code, "in time" in said(answer, way)) == (504, True)
        for status in (429, 500):
            error = httpx.Response(status, json={"error": {"message": "busy"}}, headers={"retry-after": "7"})
            async with live(upstream_of, lambda request, error=error: error, **settings) as (url, _):  # type: ignore[misc]
                answer = await ask(url, way)
                assert (answer.status_code, answer.headers["retry-after"]) == (status, "7")
                assert "busy" in answer.text
        for answers in (stalled, cut):
            async with live(upstream_of, answers, timeout=0.3, **settings) as (url, _):
                answer = await ask(url, way, stream=True)
                assert answer.status_code == 200
                events = [json.loads(line[5:]) for line in answer.text.splitlines() if line.startswith("data:")]
                assert "leyline: " in json.dumps(events[-1].get("error"))
        async with live(upstream_of, cut_whole, **settings) as (url, upstream):
            if translated:
                answer = await ask(url, way)
                assert (answer.status_code, "upstream" in said(answer, way)) == (502, True) or "broke" in answer.text
            else:
                with pytest.raises(httpx.RemoteProtocolError):
                    await ask(url, way)
            page = httpx.Response(200, content=b"<html>busy</html>", headers={"content-type": "text/html"})
            upstream.answer = lambda request: page
            answer = await ask(url, way)
            if translated:
                assert (answer.status_code, "no JSON" in said(answer, way)) == (502, True)
            else:
                assert (answer.status_code, answer.text) == (200, "<html>busy</html>")

    with caplog.at_level(logging.DEBUG, logger="leyline"):
        asyncio.run(main())
    assert KEY not in caplog.text
    assert "my-own-header" not in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("way", ["chat", "messages over chat"])
@pytest.mark.parametrize("begun", [True, False])
def test_a_caller_that_leaves_ends_the_servers_work(upstream_of: Make, way: str, begun: bool) -> None:
    path, dialect, translated = WAYS[way]

    async def main() -> None:
        left = asyncio.Event()

        def answer(request: httpx.Request) -> Any:
            async def pieces() -> AsyncIterator[bytes]:
                while True:
                    yield CHUNK
                    await asyncio.sleep(0.02)

            async def waiting() -> httpx.Response:
                try:
                    await asyncio.sleep(30)
                finally:
                    left.set()
                return httpx.Response(200)

            return httpx.Response(200, content=pieces(), headers=SSE) if begun else waiting()

        async with live(upstream_of, answer, chat_upstream=translated) as (url, upstream):
            upstream.left = left
            host, port = url.removeprefix("http://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            content = json.dumps(body(dialect, stream=True)).encode()
            writer.write(
                f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(content)}\r\n\r\n".encode() + content
            )
            if begun:
                assert b" 200 " in await reader.readuntil(b"\r\n")
                await reader.readuntil(b"event" if translated else b"data:")
            else:
                while not upstream.requests:
                    await asyncio.sleep(0.01)
            writer.close()
            await asyncio.wait_for(left.wait(), 20)
            async with httpx.AsyncClient() as client:
                for _ in range(200):
                    metrics = (await client.get(f"{url}/metrics")).text
                    if "leyline_proxy_active 0.0" in metrics:
                        break
                    await asyncio.sleep(0.02)
                assert "leyline_proxy_active 0.0" in metrics
                assert 'status="499"' in metrics
                assert (await client.get(f"{url}/sessions")).json()["requests"] == int(begun)

    asyncio.run(main())


def test_64_mib_go_through_and_more_are_refused(upstream_of: Make) -> None:
    async def main() -> None:
        arrived = []

        def answer(request: httpx.Request) -> httpx.Response:
            arrived.append(len(request.content))
            return httpx.Response(200, json={"choices": [{"message": {"role": "assistant", "content": "ok"}}]})

        async with live(upstream_of, answer) as (url, _), httpx.AsyncClient(timeout=120) as client:
            rest = len(json.dumps(body("chat")))
            for size, status in (((64 << 20) - rest - 10, 200), ((64 << 20) + 1, 413)):
                content = json.dumps(body("chat")).replace("Fix it.", "x" * size).encode()
                found = await client.post(f"{url}/v1/chat/completions", content=content)
                assert found.status_code == status
            assert "send a shorter history" in said(found, "chat")
            assert len(arrived) == 1
            assert arrived[0] > 63 << 20

    asyncio.run(main())


def test_200_sessions_at_once_are_not_mixed(upstream_of: Make) -> None:
    """Each answer names its session, streamed a piece at a time; and so does each history that arrives."""

    async def main() -> None:
        def answer(request: httpx.Request) -> httpx.Response:
            name = json.loads(request.content)["messages"][0]["content"]

            async def pieces() -> AsyncIterator[bytes]:
                for _ in range(3):
                    yield f"data: {json.dumps({'choices': [{'index': 0, 'delta': {'content': name}}]})}\n\n".encode()
                    await asyncio.sleep(0.01)
                yield b"data: [DONE]\n\n"

            return httpx.Response(200, content=pieces(), headers={**SSE, "set-cookie": f"who={name}"})

        async def talk(url: str, name: str) -> None:
            messages: list[dict[str, Any]] = [{"role": "user", "content": name}]
            for turn in range(4):
                found = await posted(url, {"model": "m", "messages": messages, "stream": True})
                assert found.count(f'"{name}"') == 3
                assert f"set-cookie: who={name}" in found
                call = {"id": f"c{turn}", "type": "function", "function": {"name": "view", "arguments": "{}"}}
                messages.append({"role": "assistant", "content": name, "tool_calls": [call]})
                output = f"{name} " + "output " * 30
                messages.append({"role": "tool", "tool_call_id": f"c{turn}", "content": output})

        async with live(upstream_of, answer) as (url, upstream), httpx.AsyncClient() as client:
            await asyncio.gather(*(talk(url, f"s{n:03}") for n in range(200)))
            sessions = (await client.get(f"{url}/sessions")).json()
        assert sessions["requests"] == len(upstream.requests) == 800
        assert sessions["edits"] == 400
        for request, sent in zip(upstream.requests, upstream.bodies, strict=True):
            name = sent["messages"][0]["content"]
            assert all(name in str(message["content"]) for message in sent["messages"])
            assert "cookie" not in request.headers

    asyncio.run(main())


async def posted(url: str, given: dict[str, Any]) -> str:
    """All that comes back for one request over a connection of its own."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    content = json.dumps(given).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len(content)}"
    writer.write(head.encode() + b"\r\n\r\n" + content)
    found = await asyncio.wait_for(reader.read(), 100)
    writer.close()
    return found.decode()
