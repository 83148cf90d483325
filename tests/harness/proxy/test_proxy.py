"""The proxy: three dialects edited on their way, all else as it came, and every failure in the caller's words."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

LONG = "line of output\n" * 30
Through = Callable[..., Any]


def chat(turns: int) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Fix it."}]
    for k in range(turns):
        call = {"id": f"c{k}", "type": "function", "function": {"name": "bash", "arguments": "{}"}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{k}", "content": f"{k}: {LONG}"})
    return {"model": "m", "messages": messages, "x_unknown": {"kept": True}}


def responses(turns: int) -> dict[str, Any]:
    items: list[dict[str, Any]] = [{"role": "user", "content": "Fix it."}]
    for k in range(turns):
        items.append({"type": "reasoning", "id": f"r{k}", "summary": [], "encrypted_content": "xx"})
        items.append({"type": "function_call", "call_id": f"c{k}", "name": "bash", "arguments": "{}"})
        items.append({"type": "function_call_output", "call_id": f"c{k}", "output": f"{k}: {LONG}"})
    return {"model": "m", "input": items, "instructions": "Be brief."}


def messages(turns: int) -> dict[str, Any]:
    items: list[dict[str, Any]] = [{"role": "user", "content": "Fix it."}]
    for k in range(turns):
        used = {"type": "tool_use", "id": f"c{k}", "name": "bash", "input": {}}
        thought = {"type": "thinking", "thinking": "hm", "signature": "sig"}
        items.append({"role": "assistant", "content": [thought, used]})
        result = {"type": "tool_result", "tool_use_id": f"c{k}", "content": f"{k}: {LONG}"}
        items.append({"role": "user", "content": [{**result, "cache_control": {"type": "ephemeral"}}]})
    return {"model": "m", "max_tokens": 9, "system": "Be brief.", "messages": items}


DIALECTS = {
    "chat": ("/v1/chat/completions", chat, "messages"),
    "responses": ("/v1/responses", responses, "input"),
    "messages": ("/v1/messages", messages, "messages"),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_edits_are_made_once_and_stay(through: Through, dialect: str, stream: bool) -> None:
    path, make, field = DIALECTS[dialect]

    async def call(client: httpx.AsyncClient) -> Any:
        for turns in range(5):
            response = await client.post(path, json={**make(turns), "stream": stream})
            assert response.status_code == 200, response.text
        return (await client.get("/sessions")).json()

    sessions, upstream = through(call)
    sent = [body[field] for body in upstream.bodies]
    for turns, (before, after) in enumerate(itertools.pairwise(sent), 1):
        shared = sum(a == b for a, b in zip(before, after, strict=False))
        assert shared >= len(before) - 1, f"turn {turns} broke the prefix more than once"
    cut = [json.dumps(item) for item in sent[-1] if "removed" in json.dumps(item)]
    assert len(cut) == 3
    assert sent[1] == make(1)[field], "an output was cut before the model had seen it"
    assert {k: v for k, v in upstream.bodies[-1].items() if k != field} == {
        k: v for k, v in {**make(4), "stream": stream}.items() if k != field
    }
    assert (sessions["requests"], sessions["counted"], sessions["edits"]) == (5, 5, 3)
    assert (sessions["prompt_tokens"], sessions["cached_tokens"]) == (500, 200)
    assert len(sessions["conversations"]) == 1


def test_append_only_traffic_goes_by_byte_for_byte(through: Through) -> None:
    raw = json.dumps(chat(1), indent=3).encode()

    async def call(client: httpx.AsyncClient) -> Any:
        return await client.post("/v1/chat/completions", content=raw, headers={"content-type": "application/json"})

    response, upstream = through(call)
    assert response.status_code == 200
    assert upstream.requests[0].content == raw


def test_other_routes_and_bodies_that_hold_no_history_go_by(through: Through) -> None:
    async def call(client: httpx.AsyncClient) -> Any:
        await client.get("/v1/models?limit=3", headers={"authorization": "Bearer k"})
        await client.post("/v1/embeddings", json={"input": "x"})
        await client.post("/v1/chat/completions", content=b"not JSON \xff")
        await client.post("/v1/chat/completions", json={"messages": 7})

    _, upstream = through(call, answer=lambda request: httpx.Response(200, json={}))
    assert [str(r.url) for r in upstream.requests][:2] == ["http://up/v1/models?limit=3", "http://up/v1/embeddings"]
    assert upstream.requests[0].headers["authorization"] == "Bearer k"
    assert upstream.requests[2].content == b"not JSON \xff"


def test_requests_carry_affinity_unless_the_caller_set_it(through: Through) -> None:
    async def call(client: httpx.AsyncClient) -> None:
        for turns in (1, 2):
            await client.post("/v1/chat/completions", json=chat(turns))
        await client.post("/v1/chat/completions", json=chat(3), headers={"X-Session-ID": "mine"})

    _, upstream = through(call)
    keys = [request.headers["x-smg-routing-key"] for request in upstream.requests]
    assert keys[0] == keys[1] != keys[2]
    assert upstream.requests[2].headers["x-session-id"] == "mine"


def test_callers_with_other_keys_have_other_conversations(through: Through) -> None:
    async def call(client: httpx.AsyncClient) -> Any:
        for key in ("a", "b"):
            for turns in range(3):
                headers = {"authorization": f"Bearer {key}", "x-session-id": "same"}
                await client.post("/v1/chat/completions", json=chat(turns), headers=headers)
        return (await client.get("/sessions")).text

    text, _ = through(call)
    assert len(json.loads(text)["conversations"]) == 2
    assert "Bearer" not in text


@pytest.mark.parametrize("dialect", DIALECTS)
def test_failures_are_told_in_the_callers_dialect(through: Through, dialect: str) -> None:
    path, make, _ = DIALECTS[dialect]

    async def slow(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(5)
        return httpx.Response(200)

    async def call(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post(path, json=make(2))

    down = "http://127.0.0.1:9"
    for settings, status, says in (
        ({"at": down}, 502, f"cannot connect to {down}; start it"),
        ({"answer": slow, "timeout": 0.2}, 504, "in time; raise --timeout"),
    ):
        response, _ = through(call, **settings)
        assert response.status_code == status
        assert says in response.json()["error"]["message"]


@pytest.mark.parametrize("status", [429, 500, 401])
def test_the_servers_own_errors_pass_and_nothing_is_remembered(through: Through, status: int) -> None:
    answers = [httpx.Response(status, json={"error": "no"}, headers={"retry-after": "3"}), None]

    async def call(client: httpx.AsyncClient) -> Any:
        first = await client.post("/v1/chat/completions", json=chat(3))
        await client.post("/v1/chat/completions", json=chat(3))
        return first, (await client.get("/sessions")).json()

    def answer(request: httpx.Request) -> httpx.Response:
        return answers.pop(0) or httpx.Response(200, json={})

    (first, sessions), upstream = through(call, answer=answer)
    assert (first.status_code, first.json(), first.headers["retry-after"]) == (status, {"error": "no"}, "3")
    assert upstream.bodies[0] == upstream.bodies[1]
    assert sessions["requests"] == 1


def test_a_stream_that_breaks_off_says_so(through: Through) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield b'data: {"choices": []}\n\n'
        raise httpx.ReadError("reset")

    async def call(client: httpx.AsyncClient) -> Any:
        return await client.post("/v1/chat/completions", json={**chat(2), "stream": True})

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=broken(), headers={"content-type": "text/event-stream"})

    response, _ = through(call, answer=answer)
    last = [line for line in response.text.splitlines() if line.startswith("data:")][-1]
    assert "broke off" in json.loads(last[5:])["error"]["message"]


def test_what_cannot_be_read_is_refused_by_name(through: Through) -> None:
    async def call(client: httpx.AsyncClient) -> Any:
        yes = {"model": "m", "input": "hi", "previous_response_id": "r1"}
        return await client.post("/v1/responses", json=yes)

    response, upstream = through(call)
    assert response.status_code == 400
    assert "previous_response_id" in response.json()["error"]["message"]
    assert not upstream.requests


def test_a_token_is_wanted_in_a_header_or_in_the_path(through: Through) -> None:
    async def call(client: httpx.AsyncClient) -> list[int]:
        asked = [
            client.post("/v1/chat/completions", json=chat(1)),
            client.post("/v1/chat/completions", json=chat(1), headers={"x-leyline-token": "wrong"}),
            client.post("/v1/chat/completions", json=chat(1), headers={"x-leyline-token": "s3cret"}),
            client.post("/s3cret/v1/chat/completions", json=chat(1)),
            client.get("/sessions"),
            client.get("/metrics", headers={"x-leyline-token": "s3cret"}),
            client.get("/healthz"),
        ]
        return [(await one).status_code for one in asked]

    statuses, upstream = through(call, token="s3cret")
    assert statuses == [401, 401, 200, 200, 401, 200, 200]
    assert all("x-leyline-token" not in request.headers for request in upstream.requests)
    assert {request.url.path for request in upstream.requests} == {"/v1/chat/completions"}


def test_an_audit_edits_nothing_and_says_what_it_would(through: Through) -> None:
    async def call(client: httpx.AsyncClient) -> Any:
        for turns in range(5):
            await client.post("/v1/chat/completions", json=chat(turns))
        return (await client.get("/sessions")).json()

    sessions, upstream = through(call, audit=True)
    assert upstream.bodies == [chat(turns) for turns in range(5)]
    assert sessions["edits"] == 3
    assert sessions["shed"] > 0


def test_bounds_and_pages(through: Through) -> None:
    async def call(client: httpx.AsyncClient) -> Any:
        too_long = await client.post("/v1/chat/completions", content=b"x" * 2000)
        packed = await client.post("/v1/messages", content=b"x", headers={"content-encoding": "gzip"})
        await client.post("/v1/chat/completions", content=json.dumps(chat(3)).encode()[:900])
        ready = await client.get("/readyz")
        return too_long, packed, ready, (await client.get("/metrics")).text

    (too_long, packed, ready, metrics), _ = through(call, max_body=1000, answer=lambda r: httpx.Response(404))
    assert (too_long.status_code, packed.status_code, ready.status_code) == (413, 415, 200)
    assert 'leyline_proxy_requests_total{dialect="chat",status="413"} 1.0' in metrics


def test_a_policy_that_fails_sends_nothing_on(through: Through, tmp_path: Any) -> None:
    rule = tmp_path / "bad.py"
    rule.write_text(
        "from leyline import rule\n\n\n@rule(roles='tool')\ndef boom(message, ctx):\n    raise ValueError('no')\n"
    )

    async def call(client: httpx.AsyncClient) -> Any:
        return await client.post("/v1/chat/completions", json=chat(2))

    response, upstream = through(call, policy=f"{rule}:boom")
    assert response.status_code == 400
    assert "boom" in response.json()["error"]["message"]
    assert not upstream.requests


def test_a_policy_that_takes_long_leaves_the_event_loop(through: Through, tmp_path: Any) -> None:
    rule = tmp_path / "slow.py"
    rule.write_text(
        "import threading, time\nfrom leyline import rule\n\n\n@rule(roles='tool')\ndef slow(message, ctx):\n"
        "    if threading.current_thread() is threading.main_thread():\n        time.sleep(0.3)\n"
        "        return {**message, 'content': 'in the loop'}\n"
    )

    async def call(client: httpx.AsyncClient) -> None:
        for _ in range(3):
            await client.post("/v1/chat/completions", json={**chat(3), "model": str(_)})

    _, upstream = through(call, policy=f"{rule}:slow")
    assert ["in the loop" in json.dumps(body) for body in upstream.bodies] == [True, False, False]
