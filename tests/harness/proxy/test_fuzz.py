"""Bodies that no client would send: each is served or refused in the caller's words, and none fails inside.

`LEYLINE_FUZZ=2000` takes that many a dialect and way; the default is what a test run has time for.
"""

from __future__ import annotations

import copy
import json
import os
import random
from collections.abc import Callable
from typing import Any

import httpx
import pytest

COUNT = int(os.environ.get("LEYLINE_FUZZ", "250"))
POLICY = "then(truncate_older_than(n=0, max_chars=40), drop_failed)"
Through = Callable[..., Any]
LONG = "line of output\n" * 9
ODD: list[Any] = [
    *(None, True, False, 0, -1, 2**70, 1e308, float("nan"), "", "x", "\ud800", "\u2028\x00", [], {}, [[]], [None]),
    *({"type": "text"}, {"role": "user"}, {"type": "tool_use"}, [{"type": "function_call"}], "ü" * 300, ["a", 1]),
]


def chat() -> dict[str, Any]:
    call = {"id": "c", "type": "function", "function": {"name": "view", "arguments": '{"path": "a"}'}}
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,aa"}}
    made: list[Any] = [{"role": "system", "content": "s"}]
    made.append({"role": "user", "content": [{"type": "text", "text": "hi", "cache_control": {"type": "x"}}, image]})
    made.append({"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [call]})
    made.append({"role": "tool", "tool_call_id": "c", "content": LONG})
    made.append({"role": "assistant", "content": "done"})
    return {"model": "m", "messages": [*made, {"role": "user", "content": "more"}], "tools": [], "stream": False}


def responses() -> dict[str, Any]:
    made: list[Any] = [{"role": "user", "content": [{"type": "input_text", "text": "hi"}]}]
    made.append({"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "hm"}]})
    made.append({"type": "function_call", "call_id": "c", "name": "view", "arguments": "{}"})
    made.append({"type": "function_call_output", "call_id": "c", "output": LONG})
    made.append({"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "done"}]})
    tool = {"type": "function", "name": "view", "parameters": {"type": "object"}}
    made.append({"role": "user", "content": "more"})
    given = {"model": "m", "instructions": "s", "input": made, "tools": [tool], "tool_choice": "auto"}
    return {**given, "reasoning": {"effort": "low"}, "text": {"format": {"type": "text"}}, "include": []}


def messages() -> dict[str, Any]:
    use = {"type": "tool_use", "id": "c", "name": "view", "input": {"path": "a"}}
    result = {"type": "tool_result", "tool_use_id": "c", "content": [{"type": "text", "text": LONG}], "is_error": True}
    source = {"type": "base64", "media_type": "image/png", "data": "aa"}
    made: list[Any] = [
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image", "source": source}]}
    ]
    made.append({"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": ""}, use]})
    made.append({"role": "user", "content": [result]})
    made += [{"role": "assistant", "content": "done"}, {"role": "user", "content": "more"}]
    given = {"model": "m", "max_tokens": 9, "system": [{"type": "text", "text": "s"}], "messages": made}
    return {**given, "tools": [{"name": "view", "input_schema": {"type": "object"}}], "tool_choice": {"type": "auto"}}


WHOLE = {"chat": chat, "responses": responses, "messages": messages}
PATHS = {"chat": "/v1/chat/completions", "responses": "/v1/responses", "messages": "/v1/messages"}


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to everything inside."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [where for key, held in inner for where in [(*at, key), *places(held, (*at, key))]]


def changed(body: Any, rng: random.Random) -> Any:
    """The body with one to three places that hold something else, are gone, or stand twice."""
    body = copy.deepcopy(body)
    for _ in range(rng.choice((1, 1, 2, 3))):
        found = places(body)
        if not found:
            break
        *way, last = rng.choice(found)
        holder = body
        for key in way:
            holder = holder[key]
        how = rng.random()
        if how < 0.6:
            holder[last] = copy.deepcopy(rng.choice(ODD))
        elif how < 0.8:
            del holder[last]
        elif isinstance(holder, list):
            holder.insert(rng.randrange(len(holder) + 1), copy.deepcopy(holder[last]))
        else:
            holder[rng.choice(("role", "type", "content", "x" * 50))] = holder[last]
    return body


def text(body: Any, rng: random.Random) -> bytes:
    """As sent: most of it JSON, some cut short, some with a byte changed, some far too deep."""
    made = json.dumps(body).encode()
    how = rng.random()
    if how < 0.05:
        return made[: rng.randrange(len(made))]
    if how < 0.1:
        place = rng.randrange(len(made))
        return made[:place] + bytes([rng.randrange(256)]) + made[place + 1 :]
    if how < 0.11:
        return b'{"messages": ' + b"[" * 20_000
    return made


def reply(request: httpx.Request) -> httpx.Response:
    """As a server that minds nothing."""
    usage = {"prompt_tokens": 9, "completion_tokens": 1}
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}
    return httpx.Response(200, json={"choices": [choice], "usage": usage})


@pytest.mark.parametrize("chat_upstream", [False, True])
@pytest.mark.parametrize("dialect", WHOLE)
def test_no_body_fails_inside(through: Through, dialect: str, chat_upstream: bool) -> None:
    if dialect == "chat" and chat_upstream:
        pytest.skip("chat needs no translation")
    rng = random.Random(f"{dialect} {chat_upstream}")
    sent = [text(changed(WHOLE[dialect](), rng), rng) for _ in range(COUNT)]

    async def call(client: httpx.AsyncClient) -> list[tuple[bytes, httpx.Response]]:
        headers = {"content-type": "application/json"}
        return [(body, await client.post(PATHS[dialect], content=body, headers=headers)) for body in sent]

    answers, upstream = through(call, answer=reply, policy=POLICY, chat_upstream=chat_upstream)
    served = 0
    for body, answer in answers:
        assert answer.status_code in (200, 400), f"{answer.status_code} {answer.text[:300]} for {body[:2000]!r}"
        if answer.status_code == 200:
            served += 1
            continue
        said = answer.json()
        assert said["error"]["message"].startswith("leyline: "), body
        assert "\n" not in said["error"]["message"]
        assert dialect != "messages" or said["type"] == "error"
    assert served == len(upstream.requests)
    assert COUNT // 10 < served < COUNT, "the bodies are all of one kind"
    if chat_upstream:
        assert all(isinstance(body["messages"], list) for body in upstream.bodies)
