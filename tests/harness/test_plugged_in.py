"""The clients of openai and anthropic, wrapped or on the transport: every dialect, streams, what is posted by hand."""

from __future__ import annotations

import asyncio
import gzip
import json
import threading
from collections.abc import Callable
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import anthropic
import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion

import leyline
from leyline.backends.http.affinity import AFFINITY_HEADERS, affinity_headers, affinity_key
from leyline.dialects import DialectError
from leyline.harness import Editor

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
        self.headers: list[dict[str, str]] = []
        self.status = 200

    def __call__(self, request: Any, web: Any = httpx) -> Any:
        self.bodies.append(request.read())
        self.headers.append(dict(request.headers))
        if self.status != 200:
            return web.Response(self.status, json={"error": {"message": "down"}})
        body = json.loads(self.bodies[-1])
        path = request.url.path
        if path.endswith("/responses"):
            return self._events(RESPONSE_EVENTS, web) if body.get("stream") else web.Response(200, json=RESPONSE)
        if path.endswith("/messages"):
            return self._events(MESSAGE_EVENTS, web) if body.get("stream") else web.Response(200, json=MESSAGE)
        if body.get("stream"):
            receipt = "leyline" in (body.get("custom_params") or {})
            return self._events([*CHUNKS, *([RECEIPT] if receipt else [])], web)
        return web.Response(200, json=COMPLETION)

    @staticmethod
    def _events(events: list[dict[str, Any]], web: Any) -> Any:
        named = "".join(
            (f"event: {event['type']}\n" if "type" in event else "") + f"data: {json.dumps(event)}\n\n"
            for event in events
        )
        text = named + ("" if "type" in events[0] else "data: [DONE]\n\n")
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
_CHUNK = {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m"}
_DELTA = {"index": 0, "finish_reason": None, "delta": {"role": "assistant", "content": "ok"}}
CHUNKS: list[dict[str, Any]] = [
    {**_CHUNK, "choices": [_DELTA]},
    {**_CHUNK, "choices": [{"index": 0, "finish_reason": "stop", "delta": {}}], "usage": CHAT_USAGE},
]
_SPLICED = {"prompt_tokens": 9, "prefix_tokens": 3, "spliced_tokens": 4, "prefilled_tokens": 2, "directives": 0}
RECEIPT: dict[str, Any] = {**_CHUNK, "choices": [], "leyline": _SPLICED}
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


def web_of(kind: Callable[..., Any]) -> Any:
    """httpx, or its successor: each library is built on one of them, and takes no client of the other."""
    if "anthropic" not in kind.__module__:
        return httpx
    base = next(c for c in anthropic.DefaultHttpxClient.__mro__ if c.__module__.startswith("httpx"))
    return import_module(base.__module__.partition(".")[0])


def client_of(server: Server, kind: Callable[..., Any], plug: Any = None) -> Any:
    """A client of the server; plug: a transport to send through, made of the one that ends at the server."""
    web = web_of(kind)
    inner = web.MockTransport(partial(server, web=web))
    client = web.AsyncClient if kind.__name__.startswith("Async") else web.Client  # type: ignore[attr-defined]
    http = client(transport=inner if plug is None else plug(inner))
    return kind(api_key="k", base_url="http://server", http_client=http, max_retries=0)


def plugged(
    way: str, server: Server, kind: Callable[..., Any], policy: str = CUT, **settings: Any
) -> tuple[Any, Editor]:
    """A client with a policy, and its editor."""
    if way == "wrap":
        wrapped = leyline.wrap(client_of(server, kind), policy, **settings)
        return wrapped, wrapped.leyline
    made: list[Any] = []

    def plug(inner: Any) -> Any:
        made.append(leyline.transport(policy, inner=inner, **settings))
        return made[0]

    return client_of(server, kind, plug), made[0].leyline


ways = pytest.mark.parametrize("way", ["wrap", "transport"])


def counted(editor: Editor) -> list[tuple[Any, ...]]:
    return [(t.edits, t.prompt_tokens, t.cached_tokens, t.completion_tokens) for t in editor.report().turns]


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


@ways
@pytest.mark.parametrize("how", ["create", "stream", "raw", "streaming", "helper"])
def test_responses_are_edited_and_counted(how: str, way: str) -> None:
    server = Server()
    bare = client_of(server, openai.OpenAI)
    client, editor = plugged(way, server, openai.OpenAI)
    for steps in range(4):
        ask_responses(client, how, steps)
        sent = server.sent
        assert json.dumps(sent).count("characters removed") == max(0, steps - 1)
        assert [item.get("type") for item in sent["input"]] == [item.get("type") for item in items(steps)]
        if steps < 2:
            ask_responses(bare, how, steps)
            assert server.bodies[-1] == server.bodies[-2]
    assert counted(editor) == EDITS


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


@ways
@pytest.mark.parametrize("how", ["create", "beta", "stream", "raw", "streaming", "helper"])
def test_messages_of_the_anthropic_client_are_edited_and_counted(how: str, way: str) -> None:
    server = Server()
    bare = client_of(server, anthropic.Anthropic)
    client, editor = plugged(way, server, anthropic.Anthropic)
    assert isinstance(client, anthropic.Anthropic)
    for steps in range(4):
        ask_messages(client, how, steps)
        sent = json.dumps(server.sent)
        assert sent.count("characters removed") == max(0, steps - 1)
        assert sent.count("cache_control") == (steps > 0)
        assert sent.count('"signature"') == steps
        if steps < 2:
            ask_messages(bare, how, steps)
            assert server.bodies[-1] == server.bodies[-2]
    assert counted(editor) == EDITS


@ways
def test_chat_completions_are_edited_and_counted(way: str) -> None:
    server = Server()
    client, editor = plugged(way, server, openai.OpenAI)
    for steps in range(4):
        given: Any = {"model": "m", "messages": history(steps)}
        if steps % 2:
            client.chat.completions.create(**given)
        else:
            list(client.chat.completions.create(**given, stream=True, stream_options={"include_usage": True}))
        assert json.dumps(server.sent).count("characters removed") == max(0, steps - 1)
    assert counted(editor) == EDITS


@ways
def test_the_asynchronous_clients(way: str) -> None:
    server = Server()

    async def play() -> list[list[tuple[Any, ...]]]:
        client, editor = plugged(way, server, openai.AsyncOpenAI)
        claude, other = plugged(way, server, anthropic.AsyncAnthropic)
        for steps in range(4):
            given: Any = {"model": "m", "max_tokens": 9, "messages": blocks(steps)}
            if steps % 2:
                assert [
                    event async for event in await client.responses.create(model="m", input=items(steps), stream=True)
                ]
                async with claude.messages.stream(**given) as events:
                    await events.get_final_message()
            else:
                await client.responses.create(model="m", input=items(steps))
                await claude.messages.create(**given)
        return [counted(editor), counted(other)]

    assert asyncio.run(play()) == [EDITS, EDITS]


@ways
@pytest.mark.parametrize("path", ["/chat/completions", "chat/completions", "/chat/completions?api-version=1"])
@pytest.mark.parametrize("form", ["body", "content"])
def test_what_a_library_posts_by_itself_is_edited(path: str, form: str, way: str) -> None:
    server = Server()
    client, editor = plugged(way, server, openai.OpenAI)
    for steps in range(4):
        body = {"model": "m", "messages": history(steps), "unknown": {"kept": True}, "text": "\ud800"}
        given: Any = {"body": body} if form == "body" else {"content": json.dumps(body).encode()}
        if form == "body":
            body.pop("text")  # the client itself cannot send it
        answer = client.post(path, cast_to=ChatCompletion, **given)
        assert answer.choices[0].message.content == "ok"
        assert server.sent["unknown"] == {"kept": True}
        assert server.sent.get("text") == body.get("text")
        assert json.dumps(server.sent).count("characters removed") == max(0, steps - 1)
    assert counted(editor) == EDITS


def test_what_cannot_be_read_is_refused_before_anything_is_sent() -> None:
    server = Server()
    client, _ = plugged("wrap", server, openai.OpenAI)
    given: Any = {"model": "m", "input": "go on", "previous_response_id": "r1"}
    with pytest.raises(DialectError, match="previous_response_id"):
        client.responses.create(**given)
    client, _ = plugged("transport", server, openai.OpenAI)
    with pytest.raises(openai.BadRequestError, match="leyline: previous_response_id"):
        client.responses.create(**given)
    claude, _ = plugged("transport", server, anthropic.Anthropic)
    blocked: Any = [{"role": "user", "content": [{"type": "new_kind"}]}]
    with pytest.raises(anthropic.BadRequestError, match=r"leyline: .*'new_kind'"):
        claude.messages.create(model="m", max_tokens=9, messages=blocked)
    assert server.bodies == []
    for way in ("wrap", "transport"):
        plugged(way, server, openai.OpenAI, "keep_all")[0].responses.create(**given)
    assert len(server.bodies) == 2, "keep_all has nothing to edit there"


@ways
def test_other_endpoints_are_left_alone(way: str) -> None:
    server = Server()
    client, editor = plugged(way, server, openai.OpenAI)
    client.post("/threads/t/messages", cast_to=object, body={"role": "user", "content": "x"})
    client.post("/embeddings", cast_to=object, body={"input": "x"})
    assert editor.last is None


@ways
@pytest.mark.parametrize("kind", [openai.OpenAI, anthropic.Anthropic])
def test_an_audit_sends_the_bytes_of_the_bare_client(kind: Any, way: str) -> None:
    server = Server()
    bare = client_of(server, kind)
    client, editor = plugged(way, server, kind, audit=True)
    ask = ask_responses if kind is openai.OpenAI else ask_messages
    for steps in range(4):
        for each in (bare, client):
            ask(each, "create", steps)
        assert server.bodies[-1] == server.bodies[-2]
    assert counted(editor) == EDITS


@ways
def test_a_request_that_failed_is_not_remembered(way: str) -> None:
    server = Server()
    client, editor = plugged(way, server, openai.OpenAI)
    server.status = 500
    with pytest.raises(openai.InternalServerError):
        client.responses.create(model="m", input=items(3))
    assert editor.last is None


@ways
def test_a_receipt_in_a_stream_is_read_and_kept_from_the_harness(way: str, scripted: Any) -> None:
    server = Server()
    client, editor = plugged(way, server, openai.OpenAI, splice=True, renderer=scripted([]).renderer)
    for steps in range(4):
        stream = client.chat.completions.create(model="m", messages=history(steps), stream=True)
        assert all(chunk.choices for chunk in stream)
        if "leyline" in server.sent.get("custom_params", {}):
            assert editor.last is not None
            assert editor.last.receipt is not None
            assert editor.last.spliced_tokens == editor.last.receipt.spliced_tokens == 4
            assert editor.last.uncached_tokens == 9 - 3 - 4
    assert "leyline" in server.sent["custom_params"]
    assert editor.report().spliced_tokens == 4 * sum(t.receipt == editor.last.receipt for t in editor.report().turns)


def test_a_client_that_is_none_is_told_what_to_give() -> None:
    with pytest.raises(leyline.LeylineError, match=r"anthropic.Anthropic.*leyline.transport\(\)"):
        leyline.wrap(httpx.Client())


# The transport by itself.


def test_a_body_that_is_compressed_or_no_json_is_not_passed_by_in_silence() -> None:
    server = Server()
    with httpx.Client(transport=leyline.transport(CUT, inner=httpx.MockTransport(server))) as client:
        packed = gzip.compress(json.dumps({"messages": history(3)}).encode())
        answer = client.post("http://s/chat/completions", content=packed, headers={"content-encoding": "gzip"})
        assert answer.status_code == 400
        assert "send it uncompressed" in answer.json()["error"]["message"]
        assert server.bodies == []


def test_headers_of_the_request_stay() -> None:
    server = Server()
    with httpx.Client(transport=leyline.transport(CUT, inner=httpx.MockTransport(server))) as client:
        for steps in (0, 3):
            headers = {"authorization": "Bearer k", "x-session-id": "t", "x-own": "1"}
            client.post("http://s/v1/chat/completions", json={"messages": history(steps)}, headers=headers)
    before, after = server.headers
    assert {**before, "content-length": ""} == {**after, "content-length": ""}
    assert int(after["content-length"]) == len(server.bodies[-1])


def test_a_real_server_is_reached_by_httpx_s_own_transport() -> None:
    """No inner transport is given: sync and async, of both libraries, against a socket."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            seen.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            data = json.dumps(COMPLETION).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *args: Any) -> None:
            pass

    seen: list[dict[str, Any]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/v1/chat/completions"
    plug = leyline.transport(CUT)
    body = {"model": "m", "messages": history(3)}

    async def later(web: Any) -> None:
        async with web.AsyncClient(transport=plug) as client:
            assert (await client.post(url, json=body)).json() == COMPLETION

    for web in (httpx, web_of(anthropic.Anthropic)):
        with web.Client(transport=plug) as client:
            assert client.post(url, json=body).json() == COMPLETION
        asyncio.run(later(web))
    server.shutdown()
    server.server_close()
    assert [json.dumps(each).count("characters removed") for each in seen] == [2, 2, 2, 2]
    assert plug.leyline.report().prompt_tokens == 400


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # its own loops, collected here
def test_litellm_goes_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    litellm = pytest.importorskip("litellm", reason="litellm is not installed", exc_type=ImportError)
    server = Server()
    plug = leyline.transport(CUT, inner=httpx.MockTransport(server))
    monkeypatch.setattr(litellm, "client_session", httpx.Client(transport=plug))
    for steps in range(4):
        call = {"model": "openai/m", "api_base": "http://s/v1", "api_key": "k", "messages": history(steps)}
        if steps % 2:
            litellm.completion(**call)
        else:
            list(litellm.completion(**call, stream=True, stream_options={"include_usage": True}))
        assert json.dumps(server.sent).count("characters removed") == max(0, steps - 1)
    assert counted(plug.leyline) == EDITS


def _keys(headers: dict[str, str]) -> dict[str, str]:
    return {name: headers[name.lower()] for name in AFFINITY_HEADERS if name.lower() in headers}


@pytest.mark.parametrize("way", ["wrap", "transport"])
@pytest.mark.parametrize("policy", ["keep_all", CUT])
def test_every_request_of_a_conversation_carries_the_same_affinity(way: str, policy: str) -> None:
    server = Server()
    plug = leyline.transport(policy, inner=httpx.MockTransport(server)) if way == "transport" else None
    http = httpx.Client(transport=plug or httpx.MockTransport(server))
    client = openai.OpenAI(api_key="k", base_url="http://s/v1", http_client=http, max_retries=0)
    client = client if plug else leyline.wrap(client, policy)
    for steps in range(3):
        client.chat.completions.create(model="m", messages=history(steps))
    first = [_keys(headers) for headers in server.headers]
    assert first[0].keys() == set(AFFINITY_HEADERS)
    assert first == [first[0]] * 3
    assert len(set(first[0].values())) == 1
    # Another conversation has another key, and so has another tenant; what the caller set stays.
    client.chat.completions.create(model="m", messages=[{"role": "user", "content": "other"}])
    other = _keys(server.headers[-1])
    assert other != first[0]
    for tenant in ("a", "b"):
        client.chat.completions.create(
            model="m",
            messages=[{"role": "user", "content": "third"}],
            extra_headers={"x-session-id": "mine", "X-SMG-Routing-Key": "own"},
            extra_body={"extra_key": tenant},
        )
    one, two = (_keys(headers) for headers in server.headers[-2:])
    for keys in (one, two):
        assert (keys["X-Session-ID"], keys["X-SMG-Routing-Key"]) == ("mine", "own")
    assert one["X-Dynamo-Session-ID"] == affinity_key("mine", "a") != two["X-Dynamo-Session-ID"]


def test_a_redirect_does_not_name_a_conversation() -> None:
    server = Server()

    def moved(request: httpx.Request) -> httpx.Response:
        if request.url.host == "old":
            return httpx.Response(307, headers={"location": str(request.url.copy_with(host="new"))})
        answer: httpx.Response = server(request)
        return answer

    plug = leyline.transport(CUT, inner=httpx.MockTransport(moved))
    with httpx.Client(transport=plug, follow_redirects=True) as client:
        for steps in (1, 2):
            client.post("http://old/v1/chat/completions", json={"messages": history(steps)}).raise_for_status()
    assert len({turn.conversation for turn in plug.leyline.report().turns}) == 1
    assert len({headers["x-session-id"] for headers in server.headers}) == 1


def test_an_editor_s_plan_has_the_headers_and_keeps_them_over_a_restart(tmp_path: Path) -> None:
    editor = Editor(CUT)
    keys = []
    for steps in range(3):
        plan = editor.plan(history(steps))
        keys.append(plan.request_headers)
        plan.served()
    fork = editor.plan([*history(1), {"role": "user", "content": "another way"}])
    editor.save(tmp_path / "kept")
    again = Editor(CUT)
    again.load(tmp_path / "kept")
    assert keys == [keys[0]] * 3 == [again.plan(history(3)).request_headers] * 3
    assert fork.request_headers != keys[0]
    named = [Editor(CUT).plan(history(1), session="task-17").request_headers for _ in range(2)]
    assert named == [affinity_headers("task-17")] * 2  # as any other process, and `Session`, names it
