from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline.backends.contract import Backend, BackendError, ContextOverflowError, Sampling, TurnInput
from leyline.backends.openai.backend import OpenAIBackend
from leyline.directives import Directive, EditScript, Fallback, LeylineError, Message

USER: list[Message] = [{"role": "user", "content": "hi"}]
SESSION = TurnInput(session_id="s")
TOOLS = [{"type": "function", "function": {"name": "view", "parameters": {"type": "object"}}}]
CALL = {"id": "c1", "type": "function", "function": {"name": "view", "arguments": '{"path": "a.py"}'}}
URL = "http://server.test/v1"


@pytest.fixture(autouse=True)
def _no_settings_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def completion(message: dict[str, Any] | None = None, reason: str = "stop", **usage: Any) -> dict[str, Any]:
    body = {
        "choices": [{"index": 0, "message": message or {"role": "assistant", "content": "ok"}, "finish_reason": reason}]
    }
    return {**body, "usage": {"prompt_tokens": 20, "completion_tokens": 5, "total_tokens": 25, **usage}}


class Server:
    """A handler for httpx's MockTransport that answers from a list, the last one for ever."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.bodies, self.paths = list(answers), [], []
        self.headers: list[httpx.Headers] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.path)
        self.headers.append(request.headers)
        self.bodies.append(json.loads(request.content) if request.content else None)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx.Response) else httpx.Response(200, json=answer)


def backend(server: Callable[[httpx.Request], httpx.Response], **changes: Any) -> OpenAIBackend:
    client = httpx.Client(transport=httpx.MockTransport(server))
    return OpenAIBackend("m", **{"base_url": URL, "http_client": client, "retries": 0, **changes})


def error(status: int, message: str, **more: Any) -> httpx.Response:
    return httpx.Response(status, json={"error": {"message": message, **more}})


def sse(*chunks: Any, done: bool = True) -> httpx.Response:
    lines = [f"data: {c if isinstance(c, str) else json.dumps(c)}\n\n" for c in chunks]
    text = ": keep-alive\n\n" + "".join(lines) + ("data: [DONE]\n\n" if done else "")
    return httpx.Response(200, content=text.encode(), headers={"content-type": "text/event-stream"})


def delta(reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": reason}]}


def test_a_turn_gives_message_usage_and_receipt() -> None:
    server = Server(completion(prompt_tokens_details={"cached_tokens": 12}))
    served = backend(server)
    assert isinstance(served, Backend)
    sampling = Sampling(max_tokens=7, temperature=0.5, top_p=0.9, seed=3, stop=("X",))
    turn = served.chat(USER, TOOLS, TurnInput("s", sampling=sampling))
    assert turn.message == {"role": "assistant", "content": "ok"}
    assert (turn.usage.prompt_tokens, turn.usage.cached_tokens, turn.usage.completion_tokens) == (20, 12, 5)
    assert (turn.receipt.prefix_tokens, turn.receipt.prefilled_tokens, turn.receipt.fallback) == (12, 8, None)
    assert turn.receipt.hit_rate == 0.6
    assert server.paths == ["/v1/chat/completions"]
    assert server.bodies[0] == {
        "model": "m",
        "messages": USER,
        "tools": TOOLS,
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": 3,
        "stop": ["X"],
    }


def test_settings_at_their_default_are_not_sent() -> None:
    server = Server(completion())
    backend(server, extra_body={"top_k": 4}).chat(USER, None, SESSION)
    assert server.bodies[0] == {"model": "m", "messages": USER, "max_tokens": 512, "temperature": 0.0, "top_k": 4}


def test_directives_and_edits_fall_back() -> None:
    served = backend(Server(completion()))
    turn = served.chat(USER, None, TurnInput("s", script=EditScript((Directive(0, 1),))))
    assert (turn.receipt.directives, turn.receipt.fallback) == (1, Fallback.BACKEND_HAS_NO_SPLICE)
    assert served.chat(USER, None, TurnInput("s", edits=2)).receipt.directives == 2
    capabilities = served.capabilities()
    assert (capabilities.splice, capabilities.tokens, served.renderer) == (False, False, None)
    assert capabilities.reason


@pytest.mark.parametrize(
    ("usage", "cached"),
    [
        ({}, 0),
        ({"prompt_tokens_details": None}, 0),
        ({"prompt_tokens_details": {"cached_tokens": None}}, 0),
        ({"prompt_tokens_details": {"cached_tokens": 99}}, 20),
        ({"prompt_tokens_details": {"cached_tokens": True}}, 0),
        ({"prompt_cache_hit_tokens": 6}, 6),
    ],
)
def test_cached_tokens(usage: dict[str, Any], cached: int) -> None:
    assert backend(Server(completion(**usage))).chat(USER, None, SESSION).usage.cached_tokens == cached


def test_a_server_without_usage_is_served_with_a_remark() -> None:
    body = completion()
    del body["usage"]
    turn = backend(Server(body)).chat(USER, None, SESSION)
    assert turn.usage.prompt_tokens == 0
    assert "no usage block" in (turn.receipt.detail or "")


def test_tool_calls() -> None:
    turn = backend(Server(completion({"content": None, "tool_calls": [CALL]}, "tool_calls"))).chat(USER, TOOLS, SESSION)
    assert turn.message == {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert turn.finish_reason == "tool_calls"


def test_tool_calls_without_id_or_with_object_arguments_are_mended() -> None:
    loose = {"function": {"name": "view", "arguments": {"path": "b"}}}
    turn = backend(Server(completion({"content": "", "tool_calls": [loose]}))).chat(USER, TOOLS, SESSION)
    (call,) = turn.message["tool_calls"]
    assert call["id"].startswith("call_")
    assert call["function"] == {"name": "view", "arguments": '{"path": "b"}'}


def test_tool_calls_left_in_the_text_are_read_when_tools_were_offered() -> None:
    text = 'Look.\n<tool_call>\n{"name": "view", "arguments": {"path": "a"}}\n</tool_call>'
    served = backend(Server(completion({"content": text})))
    call = served.chat(USER, TOOLS, SESSION).message["tool_calls"][0]
    assert call["function"]["name"] == "view"
    assert served.chat(USER, None, SESSION).message == {"role": "assistant", "content": text}


def test_streaming() -> None:
    server = Server(
        sse(
            delta(role="assistant", content=""),
            delta(content="one "),
            delta(content="two"),
            delta(tool_calls=[{"index": 0, "id": "c1", "function": {"name": "view", "arguments": '{"path"'}}]),
            delta(tool_calls=[{"index": 0, "function": {"arguments": ': "a.py"}'}}]),
            delta("tool_calls"),
            {
                "choices": [],
                "usage": {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 3}},
            },
        )
    )
    pieces: list[str] = []
    turn = backend(server).chat(USER, TOOLS, TurnInput("s", on_text=pieces.append))
    assert pieces == ["one ", "two"]
    assert turn.message == {"role": "assistant", "content": "one two", "tool_calls": [CALL]}
    assert (turn.finish_reason, turn.usage.cached_tokens, turn.usage.prompt_tokens) == ("tool_calls", 3, 9)
    assert turn.timings["ttft"] > 0
    assert server.bodies[0]["stream"] is True
    assert server.bodies[0]["stream_options"] == {"include_usage": True}


def test_a_stream_whose_calls_have_no_index_and_whose_usage_chunk_has_no_choices() -> None:
    call = {"index": None, "id": "c1", "function": {"name": "view", "arguments": '{"path": "a.py"}'}}
    usage = {"usage": {"prompt_tokens": 9, "completion_tokens": 4}}
    server = Server(sse(delta("tool_calls", tool_calls=[call]), usage, {**usage, "choices": None}))
    turn = backend(server).chat(USER, TOOLS, TurnInput("s", on_text=lambda piece: None))
    assert turn.message == {"role": "assistant", "content": None, "tool_calls": [CALL]}
    assert turn.usage.prompt_tokens == 9


def test_what_a_server_says_cannot_steer_a_terminal() -> None:
    with pytest.raises(BackendError, match=r"400: a \[31mred\)"):
        backend(Server(error(400, "a\x1b[31mred"))).chat(USER, None, TurnInput("s"))


def test_line_separators_of_unicode_do_not_end_a_line() -> None:
    text = "a\u2028b\x85c"
    raw = json.dumps(delta("stop", content=text), ensure_ascii=False)
    turn = backend(Server(sse(raw))).chat(USER, None, TurnInput("s", on_text=lambda piece: None))
    assert turn.message["content"] == text


def test_a_server_that_does_not_stream_is_read_whole() -> None:
    pieces: list[str] = []
    turn = backend(Server(completion())).chat(USER, None, TurnInput("s", on_text=pieces.append))
    assert pieces == ["ok"]
    assert turn.usage.prompt_tokens == 20


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (sse(delta(content="a"), done=False), "ended before the answer was complete"),
        (sse("{not json"), "not JSON"),
        (sse({"choices": 3}), "choices"),
        (sse([1]), "not an object"),
        (sse(delta(content=7)), "not a string"),
        (sse({"error": {"message": "out of memory"}}), "out of memory"),
    ],
)
def test_broken_streams(answer: httpx.Response, text: str) -> None:
    with pytest.raises(BackendError, match=text):
        backend(Server(answer)).chat(USER, None, TurnInput("s", on_text=lambda piece: None))


@pytest.mark.parametrize("cut", [0, 1, 30, 60, 10_000])
def test_a_stream_cut_short_may_be_asked_for_again(cut: int) -> None:
    answer = sse(delta(content="Hello"), delta(content=" there"), done=False)
    answer = httpx.Response(200, content=answer.content[: -cut or None], headers={"content-type": "text/event-stream"})
    with pytest.raises(BackendError, match="ended before the answer was complete; try again") as caught:
        backend(Server(answer)).chat(USER, None, TurnInput("s", on_text=lambda piece: None))
    assert caught.value.retryable
    assert "\n" not in str(caught.value)
    assert "OpenAI-compatible" not in str(caught.value)


def test_a_stream_without_its_last_line_feed_is_whole() -> None:
    answer = sse(delta(content="Hello"), delta("stop"), done=False)
    answer = httpx.Response(200, content=answer.content.rstrip(), headers={"content-type": "text/event-stream"})
    turn = backend(Server(answer)).chat(USER, None, TurnInput("s", on_text=lambda piece: None))
    assert turn.message["content"] == "Hello"


def test_an_overflow_within_a_stream() -> None:
    answer = sse({"error": {"message": "input exceeds the maximum context length", "code": 400}})
    with pytest.raises(ContextOverflowError):
        backend(Server(answer)).chat(USER, None, TurnInput("s", on_text=lambda piece: None))


def test_an_error_of_the_listener_is_its_own() -> None:
    def listen(text: str) -> None:
        raise ValueError("listener")

    answer = sse(delta(content="a"), delta("stop"))
    with pytest.raises(ValueError, match=r"^listener$"):
        backend(Server(answer)).chat(USER, None, TurnInput("s", on_text=listen))


@pytest.mark.parametrize(
    ("answer", "kind", "retryable", "text"),
    [
        (
            error(401, "Incorrect API key"),
            BackendError,
            False,
            r"refused the API key \(401: Incorrect API key\); set OPENAI",
        ),
        (error(403, "no access"), BackendError, False, "refused the API key"),
        (error(404, "The model `m` does not exist"), BackendError, False, "knows no model 'm'.*ends in /v1"),
        (httpx.Response(404, text="<html>Not Found</html>"), BackendError, False, "404: <html>"),
        (error(400, "x", code="context_length_exceeded"), ContextOverflowError, False, "does not fit"),
        (
            error(400, "This model's maximum context length is 4096 tokens. However, you requested 5000."),
            ContextOverflowError,
            False,
            "4096 tokens",
        ),
        (
            httpx.Response(400, json={"object": "error", "message": "The input (9 tokens) is longer than the model's"}),
            ContextOverflowError,
            False,
            "longer than the model",
        ),
        (error(413, "prompt is too long: 9 > 4"), ContextOverflowError, False, "edit or shorten"),
        (error(400, "bad tools"), BackendError, False, r"refused the request \(400: bad tools\)"),
        (httpx.Response(422, json={"detail": [{"msg": "x"}]}), BackendError, False, "422"),
        (error(429, "slow down"), BackendError, True, "is busy"),
        (error(429, "You exceeded your quota", code="insufficient_quota"), BackendError, False, "add credit"),
        (error(500, "boom"), BackendError, True, r"failed \(500: boom\)"),
        (httpx.Response(503, text="loading\n\nmodel"), BackendError, True, "loading model"),
        (httpx.ConnectTimeout("timed out"), BackendError, True, r"cannot connect to .* \(timed out\)"),
        (httpx.ReadTimeout("slow"), BackendError, True, "within 5 s; raise the timeout"),
        (
            httpx.ConnectError("[Errno 111] Connection refused"),
            BackendError,
            True,
            "cannot connect to.*start the server",
        ),
        (httpx.RemoteProtocolError("peer closed"), BackendError, True, "broke off"),
        (httpx.Response(200, text="<html>hello</html>"), BackendError, False, "is it an OpenAI-compatible server"),
        (httpx.Response(200, json=[]), BackendError, False, "not an object"),
        (httpx.Response(200, json={"choices": []}), BackendError, False, "no choices"),
        (httpx.Response(200, json={"choices": [{"message": None}]}), BackendError, False, "'message' is not an object"),
        (completion({"content": 5}), BackendError, False, "not a string"),
        (completion({"content": "", "tool_calls": [{}]}), BackendError, False, "'function'"),
        (completion({"content": "", "tool_calls": [{"function": {"name": 3}}]}), BackendError, False, "no name"),
        (completion({"content": "", "tool_calls": "x"}), BackendError, False, "not a list"),
        ({"error": "maximum context length"}, ContextOverflowError, False, "context"),
        ({"error": {"message": "worker died"}}, BackendError, True, "worker died"),
    ],
)
def test_failures_say_what_to_do(answer: Any, kind: type[BackendError], retryable: bool, text: str) -> None:
    with pytest.raises(BackendError, match=text) as caught:
        backend(Server(answer), api_key="secret-key", timeout=5).chat(USER, TOOLS, SESSION)
    assert type(caught.value) is kind
    assert caught.value.retryable is retryable
    assert "\n" not in str(caught.value)
    assert "secret-key" not in str(caught.value)
    assert isinstance(caught.value, LeylineError)


def test_a_busy_server_is_asked_again() -> None:
    server = Server(
        httpx.Response(503, headers={"retry-after-ms": "1"}),
        httpx.Response(429, headers={"retry-after-ms": "1"}),
        completion(),
    )
    assert backend(server, retries=2).chat(USER, None, SESSION).message["content"] == "ok"
    assert len(server.bodies) == 3


def test_a_bad_key_is_not_asked_again() -> None:
    server = Server(error(401, "no"))
    with pytest.raises(BackendError):
        backend(server, retries=3).chat(USER, None, SESSION)
    assert len(server.bodies) == 1


def test_settings_that_a_model_refuses_are_left_out_from_then_on() -> None:
    server = Server(
        error(
            400,
            "Unsupported parameter: 'max_tokens' is not supported here. Use 'max_completion_tokens' instead.",
            code="unsupported_parameter",
            param="max_tokens",
        ),
        error(400, "Unsupported value: 'temperature' does not support 0.0 with this model.", code="unsupported_value"),
        completion(),
        completion(),
    )
    served = backend(server)
    for _ in range(2):
        served.chat(USER, None, SESSION)
    expected = {"model": "m", "messages": USER, "max_completion_tokens": 512}
    assert server.bodies[2:] == [expected, expected]


def test_a_setting_that_is_refused_again_ends_the_request() -> None:
    server = Server(error(400, "'max_tokens' is not supported"))
    with pytest.raises(BackendError, match="max_tokens"):
        backend(server).chat(USER, None, SESSION)
    assert len(server.bodies) == 2


def test_the_only_model_is_found() -> None:
    server = Server({"data": [{"id": "only", "object": "model"}]}, completion())
    served = OpenAIBackend(base_url=URL, http_client=httpx.Client(transport=httpx.MockTransport(server)), retries=0)
    served.chat(USER, None, SESSION)
    assert served.capabilities().model == "only"
    assert server.bodies[1]["model"] == "only"
    assert server.paths == ["/v1/models", "/v1/chat/completions"]


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"data": [{"id": "b"}, {"id": "a"}]}, "name the model to use; .* lists a, b"),
        ({"data": []}, "lists none"),
        (httpx.Response(200, text="<html>"), "not JSON"),
        ({"data": 3}, "not a list"),
        (error(401, "no"), "API key"),
    ],
)
def test_a_model_that_cannot_be_guessed(answer: Any, text: str) -> None:
    client = httpx.Client(transport=httpx.MockTransport(Server(answer)))
    with pytest.raises(BackendError, match=text):
        OpenAIBackend(base_url=URL, http_client=client, retries=0).capabilities()


def test_keys_and_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendError, match="no API key: set OPENAI_API_KEY"):
        OpenAIBackend("m")
    for wrong in ("localhost:8000/v1", "http://[::bad/v1"):
        with pytest.raises(BackendError, match="base URL"):
            OpenAIBackend("m", base_url=wrong)
    server = Server(completion())
    backend(server, api_key="abc").chat(USER, None, SESSION)
    monkeypatch.setenv("OPENAI_API_KEY", "from-env")
    backend(server).chat(USER, None, SESSION)
    assert [h["authorization"] for h in server.headers] == ["Bearer abc", "Bearer from-env"]


def test_text_that_is_not_unicode_is_explained() -> None:
    with pytest.raises(BackendError, match="not valid Unicode"):
        backend(Server(completion())).chat([{"role": "user", "content": "\ud800"}], None, SESSION)


def test_a_client_that_was_passed_in_stays_open() -> None:
    client = httpx.Client(transport=httpx.MockTransport(Server(completion())))
    OpenAIBackend("m", base_url=URL, http_client=client).close()
    assert not client.is_closed
    OpenAIBackend("m", base_url=URL).close()


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
choices = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "message": junk
            | st.fixed_dictionaries({}, optional={"content": junk, "tool_calls": junk | st.lists(junk)}),
            "delta": junk | st.fixed_dictionaries({}, optional={"content": junk, "tool_calls": junk | st.lists(junk)}),
            "finish_reason": junk,
        },
    )
    | junk,
    max_size=2,
)
answers = junk | st.fixed_dictionaries({"choices": choices | junk}, optional={"usage": junk, "error": junk})


@settings(max_examples=150, deadline=None)
@given(answers, st.integers(200, 599) | st.just(200), st.booleans())
def test_any_answer_gives_a_turn_or_a_backend_error(answer: Any, status: int, stream: bool) -> None:
    def server(request: httpx.Request) -> httpx.Response:
        if stream and status == 200:
            return sse(answer, delta("stop"))
        return httpx.Response(status, json=answer)

    session = TurnInput("s", on_text=(lambda text: None) if stream else None)
    try:
        turn = backend(server).chat(USER, TOOLS, session)
    except BackendError as error:
        assert "\n" not in str(error)  # noqa: PT017
        return
    assert turn.message["role"] == "assistant"
    assert turn.usage.cached_tokens <= turn.usage.prompt_tokens


class _Handler(BaseHTTPRequestHandler):
    """A real server on the loopback: answers, hangs or drops the connection by the model's name."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if body["model"] == "hang":
            self.server.released.wait(10)  # type: ignore[attr-defined]
            return
        if body["model"] == "drop":
            return
        data = json.dumps(completion(prompt_tokens_details={"cached_tokens": 4})).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def loopback() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.released = threading.Event()  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.released.set()  # type: ignore[attr-defined]
    server.shutdown()
    thread.join()
    server.server_close()


def test_over_a_real_socket(loopback: str) -> None:
    served = OpenAIBackend("m", base_url=loopback, retries=0)
    assert served.chat(USER, None, SESSION).receipt.prefix_tokens == 4
    served.close()


@pytest.mark.parametrize(("model", "text"), [("hang", "within 0.3 s"), ("drop", "broke off")])
def test_a_server_that_hangs_or_drops(loopback: str, model: str, text: str) -> None:
    served = OpenAIBackend(model, base_url=loopback, retries=0, timeout=0.3)
    with pytest.raises(BackendError, match=text) as caught:
        served.chat(USER, None, SESSION)
    assert caught.value.retryable
    served.close()


def test_a_port_where_nothing_listens() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    served = OpenAIBackend("m", base_url=f"http://127.0.0.1:{port}/v1", retries=1)
    with pytest.raises(
        BackendError, match=rf"cannot connect to http://127.0.0.1:{port}/v1 .*refused.*start the server"
    ):
        served.chat(USER, None, SESSION)
    served.close()


FAILED = {"error": {"message": "worker http://a died", "code": 502}}


@pytest.mark.parametrize("broken", [sse(FAILED), sse(delta(role="assistant"), FAILED), sse(done=False)])
def test_a_stream_that_fails_before_its_first_text_is_sent_again(
    broken: httpx.Response, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("leyline.backends.openai.backend.time.sleep", lambda seconds: None)
    server = Server(broken, sse(delta(content="ok"), delta("stop")))
    pieces: list[str] = []
    turn = backend(server, retries=1).chat(USER, None, TurnInput("s", on_text=pieces.append))
    assert (turn.message["content"], pieces, len(server.bodies)) == ("ok", ["ok"], 2)
    late = Server(sse(delta(content="o"), FAILED), sse(delta(content="ok"), delta("stop")))
    with pytest.raises(BackendError, match="died"):
        backend(late, retries=1).chat(USER, None, TurnInput("s", on_text=pieces.append))
    assert len(late.bodies) == 1
