"""The server finds the edits where it announces that it can; to any other server nothing is added."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from leyline.directives import Mode, WireRequest

LONG = "line of output\n" * 30
SPLICES = {"model_path": "m", "radix_cache_backend": "leyline"}
STOCK = {"model_path": "m", "radix_cache_backend": None}
RECEIPT = {"prompt_tokens": 100, "prefix_tokens": 40, "spliced_tokens": 50, "prefilled_tokens": 10, "held": 90}
RECEIPT |= {"directives": 1, "acknowledged": ["spliced"], "lineage": "l", "approximate_from": 40}
USAGE = {"prompt_tokens": 100, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 90}}
Through = Callable[..., Any]


def chat(turns: int) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "Fix it."}]
    for k in range(turns):
        call = {"id": f"c{k}", "type": "function", "function": {"name": "bash", "arguments": "{}"}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{k}", "content": f"{k}: {LONG}"})
    return {"model": "m", "messages": messages}


def reply(request: httpx.Request) -> httpx.Response:
    """As a Leyline server answers: with a receipt where the request asked for one."""
    body = json.loads(request.content)
    asked = "leyline" in body.get("custom_params", {})
    if not body.get("stream"):
        meta = {"meta_info": {"leyline": [RECEIPT]}} if asked else {}
        choice = {"index": 0, "message": {"role": "assistant", "content": "ok"}, **meta}
        return httpx.Response(200, json={"choices": [choice], "usage": USAGE})
    events: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": {"content": "o"}}]}]
    events += [{"choices": [], "usage": USAGE}, *([{"choices": [], "leyline": RECEIPT}] if asked else [])]
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    return httpx.Response(200, content=text.encode(), headers={"content-type": "text/event-stream"})


async def ask(client: httpx.AsyncClient, turns: int, *, stream: bool = False) -> httpx.Response:
    headers = {"authorization": "Bearer k"}
    return await client.post("/v1/chat/completions", json={**chat(turns), "stream": stream}, headers=headers)


def wire(body: dict[str, Any]) -> WireRequest:
    return WireRequest.from_json(body["custom_params"]["leyline"])


@pytest.mark.parametrize("stream", [False, True])
def test_a_server_that_announces_the_plug_in_finds_the_edits(through: Through, stream: bool) -> None:
    async def call(client: httpx.AsyncClient) -> Any:
        texts = [(await ask(client, turns, stream=stream)).text for turns in range(4)]
        return texts, (await client.get("/sessions")).json(), (await client.get("/metrics")).text

    (texts, sessions, metrics), upstream = through(call, answer=reply, info=SPLICES)
    asked = [wire(body) for body in upstream.bodies]
    assert len({one.session for one in asked}) == 1
    assert [one.allow for one in asked] == [Mode.FORGET, Mode.FORGET, Mode.AMORTIZE, Mode.AMORTIZE]
    assert upstream.asked == [("/server_info", "Bearer k")], "it is asked once, with the caller's key"
    assert sessions["splices"] is True
    (turns,) = sessions["conversations"].values()
    assert [turn["spliced_tokens"] for turn in turns] == [50] * 4
    assert {turn["held_tokens"] for turn in turns} == {90}
    assert sessions["spliced_tokens"] == 200
    assert 'leyline_proxy_prompt_tokens_total{kind="spliced"} 200.0' in metrics
    if stream:
        assert all('"leyline"' not in text and text.endswith("data: [DONE]\n\n") for text in texts)


@pytest.mark.parametrize("info", [None, STOCK, {"object": "list"}])
def test_to_any_other_server_nothing_is_added(through: Through, info: dict[str, Any] | None) -> None:
    async def call(client: httpx.AsyncClient) -> Any:
        for turns in range(4):
            await ask(client, turns)
        return (await client.get("/sessions")).json()

    sessions, upstream = through(call, answer=reply, info=info)
    assert sessions["splices"] is False
    assert all(body.keys() == {"model", "messages", "stream"} for body in upstream.bodies)
    assert upstream.bodies[0] == {**chat(0), "stream": False}


@pytest.mark.parametrize(("wanted", "info"), [(True, STOCK), (False, SPLICES)])
def test_what_the_user_says_goes_before_what_the_server_says(
    through: Through, wanted: bool, info: dict[str, Any]
) -> None:
    async def call(client: httpx.AsyncClient) -> None:
        await ask(client, 1)

    _, upstream = through(call, answer=reply, info=info, splice=wanted)
    assert not upstream.asked
    assert ("custom_params" in upstream.bodies[0]) is wanted


def test_an_audit_tells_the_server_nothing(through: Through) -> None:
    async def call(client: httpx.AsyncClient) -> None:
        for turns in range(4):
            await ask(client, turns)

    _, upstream = through(call, answer=reply, info=SPLICES, audit=True)
    assert upstream.bodies == [{**chat(turns), "stream": False} for turns in range(4)]
