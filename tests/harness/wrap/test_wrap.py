"""The wrapped client against a server in process, byte for byte."""

from __future__ import annotations

import asyncio
import copy
import functools
import json
import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import httpx
import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionMessage

from leyline.backends.http.affinity import AFFINITY_HEADERS
from leyline.directives import EditScript, Receipt, WireRequest
from leyline.harness.editor import Editor
from leyline.harness.session.inputs import InputError
from leyline.harness.wrap import WrapError, wrap
from leyline.policies import PolicyError, keep_all, truncate_older_than
from leyline.rendering.served import ServedRenderer

LONG = "x" * 500
AFFINITY = {name.lower() for name in AFFINITY_HEADERS}
CUT = "truncate_older_than(n=1, max_chars=20)"


class Server:
    """Answers every chat completion with its number and keeps the bytes of each request."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.headers: list[httpx.Headers] = []
        self.fail: httpx.Response | None = None
        self.meta: list[dict[str, Any]] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(request.read())
        self.headers.append(request.headers)
        if self.fail is not None:
            return self.fail
        body = json.loads(self.bodies[-1])
        usage = {
            "prompt_tokens": 100 * len(body["messages"]),
            "completion_tokens": 3,
            "total_tokens": 100 * len(body["messages"]) + 3,
            "prompt_tokens_details": {"cached_tokens": 50},
        }
        common = {"id": "r", "created": 0, "model": "m"}
        text = f"answer {len(self.bodies)}"
        if not body.get("stream"):
            choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}
            if self.meta:
                choice["meta_info"] = {"leyline": [self.meta.pop(0), []]}
            data = {**common, "object": "chat.completion", "choices": [choice], "usage": usage}
            return httpx.Response(200, json=data)
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": {"role": "assistant", "content": piece}, "finish_reason": None}]}
            for piece in text.split()
        ]
        chunks.append({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        if (body.get("stream_options") or {}).get("include_usage"):
            chunks.append({"choices": [], "usage": usage})
        if self.meta and "leyline" in (body.get("custom_params") or {}):
            chunks.append({"choices": [], "leyline": self.meta.pop(0)})
        lines = [json.dumps({**common, "object": "chat.completion.chunk", **chunk}) for chunk in chunks]
        text = "".join(f"data: {line}\n\n" for line in [*lines, "[DONE]"])
        return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})

    def messages(self, number: int = -1) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.bodies[number])["messages"]
        return found


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    http = httpx.Client(transport=httpx.MockTransport(server))
    with openai.OpenAI(api_key="k", base_url="http://server/v1", http_client=http, max_retries=0) as made:
        yield made


def other(server: Server) -> openai.OpenAI:
    http = httpx.Client(transport=httpx.MockTransport(server))
    return openai.OpenAI(api_key="k", base_url="http://server/v1", http_client=http, max_retries=0)


def history(turns: int, task: str = "go") -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "s"}, {"role": "user", "content": task}]
    for k in range(turns):
        function = {"name": "view", "arguments": "{}"}
        call = {"id": f"c{k}", "type": "function", "function": function}
        messages.append({"role": "assistant", "content": f"look {k} {task}", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{k}", "content": f"{k}{LONG}"})
    return messages


def test_keep_all_sends_the_very_bytes_of_the_bare_client(server: Server, client: openai.OpenAI) -> None:
    wrapped = wrap(client)
    for turns in range(3):
        for who in (client, wrapped):
            who.chat.completions.create(model="m", messages=history(turns), temperature=0.5, extra_body={"top_k": 3})
        assert server.bodies[-2] == server.bodies[-1]
        bare, wrapped_ones = ({k: v for k, v in h.items() if k not in AFFINITY} for h in server.headers[-2:])
        assert bare == wrapped_ones


def test_old_outputs_are_cut_and_stay_cut(server: Server, client: openai.OpenAI) -> None:
    wrapped = wrap(client, policy=CUT)
    for turns in range(5):
        given = history(turns)
        twin = copy.deepcopy(given)
        wrapped.chat.completions.create(model="m", messages=given)
        assert given == twin
    sent = server.messages()
    assert [len(m["content"]) < len(LONG) for m in sent if m["role"] == "tool"] == [True, True, True, False]
    report = wrapped.leyline.report()
    assert [turn.edits for turn in report.turns] == [0, 0, 1, 1, 1]
    assert report.turns[2].broke == "message 3 changed by the policy truncate_older_than"
    assert report.turns[1].broke is None
    assert report.turns[4].shed > 3 * 400
    assert report.turns[4].unit == "chars"


def test_the_edit_stays_when_the_policy_no_longer_asks_for_it(server: Server, client: openai.OpenAI) -> None:
    wrapped = wrap(client, policy="keep_last(n=2)")
    wrapped.chat.completions.create(model="m", messages=history(4))
    first = server.messages()
    wrapped.leyline.policy = wrap(client).leyline.policy
    wrapped.chat.completions.create(model="m", messages=history(4))
    assert server.messages() == first
    assert len(first) < len(history(4))


class Reminder:
    """A policy that puts a reminder behind the first message, always the same dict, with another text each turn."""

    name = "reminder"

    def __init__(self) -> None:
        self.note: dict[str, Any] = {"role": "user", "content": ""}

    def transform(self, messages: Sequence[dict[str, Any]], turn: int) -> list[dict[str, Any]]:
        self.note["content"] = f"reminder {turn}"
        return [*messages, self.note] if turn == 0 else list(messages)


def test_what_a_policy_returned_stays_though_the_policy_changes_it(server: Server, client: openai.OpenAI) -> None:
    wrapped = wrap(client, Reminder())
    for turns in range(3):
        wrapped.chat.completions.create(model="m", messages=history(turns))
        assert server.messages()[2]["content"] == "reminder 0"
        assert wrapped.leyline.last.broke is None


def test_of_two_that_go_on_from_one_history_at_once_both_keep_their_edits(server: Server) -> None:
    """Both are prepared before either is served, as with `asyncio.gather`."""
    first, second = history(2), history(2)
    second[2] = {**second[2], "content": "another answer"}
    hurry = asyncio.Event()

    async def serve(request: httpx.Request) -> httpx.Response:
        await hurry.wait()
        return server(request)

    async def play() -> list[str]:
        http = httpx.AsyncClient(transport=httpx.MockTransport(serve))
        async with wrap(openai.AsyncOpenAI(api_key="k", base_url="http://s/v1", http_client=http)) as wrapped:
            hurry.set()
            await wrapped.chat.completions.create(model="m", messages=history(0))
            hurry.clear()
            wrapped.leyline.policy = truncate_older_than(n=0, max_chars=20)
            both = [
                asyncio.create_task(wrapped.chat.completions.create(model="m", messages=given))
                for given in (first, second)
            ]
            await asyncio.sleep(0.2)
            assert len(server.bodies) == 1
            hurry.set()
            await asyncio.gather(*both)
            wrapped.leyline.policy = keep_all()
            for given in (first, second):
                await wrapped.chat.completions.create(model="m", messages=[*given, {"role": "user", "content": "on"}])
            return [turn.conversation for turn in wrapped.leyline.report().turns]

    names = asyncio.run(play())
    assert ["removed" in server.messages(n)[3]["content"] for n in range(1, 5)] == [True] * 4
    assert names[3:] == sorted(names[1:3])
    assert len(set(names[3:])) == 2


def test_the_report_counts_usage_and_says_what_it_counts(server: Server, client: openai.OpenAI) -> None:
    wrapped = wrap(client, policy=CUT)
    for turns in range(3):
        wrapped.chat.completions.create(model="m", messages=history(turns))
    report = wrapped.leyline.report()
    assert (report.prompt_tokens, report.cached_tokens, report.uncached_tokens) == (1200, 150, 1050)
    assert report.hit_rate == 150 / 1200
    assert wrapped.leyline.last == report.turns[-1]
    assert report.turns[-1].receipt == Receipt.plain(600, 50)
    text = str(report)
    assert "message 3 changed by the policy" in text
    assert "3 requests (3 with usage), 1 edit, hit rate 12.5% of 1200 tokens" in text


@pytest.mark.parametrize(
    ("usage", "counted"),
    [
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": "many"}}, (9, 0)),
        ({"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 1.5}}, (9, 0)),
        ({"prompt_tokens": True}, (None, None)),
        ({"prompt_tokens": "9"}, (None, None)),
    ],
)
def test_a_usage_block_that_is_none_does_not_cost_the_answer(
    server: Server, client: openai.OpenAI, usage: dict[str, Any], counted: tuple[int | None, int | None]
) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hi"}}
    server.fail = httpx.Response(200, json={"id": "r", "choices": [choice], "usage": usage})
    wrapped = wrap(client)
    answer = wrapped.chat.completions.create(model="m", messages=history(0))
    assert answer.choices[0].message.content == "hi"
    assert (wrapped.leyline.last.prompt_tokens, wrapped.leyline.last.cached_tokens) == counted


def test_two_conversations_that_interleave_keep_their_own_edits(server: Server, client: openai.OpenAI) -> None:
    alone = {}
    for task in ("go", "stop"):
        wrapped = wrap(client, policy=CUT)
        for turns in range(4):
            wrapped.chat.completions.create(model="m", messages=history(turns, task))
        alone[task] = server.bodies[-4:]
    wrapped = wrap(client, policy=CUT)
    mixed: dict[str, list[bytes]] = {"go": [], "stop": []}
    for turns in range(4):
        for task in ("go", "stop"):
            wrapped.chat.completions.create(model="m", messages=history(turns, task))
            mixed[task].append(server.bodies[-1])
    assert mixed == alone
    names = [turn.conversation for turn in wrapped.leyline.report().turns]
    assert len(set(names)) == 2
    assert all(turn.broke is None or "policy" in turn.broke for turn in wrapped.leyline.report().turns)


def test_two_conversations_of_one_task_part_where_their_answers_differ(server: Server, client: openai.OpenAI) -> None:
    wrapped = wrap(client, policy=CUT)
    first, second = history(4), history(4)
    second[2] = {**second[2], "content": "another answer"}
    for end in (2, 4, 6, 8):
        for given in (first, second):
            wrapped.chat.completions.create(model="m", messages=given[:end])
    turns = wrapped.leyline.report().turns
    assert {turn.conversation for turn in turns[2::2]}.isdisjoint({turn.conversation for turn in turns[3::2]})
    assert [turn.edits for turn in turns[4:]] == [1, 1, 1, 1]


def test_a_session_header_names_the_conversation(server: Server, client: openai.OpenAI) -> None:
    wrapped = wrap(client, policy=CUT)
    for end in (4, 6):
        for name in ("a", "b"):
            given = history(3)[:end]
            wrapped.chat.completions.create(model="m", messages=given, extra_headers={"X-Session-ID": name})
    turns = wrapped.leyline.report().turns
    assert [turn.conversation for turn in turns] == ["id a", "id b"] * 2
    assert server.headers[-1]["x-session-id"] == "b"
    wrapped.with_options(default_headers={"x-session-id": "a"}).chat.completions.create(model="m", messages=history(3))
    assert wrapped.leyline.last.conversation == "id a"
    named = wrapped.with_options(default_headers={"x-session-id": "a"})
    named.chat.completions.create(model="m", messages=history(3), extra_headers={"X-Session-ID": "b"})
    assert wrapped.leyline.last.conversation == "id b"
    without: Any = {"x-session-id": openai.Omit()}
    named.chat.completions.create(model="m", messages=history(3), extra_headers=without)
    assert wrapped.leyline.last.conversation == "#1"


def test_what_the_harness_changed_is_said(client: openai.OpenAI) -> None:
    wrapped = wrap(client)
    session = {"X-Session-ID": "a"}
    wrapped.chat.completions.create(model="m", messages=history(2), extra_headers=session)
    given = history(3)
    given[1]["content"] = "something else"
    wrapped.chat.completions.create(model="m", messages=given, extra_headers=session)
    assert wrapped.leyline.last.broke == "message 1 changed by the harness"


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_is_the_stream(server: Server, client: openai.OpenAI, usage: bool) -> None:
    wrapped = wrap(client, policy=CUT)
    options: Any = {"stream_options": {"include_usage": True}} if usage else {}
    for turns in range(3):
        stream = wrapped.chat.completions.create(model="m", messages=history(turns), stream=True, **options)
        assert isinstance(stream, openai.Stream)
        assert not hasattr(stream, "__aiter__")
        assert not hasattr(stream, "__aenter__")
        with stream:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
        assert text == f"answer{turns + 1}"
    assert "removed" in server.messages()[3]["content"]
    last = wrapped.leyline.last
    assert (last.edits, last.prompt_tokens) == (1, 600 if usage else None)
    assert wrapped.leyline.report().hit_rate == (0.125 if usage else None)
    bare = [c.to_dict() for c in client.chat.completions.create(model="m", messages=history(0), stream=True, **options)]
    same = [
        c.to_dict() for c in wrapped.chat.completions.create(model="m", messages=history(0), stream=True, **options)
    ]
    assert len(bare) == len(same)


def test_a_stream_left_early_is_remembered(server: Server, client: openai.OpenAI) -> None:
    wrapped = wrap(client, policy=CUT)
    stream = wrapped.chat.completions.create(model="m", messages=history(2), stream=True)
    next(stream)
    stream.close()
    wrapped.chat.completions.create(model="m", messages=history(2))
    assert server.messages(-1) == server.messages(-2)
    assert [turn.edits for turn in wrapped.leyline.report().turns] == [1, 0]


def test_a_stream_helper_left_before_its_first_chunk_gives_the_harness_its_own_error(
    server: Server, client: openai.OpenAI
) -> None:
    wrapped = wrap(client, CUT)
    with (
        pytest.raises(RuntimeError, match="the harness's own"),
        wrapped.chat.completions.stream(model="m", messages=history(1)) as stream,
    ):
        raise RuntimeError("the harness's own")
    assert stream._response.is_closed
    assert wrapped.leyline.last.prompt_tokens is None


def test_the_stream_helper_and_parse_are_edited_too(server: Server, client: openai.OpenAI) -> None:
    wrapped = wrap(client, policy=CUT)
    with wrapped.chat.completions.stream(model="m", messages=history(2)) as stream:
        assert stream.get_final_completion().choices[0].message.content == "answer1"
    assert "removed" in server.messages()[3]["content"]
    wrapped.chat.completions.parse(model="m", messages=history(3))
    assert "removed" in server.messages()[5]["content"]
    assert [turn.edits for turn in wrapped.leyline.report().turns] == [1, 1]


def test_raw_responses_are_edited_too(server: Server, client: openai.OpenAI) -> None:
    wrapped = wrap(client, policy=CUT)
    raw = wrapped.chat.completions.with_raw_response.create(model="m", messages=history(2))
    assert raw.http_response.status_code == 200
    assert isinstance(raw.parse(), ChatCompletion)
    wrapped.with_raw_response.chat.completions.create(model="m", messages=history(3))
    with wrapped.chat.completions.with_streaming_response.create(model="m", messages=history(4)) as response:
        response.read()
    assert ["removed" in server.messages(n)[3]["content"] for n in range(3)] == [True] * 3
    report = wrapped.leyline.report()
    assert [turn.edits for turn in report.turns] == [1, 1, 1]
    assert [turn.prompt_tokens for turn in report.turns] == [600, 800, 1000]


PATHS = [
    "chat.completions",
    "chat.with_raw_response.completions",
    "chat.with_streaming_response.completions",
    "chat.completions.with_raw_response",
    "chat.completions.with_streaming_response",
    "with_raw_response.chat.completions",
    "with_streaming_response.chat.completions",
    "beta.chat.completions",
    "beta.chat.with_raw_response.completions",
    "beta.chat.with_streaming_response.completions",
    "beta.chat.completions.with_raw_response",
    "beta.chat.completions.with_streaming_response",
]


@pytest.mark.parametrize("method", ["create", "parse"])
@pytest.mark.parametrize("path", PATHS)
def test_every_path_to_chat_completions_is_edited(
    server: Server, client: openai.OpenAI, path: str, method: str
) -> None:
    wrapped = wrap(client, policy=CUT)
    call = operator.attrgetter(f"{path}.{method}")
    answer = call(wrapped)(model="m", messages=history(2))
    if "streaming" in path:
        with answer as response:
            response.read()
    assert "removed" in server.messages()[3]["content"]
    assert [turn.edits for turn in wrapped.leyline.report().turns] == [1]

    async def play() -> None:
        http = httpx.AsyncClient(transport=httpx.MockTransport(server))
        async with wrap(openai.AsyncOpenAI(api_key="k", base_url="http://s/v1", http_client=http), CUT) as wrapped:
            answer = call(wrapped)(model="m", messages=history(2))
            if "streaming" in path:
                async with answer as response:
                    await response.read()
            else:
                await answer
            assert [turn.edits for turn in wrapped.leyline.report().turns] == [1]

    server.bodies.clear()
    asyncio.run(play())
    assert "removed" in server.messages()[3]["content"]


def test_the_list_of_paths_is_whole(client: openai.OpenAI) -> None:
    """Walks the bare client: wherever an object offers chat completions, the path is in the list above."""
    completions = [
        getattr(openai.resources.chat.completions, f"Completions{kind}")
        for kind in ("", "WithRawResponse", "WithStreamingResponse")
    ]

    def walk(owner: Any, path: str) -> Iterator[str]:
        if type(owner) in completions:
            yield path
        for name in dir(type(owner)):
            if not name.startswith("_") and isinstance(getattr(type(owner), name), functools.cached_property):
                yield from walk(getattr(owner, name), f"{path}.{name}".lstrip("."))

    assert sorted(walk(client, "")) == sorted(PATHS)


def test_messages_in_extra_body_are_those_that_are_sent_and_edited(server: Server, client: openai.OpenAI) -> None:
    given = {"messages": history(2), "top_k": 3}
    wrapped = wrap(client, policy=CUT)
    wrapped.chat.completions.create(model="m", messages=[], extra_body=given)
    assert "removed" in server.messages()[3]["content"]
    assert json.loads(server.bodies[-1])["top_k"] == 3
    assert given == {"messages": history(2), "top_k": 3}


def test_an_endpoint_that_is_not_edited_says_so(client: openai.OpenAI) -> None:
    wrapped = wrap(client, policy=CUT)
    for owner in (wrapped, wrapped.with_raw_response):
        with (
            pytest.warns(UserWarning, match=r"/completions is not edited by the policy truncate_older_than") as told,
            pytest.raises(KeyError),
        ):
            owner.completions.create(model="m", prompt="go")
        assert len(told) == 1
    with pytest.raises(KeyError):  # keep_all edits nothing anywhere
        wrap(client).completions.create(model="m", prompt="go")


def test_a_shallow_copy_is_wrapped_too(server: Server, client: openai.OpenAI) -> None:
    copy.copy(wrap(client, policy=CUT)).chat.completions.create(model="m", messages=history(2))
    assert "removed" in server.messages()[3]["content"]


def test_copies_share_the_memory(server: Server, client: openai.OpenAI) -> None:
    wrapped = wrap(client, policy=CUT)
    wrapped.chat.completions.create(model="m", messages=history(2))
    wrapped.copy().chat.completions.create(model="m", messages=history(2))
    assert [turn.edits for turn in wrapped.leyline.report().turns] == [1, 0]


def test_it_is_the_client_in_every_other_way(client: openai.OpenAI) -> None:
    wrapped = wrap(client)
    assert isinstance(wrapped, openai.OpenAI)
    assert not isinstance(wrapped, openai.AsyncOpenAI)
    assert wrapped.base_url == client.base_url
    assert wrapped.embeddings is client.embeddings
    wrapped.timeout = 3.0
    assert client.timeout == 3.0
    with wrapped as entered:
        assert entered is wrapped
    with pytest.raises(AttributeError):
        _ = wrapped.nothing_of_the_kind


def test_errors_pass_through_and_nothing_is_remembered(server: Server, client: openai.OpenAI) -> None:
    wrapped = wrap(client, policy=CUT)
    server.fail = httpx.Response(429, json={"error": {"message": "slow down"}})
    with pytest.raises(openai.RateLimitError, match="slow down"):
        wrapped.chat.completions.create(model="m", messages=history(2))
    with pytest.raises(openai.RateLimitError, match="slow down"):
        wrapped.chat.completions.create(model="m", messages=history(2), stream=True)
    with pytest.raises(openai.RateLimitError), wrapped.chat.completions.stream(model="m", messages=history(2)):
        pass
    assert wrapped.leyline.last is None
    server.fail = None
    wrapped.chat.completions.create(model="m", messages=history(2))
    assert wrapped.leyline.last.edits == 1


@pytest.mark.parametrize("messages", ["text", None, 7, [object()], {"role": "user"}])
def test_what_are_no_messages_fails_as_with_the_bare_client(client: openai.OpenAI, messages: Any) -> None:
    def outcome(who: openai.OpenAI) -> str:
        try:
            return who.chat.completions.create(model="m", messages=messages).choices[0].finish_reason
        except Exception as error:
            return repr(error)

    assert outcome(wrap(client, policy=CUT)) == outcome(client)
    with pytest.raises(TypeError, match="messages"):
        wrap(client).chat.completions.create(model="m")


def test_messages_of_a_generator_are_edited_too(server: Server, client: openai.OpenAI) -> None:
    given: Any = (message for message in history(2))
    wrapped = wrap(client, policy=CUT)
    wrapped.chat.completions.create(model="m", messages=given)
    assert "removed" in server.messages()[3]["content"]
    assert len(server.messages()) == len(history(2))
    unread: Any = (message for message in [{"role": "user", "content": "go"}, object()])
    with pytest.raises(TypeError, match="object"):  # the bare client's own words, which need the whole list
        wrapped.chat.completions.create(model="m", messages=unread)


def test_answers_may_be_given_back_as_the_clients_own_models(server: Server, client: openai.OpenAI) -> None:
    wrapped = wrap(client, policy="keep_last(n=1)")
    given: list[Any] = history(0)
    for k in range(3):
        answer = wrapped.chat.completions.create(model="m", messages=given).choices[0].message
        given += [answer, {"role": "user", "content": f"go on {k}"}]
    wrapped.chat.completions.create(model="m", messages=given)
    assert wrapped.leyline.last.conversation == "#1"
    assert len(server.messages()) < len(given)


def test_tool_calls_may_be_the_clients_own_models(server: Server, client: openai.OpenAI) -> None:
    """As in `{"role": "assistant", "tool_calls": answer.tool_calls}`: a policy that reads the calls finds them."""
    sent = []
    for own in (False, True):
        given: list[dict[str, Any]] = history(0)
        for k in range(3):
            function = {"name": "view", "arguments": '{"path": "a.py"}'}
            call = {"id": f"c{k}", "type": "function", "function": function}
            calls = ChatCompletionMessage.model_validate({"role": "assistant", "tool_calls": [call]}).tool_calls
            given.append({"role": "assistant", "content": "look", "tool_calls": calls if own else [call]})
            given.append({"role": "tool", "tool_call_id": f"c{k}", "content": f"{k}{LONG}"})
        wrapped = wrap(client, "drop_stale()")
        wrapped.chat.completions.create(model="m", messages=given)
        assert wrapped.leyline.last.edits == 2
        sent.append(server.messages())
    assert sent[0] == sent[1]


def test_the_async_client(server: Server) -> None:
    async def play() -> Any:
        http = httpx.AsyncClient(transport=httpx.MockTransport(server))
        async with wrap(openai.AsyncOpenAI(api_key="k", base_url="http://s/v1", http_client=http), CUT) as wrapped:
            assert isinstance(wrapped, openai.AsyncOpenAI)
            for turns in range(2):
                await wrapped.chat.completions.create(model="m", messages=history(turns))
            options: Any = {"stream_options": {"include_usage": True}}
            stream = await wrapped.chat.completions.create(model="m", messages=history(2), stream=True, **options)
            text = ""
            assert not hasattr(stream, "__iter__")
            assert not hasattr(stream, "__enter__")
            async with stream:
                async for chunk in stream:
                    text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
            async with wrapped.chat.completions.stream(model="m", messages=history(3)) as events:
                assert [event async for event in events]
            raw = await wrapped.chat.completions.with_raw_response.create(model="m", messages=history(4))
            assert raw.parse().choices[0].message.content == "answer 5"
            both = (wrapped.chat.completions.create(model="m", messages=history(2, task)) for task in ("a", "b"))
            await asyncio.gather(*both)
            return text, wrapped.leyline.report()

    text, report = asyncio.run(play())
    assert text == "answer3"
    assert [turn.edits for turn in report.turns] == [0, 0, 1, 1, 1, 1, 1]
    assert report.turns[2].prompt_tokens == 600


def test_with_and_async_with_are_those_of_the_bare_client(server: Server, client: openai.OpenAI) -> None:
    """A sync client and what it opens refuse `async with` before anything is sent, and the other way round."""
    http = httpx.AsyncClient(transport=httpx.MockTransport(server))
    wrapped = wrap(client, CUT)
    wrapped_async = wrap(openai.AsyncOpenAI(api_key="k", base_url="http://s/v1", http_client=http), CUT)

    def opened(of: Any) -> list[Any]:
        completions = of.chat.completions
        later = completions.with_streaming_response.create(model="m", messages=history(1))
        return [completions.stream(model="m", messages=history(1)), later, of.with_options(timeout=5), of]

    async def enter(thing: Any) -> None:
        async with thing:
            pass

    for thing in opened(wrapped):
        assert hasattr(thing, "__enter__")
        assert not hasattr(thing, "__aenter__")
        with pytest.raises(TypeError, match="asynchronous context manager"):
            asyncio.run(enter(thing))
    things = opened(wrapped_async)
    for thing in things:
        assert hasattr(thing, "__aenter__")
        assert not hasattr(thing, "__enter__")
        with pytest.raises(TypeError, match="context manager"), thing:
            pass
    assert server.bodies == []
    for thing in things:
        asyncio.run(enter(thing))
    assert len(server.bodies) == 2


def test_splice_sends_directives_and_gives_the_lineage_back(
    server: Server, client: openai.OpenAI, scripted: Callable[..., Any]
) -> None:
    renderer = scripted([]).renderer
    wrapped = wrap(client, CUT, renderer=renderer, splice=True, seam=2)
    spliced = {"prompt_tokens": 9, "prefix_tokens": 3, "spliced_tokens": 4, "prefilled_tokens": 2}
    plain = Receipt.plain(9, 3).to_dict()
    server.meta = [plain, plain, {**spliced, "lineage": "L7", "approximate_from": 3, "directives": 0}, plain]
    for turns in range(4):
        wrapped.chat.completions.create(model="m", messages=history(turns), extra_body={"custom_params": {"mine": 1}})
    bodies = [json.loads(body) for body in server.bodies]
    assert [body["custom_params"].keys() for body in bodies] == [
        {"mine"},
        {"mine"},
        {"mine", "leyline"},
        {"mine", "leyline"},
    ]
    assert bodies[2]["return_meta_info"] is True
    wire = WireRequest.from_json(bodies[2]["custom_params"]["leyline"])
    assert (wire.seam, wire.lineage) == (2, None)
    served = ServedRenderer(renderer)  # as the server's chat route renders them
    prompt = served.render(bodies[2]["messages"]).ids
    held = served.render(bodies[1]["messages"]).ids
    assert tuple(wire.source(prompt)[: len(held)]) == held
    assert WireRequest.from_json(bodies[3]["custom_params"]["leyline"]).lineage == "L7"
    assert wrapped.leyline.report().turns[2].receipt.spliced_tokens == 4
    assert wrapped.leyline.last.unit == "tokens"
    assert wrapped.leyline.last.shed > 800


@pytest.mark.parametrize("usage", [True, False])
@pytest.mark.parametrize("step", ["for", "next"])
def test_the_receipt_of_a_stream_is_read_and_kept_from_the_harness(
    server: Server, client: openai.OpenAI, scripted: Callable[..., Any], usage: bool, step: str
) -> None:
    wrapped = wrap(client, CUT, renderer=scripted([]).renderer, splice=True)
    spliced = {"prompt_tokens": 9, "prefix_tokens": 3, "spliced_tokens": 4, "prefilled_tokens": 2}
    options: Any = {"stream_options": {"include_usage": True}} if usage else {}
    server.meta = [{**spliced, "lineage": "L7", "approximate_from": 3, "directives": 0}]
    for turns in range(5):
        stream = wrapped.chat.completions.create(model="m", messages=history(turns), stream=True, **options)
        chunks = list(stream) if step == "for" else list(iter(lambda s=stream: next(s, None), None))
        assert all(chunk.choices or chunk.usage for chunk in chunks), "the harness saw a chunk it did not ask for"
        if turns == 2:
            receipt = wrapped.leyline.last.receipt
            assert (receipt.spliced_tokens, receipt.lineage) == (4, "L7")
    params = [(json.loads(body).get("custom_params") or {}).get("leyline") for body in server.bodies]
    assert WireRequest.from_json(params[3]).lineage == "L7"
    assert params[4] is None or WireRequest.from_json(params[4]).lineage is None, (
        "no receipt came, so the lineage ended"
    )


@pytest.mark.parametrize(("start", "lineage"), [(3, "L7"), (1000, None)])
def test_a_fork_takes_the_lineage_over_where_it_shares_what_was_moved(
    server: Server, client: openai.OpenAI, scripted: Callable[..., Any], start: int, lineage: str | None
) -> None:
    wrapped = wrap(client, CUT, renderer=scripted([]).renderer, splice=True)
    spliced = {"prompt_tokens": 1200, "prefix_tokens": 1000, "spliced_tokens": 200, "prefilled_tokens": 0}
    plain = Receipt.plain(9, 3).to_dict()
    server.meta = [plain, plain, {**spliced, "lineage": "L7", "approximate_from": start, "directives": 0}, plain]
    for turns in range(3):
        wrapped.chat.completions.create(model="m", messages=history(turns))
    given = [*history(0), {"role": "assistant", "content": "another way"}, {"role": "user", "content": "on"}]
    wrapped.chat.completions.create(model="m", messages=given)
    assert wrapped.leyline.last.conversation == "#2"
    params = json.loads(server.bodies[-1]).get("custom_params")
    assert (WireRequest.from_json(params["leyline"]).lineage if params else None) == lineage


def test_a_stream_that_is_read_late_does_not_give_its_lineage_to_a_later_turn(
    server: Server, client: openai.OpenAI, scripted: Callable[..., Any]
) -> None:
    wrapped = wrap(client, CUT, renderer=scripted([]).renderer, splice=True)
    spliced = {"prompt_tokens": 9, "prefix_tokens": 3, "spliced_tokens": 4, "prefilled_tokens": 2}
    plain = Receipt.plain(9, 3).to_dict()
    server.meta = [plain, plain, {**spliced, "lineage": "L7", "approximate_from": 3, "directives": 0}, plain, plain]
    for turns in range(2):
        wrapped.chat.completions.create(model="m", messages=history(turns))
    stream = wrapped.chat.completions.create(model="m", messages=history(2), stream=True)
    wrapped.chat.completions.create(model="m", messages=history(3))
    list(stream)
    assert wrapped.leyline.report().turns[2].receipt.lineage == "L7"
    wrapped.chat.completions.create(model="m", messages=history(4))
    wire = WireRequest.from_json(json.loads(server.bodies[-1])["custom_params"]["leyline"])
    assert wire.lineage is None


def test_without_a_renderer_the_server_is_told_what_it_may_do(server: Server, client: openai.OpenAI) -> None:
    wrapped = wrap(client, CUT, splice=True, seam=2)
    for turns in range(4):
        wrapped.chat.completions.create(model="m", messages=history(turns))
    wires = [WireRequest.from_json(json.loads(body)["custom_params"]["leyline"]) for body in server.bodies]
    assert len({wire.session for wire in wires}) == 1
    # A turn without an edit of ours allows nothing: what differs then, nobody declared.
    assert [wire.allow for wire in wires] == ["forget", "forget", "amortize", "amortize"]
    assert {(wire.seam, len(wire.script), wire.lineage) for wire in wires} == {(2, 0, None)}
    wrapped.chat.completions.create(model="m", messages=history(3, "other"))
    other = WireRequest.from_json(json.loads(server.bodies[-1])["custom_params"]["leyline"])
    assert other.session != wires[0].session
    strict = wrap(client, "truncate_older_than(n=1, max_chars=20, mode='forget')", splice=True, purge=True)
    asked = []
    for turns in range(3):
        strict.chat.completions.create(model="m", messages=history(turns))
        wire = WireRequest.from_json(json.loads(server.bodies[-1])["custom_params"]["leyline"])
        asked.append((wire.allow, wire.purge))
    assert asked == [("forget", False), ("forget", False), ("forget", True)]


def test_splice_with_nothing_to_say_sends_the_bare_bytes(
    server: Server, client: openai.OpenAI, scripted: Callable[..., Any]
) -> None:
    wrapped = wrap(client, renderer=scripted([]).renderer, splice=True)
    for turns in range(2):
        wrapped.chat.completions.create(model="m", messages=history(turns))
        client.chat.completions.create(model="m", messages=history(turns))
        assert server.bodies[-1] == server.bodies[-2]


@pytest.mark.parametrize("policy", [CUT, "truncate_older_than(n=1, max_chars=20, mode='amortize')"])
def test_honest_asks_for_forget(
    server: Server, client: openai.OpenAI, scripted: Callable[..., Any], policy: str
) -> None:
    wrapped = wrap(client, policy, renderer=scripted([]).renderer, splice=True, honest=True)
    for turns in range(3):
        wrapped.chat.completions.create(model="m", messages=history(turns))
    wire = WireRequest.from_json(json.loads(server.bodies[-1])["custom_params"]["leyline"])
    assert wire.honest
    assert [d.mode for d in wire.script] == ["forget"]
    assert wire.script != EditScript(())


def test_directives_over_the_wires_limits_are_left_out(
    server: Server, client: openai.OpenAI, scripted: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leyline.directives.wire.MAX_TOKENS", len(LONG) // 2)
    wrapped = wrap(client, CUT, renderer=scripted([]).renderer, splice=True)
    for turns in range(3):
        wrapped.chat.completions.create(model="m", messages=history(turns))
    assert "removed" in server.messages()[3]["content"]
    assert "custom_params" not in json.loads(server.bodies[-1])


def test_a_lineage_that_cannot_go_back_is_no_receipt(
    server: Server, client: openai.OpenAI, scripted: Callable[..., Any]
) -> None:
    server.meta = [{**Receipt.plain(9, 3).to_dict(), "lineage": "not a lineage"}]
    wrapped = wrap(client, renderer=scripted([]).renderer, splice=True)
    for turns in range(2):
        wrapped.chat.completions.create(model="m", messages=history(turns))
    assert wrapped.leyline.report().turns[0].receipt == Receipt.plain(200, 50)
    assert "custom_params" not in json.loads(server.bodies[-1])


def test_a_receipt_that_cannot_be_read_is_left_out(server: Server, client: openai.OpenAI) -> None:
    server.meta = [{"prompt_tokens": "many"}]
    wrapped = wrap(client)
    wrapped.chat.completions.create(model="m", messages=history(0))
    assert wrapped.leyline.last.receipt == Receipt.plain(200, 50)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 900, "prompt_cache_hit_tokens": 600, "prompt_cache_miss_tokens": 300}, (900, 600)),
        ({"prompt_tokens": 900, "cached_tokens": 600}, (900, 600)),
        ({"input_tokens": 100, "cache_read_input_tokens": 600, "cache_creation_input_tokens": 200}, (900, 600)),
        ({"prompt_tokens": 3, "prompt_tokens_details": {"cached_tokens": 12000}}, (3, 3)),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_usage_in_other_words(stream: bool, usage: dict[str, Any], counts: tuple[int, int]) -> None:
    choice = {"index": 0, "finish_reason": "stop", "message" if not stream else "delta": {"content": "x"}}
    body = {"id": "r", "created": 0, "model": "m", "object": "chat.completion", "choices": [choice], "usage": usage}

    def serve(request: httpx.Request) -> httpx.Response:
        if not stream:
            return httpx.Response(200, json=body)
        text = f"data: {json.dumps(body)}\n\ndata: [DONE]\n\n"
        return httpx.Response(200, text=text, headers={"content-type": "text/event-stream"})

    http = httpx.Client(transport=httpx.MockTransport(serve))
    wrapped = wrap(openai.OpenAI(api_key="k", base_url="http://server.test/v1", http_client=http))
    answer = wrapped.chat.completions.create(model="m", messages=history(0), stream=stream)
    assert not stream or list(answer)
    report = wrapped.leyline.report()
    assert (report.prompt_tokens, report.cached_tokens) == counts
    assert (report.hit_rate or 0) <= 1 <= 1 + report.uncached_tokens


def test_what_cannot_be_wrapped_is_said_in_one_line(client: openai.OpenAI) -> None:
    with pytest.raises(WrapError, match="give an openai"):
        wrap(object())
    with pytest.raises(PolicyError, match="is not a policy"):
        wrap(client, policy=len)  # type: ignore[arg-type]
    with pytest.raises(PolicyError, match="truncate_older_than"):
        wrap(client, policy="truncate_older_then(n=2)")
    with pytest.raises(WrapError, match="purge=True needs splice=True"):
        wrap(client, purge=True)
    with pytest.raises(PolicyError, match=r"wrap: mode 'x' is not known; use 'amortize', 'forget' or 'auto'"):
        wrap(client, mode="x")


@pytest.mark.parametrize("splice", [True, False])
@pytest.mark.parametrize("setting", [{"seam": -1}, {"seam": "x"}, {"seam": 65_537}, {"seam": True}, {"honest": "no"}])
def test_a_setting_that_the_wire_cannot_carry_is_refused_at_once(
    client: openai.OpenAI, scripted: Callable[..., Any], setting: dict[str, Any], splice: bool
) -> None:
    name, value = next(iter(setting.items()))
    with pytest.raises(InputError, match=f"^wrap: {name} is {value!r}; give .*$"):
        wrap(client, CUT, renderer=scripted([]).renderer, splice=splice, **setting)


def test_old_conversations_are_forgotten_in_the_end(client: openai.OpenAI) -> None:
    wrapped = wrap(client, policy=CUT, max_conversations=2)

    def serve(task: str) -> None:
        given = history(2, task)
        given[0]["content"] = task
        wrapped.chat.completions.create(model="m", messages=given)

    serve("a")
    serve("b")
    with pytest.warns(UserWarning, match="forgot conversation '#1'"):
        serve("c")
    serve("a")
    assert [turn.conversation for turn in wrapped.leyline.report().turns] == ["#1", "#2", "#3", "#4"]
    assert wrapped.leyline.report().forgotten == 2


@pytest.mark.parametrize(("meta", "lost"), [(False, "return_meta_info"), (True, "custom_params")])
def test_a_turn_whose_fields_were_dropped_says_so(client: openai.OpenAI, server: Server, meta: bool, lost: str) -> None:
    """A router takes the fields away, or a server runs without the plugin: no receipt, whatever was asked."""
    server.meta = [None] * 9 if meta else []
    wrapped = wrap(client, CUT, splice=True)
    for turns in range(3):
        wrapped.chat.completions.create(model="m", messages=history(turns))
    receipts = [turn.receipt for turn in wrapped.leyline.report().turns]
    assert [receipt.fallback for receipt in receipts] == ["backend_has_no_splice"] * 3
    assert [receipt.directives for receipt in receipts] == [0, 0, 1]
    assert all("`custom_params`" in receipt.detail and lost in receipt.detail for receipt in receipts)
    plain = wrap(client, CUT)
    plain.chat.completions.create(model="m", messages=history(3))
    assert plain.leyline.last.receipt.fallback is None, "nothing was asked of the server"


@pytest.mark.parametrize("n", [1, 2])
def test_a_stream_whose_receipt_was_dropped_says_so(client: openai.OpenAI, n: int) -> None:
    wrapped = wrap(client, CUT, splice=True)
    options: Any = {"stream_options": {"include_usage": True}}
    list(wrapped.chat.completions.create(model="m", messages=history(2), stream=True, n=n, **options))
    # Of several answers in one stream no receipt comes anyway.
    assert wrapped.leyline.last.receipt.fallback == ("backend_has_no_splice" if n == 1 else None)


SPLICED = {"prompt_tokens": 9, "prefix_tokens": 3, "spliced_tokens": 4, "prefilled_tokens": 2, "directives": 0}
USAGE = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}


@pytest.mark.parametrize(
    "body",
    [
        {"choices": [{"provider_specific_fields": {"meta_info": {"leyline": [SPLICED]}}}]},
        {"choices": [{"message": {"provider_specific_fields": {"leyline": SPLICED}}}]},
        {"choices": [{}], "provider_specific_fields": {"leyline": SPLICED}},
        {"choices": [{"delta": {"provider_specific_fields": {"leyline": SPLICED}}}]},
    ],
)
def test_a_receipt_is_found_where_litellm_puts_it(body: dict[str, Any]) -> None:
    editor = Editor(CUT, splice=True)
    plan = editor.plan(history(1))
    plan.served({**body, "usage": USAGE})
    plan.served({"choices": [], "usage": USAGE})  # of a stream, after the receipt
    assert editor.last is not None
    assert editor.last.receipt is not None
    assert (editor.last.receipt.spliced_tokens, editor.last.receipt.fallback) == (4, None)
