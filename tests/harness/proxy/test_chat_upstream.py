"""A chat upstream behind all three dialects: the official clients read what comes back, streamed or not."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

import anthropic
import httpx
import openai
import pytest

CUT = "truncate_older_than(n=1, max_chars=40)"
LONG = "line of output\n" * 30
IMAGE = "aGVsbG8="
USAGE = {"prompt_tokens": 100, "completion_tokens": 7, "total_tokens": 107}
USAGE |= {"prompt_tokens_details": {"cached_tokens": 40}, "completion_tokens_details": {"reasoning_tokens": 3}}  # type: ignore[dict-item]
ABOUT = {"id": "c1", "created": 5, "model": "served"}
CALLS = [("call_a", "view", '{"path": "a.py"}'), ("call_b", "grep", '{"what": "ü"}')]
Through = Callable[..., Any]


def completion(finish: str = "tool_calls", **message: Any) -> httpx.Response:
    calls = [{"id": k, "type": "function", "function": {"name": n, "arguments": a}} for k, n, a in CALLS]
    said = {"role": "assistant", "content": "Look.", "reasoning_content": "Hm.", "tool_calls": calls, **message}
    choice = {"index": 0, "finish_reason": finish, "message": said}
    return httpx.Response(200, json={**ABOUT, "object": "chat.completion", "choices": [choice], "usage": USAGE})


def chunks(*deltas: dict[str, Any], finish: str | None = "tool_calls", done: bool = True) -> httpx.Response:
    made: list[dict[str, Any]] = [{"choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    if finish is not None:
        made.append({"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
        made.append({"choices": [], "usage": USAGE})
    text = "".join(f"data: {json.dumps({**ABOUT, **chunk})}\n\n" for chunk in made) + (
        "data: [DONE]\n\n" if done else ""
    )
    return httpx.Response(200, content=text.encode(), headers={"content-type": "text/event-stream"})


def piece(index: int, arguments: str, **more: Any) -> dict[str, Any]:
    function = {"arguments": arguments} | ({"name": more.pop("name")} if "name" in more else {})
    return {"tool_calls": [{"index": index, **more, "function": function}]}


def streamed() -> httpx.Response:
    """Thinking, text and two calls whose pieces come mixed."""
    return chunks(
        {"role": "assistant", "content": ""},
        {"reasoning_content": "H"},
        {"reasoning_content": "m."},
        {"content": "Lo"},
        {"content": "ok."},
        piece(0, "", id="call_a", name="view", type="function"),
        piece(0, '{"path": '),
        piece(1, '{"what"', id="call_b", name="grep", type="function"),
        piece(0, '"a.py"}'),
        piece(1, ': "ü"}'),
    )


def reply(request: httpx.Request) -> httpx.Response:
    return streamed() if json.loads(request.content).get("stream") else completion()


def asking(kind: Any, client: httpx.AsyncClient) -> Any:
    """An official client through the proxy of an httpx client; anthropic's may be built on httpx's successor."""
    app = client._transport.app  # type: ignore[attr-defined]
    web: Any = httpx
    if kind is anthropic.AsyncAnthropic:
        base = next(c for c in anthropic.DefaultAsyncHttpxClient.__mro__ if c.__module__.startswith("httpx"))
        web = import_module(base.__module__.partition(".")[0])
    http = web.AsyncClient(transport=web.ASGITransport(app))
    root = "http://proxy/v1" if kind is openai.AsyncOpenAI else "http://proxy"
    return kind(api_key="sk-1", base_url=root, http_client=http, max_retries=0)


def blocks(turns: int) -> list[dict[str, Any]]:
    """What a harness of the messages API sends: thinking, parallel calls, an image."""
    made: list[dict[str, Any]] = [{"role": "user", "content": [{"type": "text", "text": "Fix it."}]}]
    source = {"type": "base64", "media_type": "image/png", "data": IMAGE}
    made[0]["content"].append({"type": "image", "source": source})
    for k in range(turns):
        thought = {"type": "thinking", "thinking": "Hm.", "signature": ""}
        text = {"type": "text", "text": "Look."}
        uses = [
            {"type": "tool_use", "id": f"{key}{k}", "name": name, "input": json.loads(arguments)}
            for key, name, arguments in CALLS
        ]
        made.append({"role": "assistant", "content": [thought, text, *uses]})
        results = [
            {"type": "tool_result", "tool_use_id": f"{key}{k}", "content": f"{k} {name} {LONG}"}
            for key, name, _ in CALLS
        ]
        results[-1]["cache_control"] = {"type": "ephemeral"}  # type: ignore[assignment]
        made.append({"role": "user", "content": results})
    return made


def items(turns: int) -> list[dict[str, Any]]:
    """The same of the Responses API."""
    said = [{"type": "input_text", "text": "Fix it."}]
    said.append({"type": "input_image", "image_url": f"data:image/png;base64,{IMAGE}"})
    made: list[dict[str, Any]] = [{"role": "user", "content": said}]
    for k in range(turns):
        made.append({"type": "reasoning", "id": f"rs{k}", "summary": [{"type": "summary_text", "text": "Hm."}]})
        content = [{"type": "output_text", "text": "Look.", "annotations": []}]
        made.append({"type": "message", "role": "assistant", "id": f"m{k}", "status": "completed", "content": content})
        for key, name, arguments in CALLS:
            made.append({"type": "function_call", "call_id": f"{key}{k}", "name": name, "arguments": arguments})
        for key, name, _ in CALLS:
            made.append({"type": "function_call_output", "call_id": f"{key}{k}", "output": f"{k} {name} {LONG}"})
    return made


def messages(turns: int) -> list[dict[str, Any]]:
    """The same of chat completions, which is what the upstream must get of each."""
    image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{IMAGE}"}}
    made: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}]
    made.append({"role": "user", "content": [{"type": "text", "text": "Fix it."}, image]})
    for k in range(turns):
        calls = [{"id": f"{i}{k}", "type": "function", "function": {"name": n, "arguments": a}} for i, n, a in CALLS]
        made.append({"role": "assistant", "content": "Look.", "reasoning_content": "Hm.", "tool_calls": calls})
        made += [{"role": "tool", "tool_call_id": f"{i}{k}", "content": f"{k} {n} {LONG}"} for i, n, _ in CALLS]
    return made


PARAMETERS = {"type": "object", "properties": {"path": {"type": "string"}}}
TOOL = {"type": "function", "function": {"name": "view", "description": "Shows.", "parameters": PARAMETERS}}


async def ask_messages(client: httpx.AsyncClient, turns: int, stream: bool) -> Any:
    given: Any = {"model": "m", "max_tokens": 50, "system": "Be brief.", "messages": blocks(turns)}
    given |= {"tools": [{"name": "view", "description": "Shows.", "input_schema": PARAMETERS}]}
    given |= {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}, "stop_sequences": ["END"]}
    api = asking(anthropic.AsyncAnthropic, client).messages
    if not stream:
        return await api.create(**given)
    async with api.stream(**given) as events:
        return await events.get_final_message()


async def ask_responses(client: httpx.AsyncClient, turns: int, stream: bool, **more: Any) -> Any:
    given: Any = {"model": "m", "max_output_tokens": 50, "instructions": "Be brief.", "input": items(turns)}
    given |= {"tools": [{"type": "function", "name": "view", "description": "Shows.", "parameters": PARAMETERS}]}
    given |= {"tool_choice": "required", "parallel_tool_calls": False, "reasoning": {"effort": "low"}, **more}
    api = asking(openai.AsyncOpenAI, client).responses
    if not stream:
        return await api.create(**given)
    async with api.stream(**given) as events:
        return await events.get_final_response()


def is_message(answer: Any) -> None:
    assert [block.type for block in answer.content] == ["thinking", "text", "tool_use", "tool_use"]
    thinking, text, first, second = answer.content
    assert (thinking.thinking, text.text) == ("Hm.", "Look.")
    assert (first.id, first.name, first.input) == ("call_a", "view", {"path": "a.py"})
    assert (second.id, second.name, second.input) == ("call_b", "grep", {"what": "ü"})
    assert (answer.stop_reason, answer.model) == ("tool_use", "served")
    usage = answer.usage
    assert (usage.input_tokens, usage.cache_read_input_tokens, usage.output_tokens) == (60, 40, 7)


def is_response(answer: Any) -> None:
    assert [item.type for item in answer.output] == ["reasoning", "message", "function_call", "function_call"]
    thinking, message, first, second = answer.output
    assert thinking.summary[0].text == "Hm."
    assert message.content[0].text == answer.output_text == "Look."
    assert (first.call_id, first.name, first.arguments) == ("call_a", "view", '{"path": "a.py"}')
    assert (second.call_id, second.name, json.loads(second.arguments)) == ("call_b", "grep", {"what": "ü"})
    assert (answer.status, answer.model, answer.parallel_tool_calls) == ("completed", "served", False)
    usage = answer.usage
    assert (usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.output_tokens) == (100, 40, 7)
    assert usage.output_tokens_details.reasoning_tokens == 3


WAYS = {"messages": (ask_messages, is_message), "responses": (ask_responses, is_response)}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", WAYS)
def test_the_official_clients_through_a_chat_upstream(through: Through, dialect: str, stream: bool) -> None:
    ask, check = WAYS[dialect]

    async def call(client: httpx.AsyncClient) -> Any:
        answers = [await ask(client, turns, stream) for turns in range(5)]
        return answers, (await client.get("/sessions")).json()

    (answers, sessions), upstream = through(call, answer=reply, policy=CUT, chat_upstream=True)
    for answer in answers:
        check(answer)
    assert {request.url.path for request in upstream.requests} == {"/v1/chat/completions"}
    assert upstream.requests[0].headers["authorization"] == "Bearer sk-1"
    assert not [k for k in upstream.requests[0].headers if k == "x-api-key" or k.startswith("anthropic")]
    first = upstream.bodies[0]
    assert first["messages"] == messages(0)
    assert (first["tools"], first["tool_choice"], first["parallel_tool_calls"]) == ([TOOL], "required", False)
    assert first["max_tokens"] == 50
    assert bool(first.get("stream")) is stream
    assert first.get("stream_options") == ({"include_usage": True} if stream else None)
    if dialect == "messages":
        assert first["stop"] == ["END"]
    else:
        assert first["reasoning_effort"] == "low"
    # Each output is cut once, a turn after the model saw it, and then stays; all else is what chat would have sent.
    for turns, body in enumerate(upstream.bodies):
        for sent, whole in zip(body["messages"], messages(turns), strict=True):
            assert sent == whole or "characters removed" in sent["content"]
    cut = [sum("characters removed" in str(m["content"]) for m in body["messages"]) for body in upstream.bodies]
    assert cut[:2] == [0, 0]
    assert cut[2] > 0
    for before, after in zip(upstream.bodies[3:], upstream.bodies[4:], strict=False):
        same = sum(a == b for a, b in zip(before["messages"], after["messages"], strict=False))
        assert same >= len(before["messages"]) - 2
    assert (sessions["requests"], sessions["prompt_tokens"], sessions["cached_tokens"]) == (5, 500, 200)
    assert len(sessions["conversations"]) == 1


@pytest.mark.parametrize("stream", [False, True])
def test_the_edits_are_those_of_a_chat_caller(through: Through, stream: bool) -> None:
    """The history that reaches the upstream does not depend on the dialect of the caller."""

    async def chat(client: httpx.AsyncClient, turns: int, _: bool) -> Any:
        given: Any = {"model": "m", "messages": messages(turns), "stream": stream}
        return await asking(openai.AsyncOpenAI, client).chat.completions.create(**given)

    sent = []
    for ask in (ask_messages, ask_responses, chat):

        async def call(client: httpx.AsyncClient, ask: Any = ask) -> None:
            for turns in range(5):
                answer = await ask(client, turns, stream)
                if hasattr(answer, "__aiter__"):
                    async for _ in answer:
                        pass

        _, upstream = through(call, answer=reply, policy=CUT, chat_upstream=True)
        sent.append([body["messages"] for body in upstream.bodies])
    assert sent[0] == sent[1] == sent[2]


def test_a_server_that_splices_gets_the_session_in_every_dialect(through: Through) -> None:
    async def call(client: httpx.AsyncClient) -> None:
        await ask_messages(client, 2, False)
        await ask_responses(client, 2, True)

    info = {"model_path": "m", "radix_cache_backend": "leyline"}
    _, upstream = through(call, answer=reply, policy=CUT, chat_upstream=True, info=info)
    assert all("session" in body["custom_params"]["leyline"] for body in upstream.bodies)


@pytest.mark.parametrize("stream", [False, True])
def test_a_response_is_gone_on_from_by_its_id(through: Through, stream: bool) -> None:
    async def call(client: httpx.AsyncClient) -> Any:
        first = await ask_responses(client, 0, stream)
        outputs = [{"type": "function_call_output", "call_id": k, "output": n} for k, n, _ in CALLS]
        second = await ask_responses(client, 0, stream, input=outputs, previous_response_id=first.id)
        third = await ask_responses(client, 0, stream, input="And?", previous_response_id=second.id, store=False)
        assert second.previous_response_id == first.id
        api = asking(openai.AsyncOpenAI, client).responses
        for gone in (third.id, "resp_never"):
            with pytest.raises(openai.BadRequestError, match=r"previous_response_id 'resp_.* is not known here"):
                await api.create(model="m", input="x", previous_response_id=gone)
        other = asking(openai.AsyncOpenAI, client).with_options(api_key="sk-2").responses
        with pytest.raises(openai.BadRequestError, match="is not known here"):
            await other.create(model="m", input="x", previous_response_id=first.id)

    _, upstream = through(call, answer=reply, policy="keep_all", chat_upstream=True)
    assert len(upstream.bodies) == 3
    calls = [{"id": k, "type": "function", "function": {"name": n, "arguments": a}} for k, n, a in CALLS]
    answer = {"role": "assistant", "content": "Look.", "reasoning_content": "Hm.", "tool_calls": calls}
    outputs = [{"role": "tool", "tool_call_id": k, "content": n} for k, n, _ in CALLS]
    assert upstream.bodies[1]["messages"] == [*messages(0), answer, *outputs]
    assert upstream.bodies[2]["messages"] == [
        *messages(0),
        answer,
        *outputs,
        answer,
        {"role": "user", "content": "And?"},
    ]


def test_what_is_kept_is_bounded_and_kept_once() -> None:
    from leyline.dialects import DialectError
    from leyline.harness.proxy.kept import KeptResponses

    kept = KeptResponses(most=2000)
    body: dict[str, Any] = {"input": "x" * 500}
    for number in range(8):
        kept.keep(body, "t", f"r{number}", [])
        body = {"input": "x" * 500, "previous_response_id": f"r{number}"}
    assert len(kept) == 3
    with pytest.raises(DialectError, match="previous_response_id 'r7' is not known here, or not any more"):
        kept.followed(body, "t")


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("messages", {"mcp_servers": [{}]}, "mcp_servers"),
    ("messages", {"container": "c"}, "container"),
    ("messages", {"context_management": {"edits": []}}, "context_management"),
    ("messages", {"tools": [{"type": "web_search_20250305", "name": "s"}]}, "tools[0] of type 'web_search_20250305'"),
    ("messages", {"messages": [*blocks(1), {"role": "assistant", "content": "I"}]}, "messages[3]"),
    (
        "messages",
        {"messages": [{"role": "assistant", "content": [{"type": "redacted_thinking", "data": "x"}]}]},
        "redacted",
    ),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]}, "upload"),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "file"}}]}]}, "file"),
    ("responses", {"conversation": "c"}, "conversation"),
    ("responses", {"prompt": {"id": "p"}}, "prompt"),
    ("responses", {"background": True}, "background"),
    ("responses", {"truncation": "auto"}, "truncation"),
    ("responses", {"max_tool_calls": 3}, "max_tool_calls"),
    ("responses", {"top_logprobs": 3}, "top_logprobs"),
    ("responses", {"include": ["message.output_text.logprobs"]}, "logprobs"),
    ("responses", {"tools": [{"type": "web_search"}]}, "tools[0] of type 'web_search'"),
    ("responses", {"tools": [{"type": "local_shell"}]}, "local_shell"),
    ("responses", {"tool_choice": {"type": "web_search"}}, "tool_choice"),
    ("responses", {"input": [{"type": "reasoning", "id": "r", "summary": [], "encrypted_content": "x"}]}, "encrypted"),
    ("responses", {"input": [{"type": "web_search_call", "id": "w", "status": "completed"}]}, "web_search_call"),
    ("responses", {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "f"}]}]}, "input[0]"),
    ("responses", {"input": [{"type": "item_reference", "id": "x"}]}, "input[0]"),
]


@pytest.mark.parametrize(("dialect", "more", "says"), REFUSED, ids=[says for _, _, says in REFUSED])
def test_what_has_no_place_in_chat_is_refused_by_name(
    through: Through, dialect: str, more: dict[str, Any], says: str
) -> None:
    usual: dict[str, Any] = {"messages": blocks(1)} if dialect == "messages" else {"input": items(1)}

    async def call(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post(f"/v1/{dialect}", json={"model": "m", "max_tokens": 9, **usual, **more})

    response, upstream = through(call, answer=reply, policy="keep_all", chat_upstream=True)
    assert response.status_code == 400, response.text
    assert says in response.json()["error"]["message"]
    assert not upstream.requests


def test_fields_that_both_know_and_that_neither_knows_go_through(through: Through) -> None:
    schema = {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": True}

    async def call(client: httpx.AsyncClient) -> None:
        body: dict[str, Any] = {"model": "m", "input": "hi", "text": {"format": schema}, "temperature": 0.5}
        await client.post("/v1/responses", json={**body, "x_mine": 1, "metadata": {"a": "b"}, "user": "u"})
        body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "top_k": 5}
        config = {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}}
        body |= {"output_config": config, "thinking": {"type": "adaptive"}, "metadata": {"user_id": "u"}, "x_mine": 1}
        await client.post("/v1/messages?beta=true", json=body)

    _, upstream = through(call, answer=reply, chat_upstream=True)
    hi = [{"role": "user", "content": "hi"}]
    given = {key: value for key, value in schema.items() if key != "type"}
    form = {"type": "json_schema", "json_schema": given}
    same = {"model": "m", "messages": hi, "x_mine": 1, "user": "u"}
    assert upstream.bodies[0] == same | {"response_format": form, "temperature": 0.5}
    form = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}}}
    more = {"max_tokens": 9, "top_k": 5, "reasoning_effort": "high"}
    assert upstream.bodies[1] == same | more | {"response_format": form}
    assert upstream.requests[1].url.query == b""


def test_a_tool_that_takes_text_is_a_function_there_and_comes_back(through: Through) -> None:
    patch = {"role": "assistant", "content": None}
    arguments = json.dumps({"input": "*** Begin"})
    function = {"name": "apply_patch", "arguments": arguments}
    grammar = {"type": "grammar", "syntax": "lark", "definition": "start: x"}
    tool = {"type": "custom", "name": "apply_patch", "description": "Patches.", "format": grammar}
    history: list[Any] = [{"role": "user", "content": "hi"}]
    history.append({"type": "custom_tool_call", "call_id": "p0", "name": "apply_patch", "input": "***"})
    history.append({"type": "custom_tool_call_output", "call_id": "p0", "output": "done"})

    def answer(request: httpx.Request) -> httpx.Response:
        if json.loads(request.content).get("stream"):
            return chunks(piece(0, arguments[:5], id="p1", name="apply_patch"), piece(0, arguments[5:]))
        return completion(**patch, reasoning_content=None, tool_calls=[{"id": "p1", "function": function}])

    async def call(client: httpx.AsyncClient) -> Any:
        api = asking(openai.AsyncOpenAI, client).responses
        whole = await api.create(model="m", input=history, tools=[tool])
        async with api.stream(model="m", input=history, tools=[tool]) as events:
            return whole, await events.get_final_response()

    answers, upstream = through(call, answer=answer, policy="keep_all", chat_upstream=True)
    for made in answers:
        (item,) = made.output
        assert (item.type, item.call_id, item.name, item.input) == (
            "custom_tool_call",
            "p1",
            "apply_patch",
            "*** Begin",
        )
    sent = upstream.bodies[0]
    assert sent["tools"][0]["function"]["parameters"]["required"] == ["input"]
    assert "start: x" in sent["tools"][0]["function"]["description"]
    assert json.loads(sent["messages"][1]["tool_calls"][0]["function"]["arguments"]) == {"input": "***"}


@pytest.mark.parametrize(
    ("finish", "message", "reason", "status"),
    [
        ("stop", {"tool_calls": None}, "end_turn", "completed"),
        ("length", {"tool_calls": None}, "max_tokens", "incomplete"),
        ("stop", {}, "tool_use", "completed"),
        ("content_filter", {"tool_calls": None}, "refusal", "incomplete"),
        ("stop", {"tool_calls": None, "content": None, "refusal": "No."}, "refusal", "completed"),
    ],
)
def test_reasons_of_an_end(through: Through, finish: str, message: Any, reason: str, status: str) -> None:
    async def call(client: httpx.AsyncClient) -> Any:
        return await ask_messages(client, 0, False), await ask_responses(client, 0, False)

    (said, response), _ = through(call, answer=lambda request: completion(finish, **message), chat_upstream=True)
    assert said.stop_reason == reason
    assert response.status == status


@pytest.mark.parametrize("dialect", WAYS)
@pytest.mark.parametrize("status", [400, 401, 404, 429, 500, 503])
def test_the_servers_errors_are_the_clients_own(through: Through, dialect: str, status: int) -> None:
    library: Any = anthropic if dialect == "messages" else openai

    def answer(request: httpx.Request) -> httpx.Response:
        error = {"object": "error", "message": "no such thing", "type": "X", "code": status}
        return httpx.Response(status, json=error, headers={"retry-after": "3"})

    async def call(client: httpx.AsyncClient) -> Any:
        with pytest.raises(library.APIStatusError) as caught:
            await WAYS[dialect][0](client, 1, False)
        return caught.value

    error, _ = through(call, answer=answer, chat_upstream=True)
    assert error.status_code == status
    assert "no such thing" in str(error)
    assert error.response.headers["retry-after"] == "3"
    if dialect == "messages":
        kinds = {400: "invalid_request_error", 401: "authentication_error", 404: "not_found_error"}
        kinds |= {429: "rate_limit_error"}
        assert error.body["error"]["type"] == kinds.get(status, "api_error")


BAD = {
    "no JSON": lambda: httpx.Response(200, content=b"<html>"),
    "no choices": lambda: httpx.Response(200, json={"object": "x"}),
    "an error": lambda: httpx.Response(200, json={"error": {"message": "out of memory"}}),
    "a cut stream": lambda: chunks({"content": "Lo"}, finish=None),
    "a broken chunk": lambda: httpx.Response(
        200, content=b"data: {nope\n\n", headers={"content-type": "text/event-stream"}
    ),
    "an error chunk": lambda: httpx.Response(
        200, content=b'data: {"error": {"message": "out of memory"}}\n\n', headers={"content-type": "text/event-stream"}
    ),
}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("dialect", WAYS)
@pytest.mark.parametrize("bad", BAD)
def test_an_answer_that_is_none_is_an_error(through: Through, bad: str, dialect: str, stream: bool) -> None:
    library: Any = anthropic if dialect == "messages" else openai

    async def call(client: httpx.AsyncClient) -> None:
        with pytest.raises(library.APIError) as caught:
            await WAYS[dialect][0](client, 1, stream)
        assert "upstream" in str(caught.value) or "out of memory" in str(caught.value)

    through(call, answer=lambda request: BAD[bad](), chat_upstream=True)


@pytest.mark.parametrize("stream", [False, True])
def test_arguments_that_are_no_object_have_no_place_in_messages(through: Through, stream: bool) -> None:
    calls = [{"id": "x", "type": "function", "function": {"name": "view", "arguments": '{"path": '}}]

    def answer(request: httpx.Request) -> httpx.Response:
        if stream:
            return chunks(piece(0, '{"path": ', id="x", name="view"))
        return completion(tool_calls=calls)

    async def call(client: httpx.AsyncClient) -> httpx.Response:
        body = {"model": "m", "max_tokens": 9, "messages": blocks(1), "stream": stream}
        return await client.post("/v1/messages", json=body)

    response, _ = through(call, answer=answer, chat_upstream=True)
    assert response.status_code == (200 if stream else 502)
    assert "view" in response.text
    assert "no JSON object" in response.text
    assert "message_stop" not in response.text
    if not stream:  # a call that the limit cut short is none yet
        whole, _ = through(call, answer=lambda request: completion("length", tool_calls=calls), chat_upstream=True)
        assert (whole.json()["stop_reason"], len(whole.json()["content"])) == ("max_tokens", 2)
