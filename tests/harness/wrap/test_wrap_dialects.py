"""The wrapped clients of openai and anthropic in the dialects beside chat completions, and what is posted by hand."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import anthropic
import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion

import leyline
from leyline.dialects import DialectError

CUT = "truncate_older_than(n=1, max_chars=40)"
LONG = "x" * 900
MARK = {"type": "ephemeral"}
CHAT_USAGE: dict[str, Any] = {"prompt_tokens": 100, "completion_tokens": 3, "total_tokens": 103}
CHAT_USAGE["prompt_tokens_details"] = {"cached_tokens": 50}
RESPONSES_USAGE = {
    "input_tokens": 100,
    "output_tokens": 3,
    "total_tokens": 103,
    "input_tokens_details": {"cached_tokens": 50},
    "output_tokens_details": {"reasoning_tokens": 0},
}
MESSAGES_USAGE = {"input_tokens": 40, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 10}
MESSAGES_USAGE |= {"output_tokens": 3}


class Server:
    """Answers in the dialect of the path and keeps each body."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    def __call__(self, request: Any, web: Any = httpx) -> Any:
        self.bodies.append(request.read())
        body = json.loads(self.bodies[-1])
        path = request.url.path
        if path.endswith("/responses"):
            return self._events(RESPONSE_EVENTS, web) if body.get("stream") else web.Response(200, json=RESPONSE)
        if path.endswith("/messages"):
            return self._events(MESSAGE_EVENTS, web) if body.get("stream") else web.Response(200, json=MESSAGE)
        return web.Response(200, json=COMPLETION)

    @staticmethod
    def _events(events: list[dict[str, Any]], web: Any) -> Any:
        text = "".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n" for event in events)
        # In pieces that break lines apart, as networks do.
        pieces = [text[k : k + 37].encode() for k in range(0, len(text), 37)]
        body = type("Pieces", (Pieces, web.SyncByteStream, web.AsyncByteStream), {})(pieces)
        return web.Response(200, stream=body, headers={"content-type": "text/event-stream"})

    @property
    def sent(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.bodies[-1])
        return found


class Pieces:
    def __init__(self, pieces: list[bytes]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Any:
        yield from self._pieces

    async def __aiter__(self) -> Any:
        for piece in self._pieces:
            yield piece


COMPLETION = {
    "id": "1",
    "object": "chat.completion",
    "created": 0,
    "model": "m",
    "usage": CHAT_USAGE,
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "ok"}}],
}
RESPONSE = {
    "id": "r",
    "object": "response",
    "created_at": 0,
    "model": "m",
    "status": "completed",
    "usage": RESPONSES_USAGE,
    "output": [],
    "parallel_tool_calls": True,
    "tool_choice": "auto",
    "tools": [],
}
RESPONSE_EVENTS = [
    {"type": "response.created", "sequence_number": 0, "response": {**RESPONSE, "usage": None}},
    {"type": "response.completed", "sequence_number": 1, "response": RESPONSE},
]
MESSAGE = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "m",
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "content": [{"type": "text", "text": "ok"}],
    "usage": MESSAGES_USAGE,
}
MESSAGE_EVENTS: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "usage": {**MESSAGES_USAGE, "output_tokens": 1}}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "ok"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 3},
    },
    {"type": "message_stop"},
]


def items(steps: int) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [{"role": "user", "content": "Fix the bug."}]
    for number in range(steps):
        made.append({"type": "reasoning", "id": f"r{number}", "summary": [], "encrypted_content": "x"})
        made.append({"type": "function_call", "call_id": f"c{number}", "name": "view", "arguments": "{}"})
        made.append({"type": "function_call_output", "call_id": f"c{number}", "output": f"{number}{LONG}"})
    return made


def blocks(steps: int) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [{"role": "user", "content": "Fix the bug."}]
    for number in range(steps):
        thinking = {"type": "thinking", "thinking": "hm", "signature": "s"}
        use = {"type": "tool_use", "id": f"c{number}", "name": "view", "input": {}}
        result = {"type": "tool_result", "tool_use_id": f"c{number}", "content": f"{number}{LONG}"}
        made += [{"role": "assistant", "content": [thinking, use]}, {"role": "user", "content": [result]}]
    return made


def history(steps: int) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = [{"role": "user", "content": "Fix the bug."}]
    for number in range(steps):
        call = {"id": f"c{number}", "type": "function", "function": {"name": "view", "arguments": "{}"}}
        made.append({"role": "assistant", "content": None, "tool_calls": [call]})
        made.append({"role": "tool", "tool_call_id": f"c{number}", "content": f"{number}{LONG}"})
    return made


def client_of(server: Server, kind: Callable[..., Any]) -> Any:
    asynchronous = kind.__name__.startswith("Async")  # type: ignore[attr-defined]
    # Each library is built on one of httpx and its successor, and takes no client of the other.
    base = next(c for c in anthropic.DefaultHttpxClient.__mro__ if c.__module__.startswith("httpx")).__module__
    web: Any = import_module(base.partition(".")[0]) if "anthropic" in kind.__module__ else httpx
    http = (web.AsyncClient if asynchronous else web.Client)(transport=web.MockTransport(partial(server, web=web)))
    return kind(api_key="k", base_url="http://server", http_client=http, max_retries=0)


def counted(wrapped: Any) -> list[tuple[Any, ...]]:
    return [(t.edits, t.prompt_tokens, t.cached_tokens, t.completion_tokens) for t in wrapped.leyline.report().turns]


EDITS = [(edits, 100, 50, 3) for edits in (0, 0, 1, 1)]


def ask_responses(client: Any, how: str, steps: int) -> Any:
    given: Any = {"model": "m", "instructions": "s", "input": items(steps)}
    if how == "create":
        return client.responses.create(**given)
    if how == "stream":
        return list(client.responses.create(**given, stream=True))
    if how == "raw":
        return client.responses.with_raw_response.create(**given).parse()
    if how == "streaming":
        with client.responses.with_streaming_response.create(**given) as response:
            return response.read()
    with client.responses.stream(**given) as events:
        return events.get_final_response()


@pytest.mark.parametrize("how", ["create", "stream", "raw", "streaming", "helper"])
def test_responses_are_edited_and_counted(how: str) -> None:
    server = Server()
    bare = client_of(server, openai.OpenAI)
    wrapped = leyline.wrap(bare, CUT)
    for steps in range(4):
        ask_responses(wrapped, how, steps)
        sent = server.sent
        assert json.dumps(sent).count("characters removed") == max(0, steps - 1)
        assert [item.get("type") for item in sent["input"]] == [item.get("type") for item in items(steps)]
        if steps < 2:
            ask_responses(bare, how, steps)
            assert server.bodies[-1] == server.bodies[-2]
    assert counted(wrapped) == EDITS


def ask_messages(client: Any, how: str, steps: int) -> Any:
    given = blocks(steps)
    if steps:
        given[-1]["content"][-1]["cache_control"] = MARK
    call: Any = {"model": "m", "max_tokens": 9, "system": "s", "messages": given}
    if how == "create":
        return client.messages.create(**call)
    if how == "beta":
        return client.beta.messages.create(**call)
    if how == "stream":
        return list(client.messages.create(**call, stream=True))
    if how == "raw":
        return client.messages.with_raw_response.create(**call).parse()
    if how == "streaming":
        with client.messages.with_streaming_response.create(**call) as response:
            return response.read()
    with client.messages.stream(**call) as events:
        return events.get_final_message()


@pytest.mark.parametrize("how", ["create", "beta", "stream", "raw", "streaming", "helper"])
def test_messages_of_the_anthropic_client_are_edited_and_counted(how: str) -> None:
    server = Server()
    bare = client_of(server, anthropic.Anthropic)
    wrapped = leyline.wrap(bare, CUT)
    assert isinstance(wrapped, anthropic.Anthropic)
    for steps in range(4):
        ask_messages(wrapped, how, steps)
        sent = json.dumps(server.sent)
        assert sent.count("characters removed") == max(0, steps - 1)
        assert sent.count("cache_control") == (steps > 0)
        assert sent.count('"signature"') == steps
        if steps < 2:
            ask_messages(bare, how, steps)
            assert server.bodies[-1] == server.bodies[-2]
    assert counted(wrapped) == EDITS


def test_the_asynchronous_clients(recwarn: pytest.WarningsRecorder) -> None:
    server = Server()

    async def play() -> list[list[tuple[Any, ...]]]:
        openai_client = leyline.wrap(client_of(server, openai.AsyncOpenAI), CUT)
        claude = leyline.wrap(client_of(server, anthropic.AsyncAnthropic), CUT)
        for steps in range(4):
            given: Any = {"model": "m", "max_tokens": 9, "messages": blocks(steps)}
            if steps % 2:
                [_ async for _ in await openai_client.responses.create(model="m", input=items(steps), stream=True)]  # type: ignore[call-overload]
                async with claude.messages.stream(**given) as events:
                    await events.get_final_message()
            else:
                await openai_client.responses.create(model="m", input=items(steps))  # type: ignore[arg-type]
                await claude.messages.create(**given)
        return [counted(openai_client), counted(claude)]

    assert asyncio.run(play()) == [EDITS, EDITS]


@pytest.mark.parametrize("path", ["/chat/completions", "chat/completions", "/chat/completions?api-version=1"])
@pytest.mark.parametrize("form", ["body", "content"])
def test_what_a_library_posts_by_itself_is_edited(path: str, form: str) -> None:
    server = Server()
    wrapped = leyline.wrap(client_of(server, openai.OpenAI), CUT)
    for steps in range(4):
        body = {"model": "m", "messages": history(steps), "unknown": {"kept": True}}
        given: Any = {"body": body} if form == "body" else {"content": json.dumps(body).encode()}
        answer = wrapped.post(path, cast_to=ChatCompletion, **given)
        assert answer.choices[0].message.content == "ok"
        assert server.sent["unknown"] == {"kept": True}
        assert json.dumps(server.sent).count("characters removed") == max(0, steps - 1)
    assert counted(wrapped) == EDITS


def test_what_cannot_be_read_is_refused_before_anything_is_sent() -> None:
    server = Server()
    wrapped = leyline.wrap(client_of(server, openai.OpenAI), CUT)
    with pytest.raises(DialectError, match="previous_response_id"):
        wrapped.responses.create(model="m", input="go on", previous_response_id="r1")
    assert server.bodies == []
    leyline.wrap(client_of(server, openai.OpenAI)).responses.create(model="m", input="x", previous_response_id="r1")
    assert len(server.bodies) == 1, "keep_all has nothing to edit there"


def test_messages_of_other_endpoints_are_left_alone() -> None:
    server = Server()
    wrapped = leyline.wrap(client_of(server, openai.OpenAI), CUT)
    wrapped.post("/threads/t/messages", cast_to=object, body={"role": "user", "content": "x"})
    assert wrapped.leyline.last is None


@pytest.mark.parametrize("kind", [openai.OpenAI, anthropic.Anthropic])
def test_an_audit_sends_the_bytes_of_the_bare_client(kind: Any) -> None:
    server = Server()
    bare = client_of(server, kind)
    wrapped = leyline.wrap(bare, CUT, audit=True)
    ask = ask_responses if kind is openai.OpenAI else ask_messages
    for steps in range(4):
        for client in (bare, wrapped):
            ask(client, "create", steps)
        assert server.bodies[-1] == server.bodies[-2]
    assert counted(wrapped) == EDITS


def test_a_client_that_is_none_is_told_what_to_give() -> None:
    with pytest.raises(leyline.LeylineError, match=r"anthropic.Anthropic.*leyline.transport\(\)"):
        leyline.wrap(httpx.Client())
