"""The client against servers that misbehave, in process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from leyline.backends.contract import BackendError, ContextOverflowError, Held, Sampling, TurnInput
from leyline.backends.http.sse import events
from leyline.backends.sglang import SGLangBackend
from leyline.backends.sglang.client import server as transport
from leyline.backends.sglang.client.server import server_url
from leyline.directives import Directive, EditScript, Fallback, Outcome, Rendered, WireRequest

Handler = Callable[[httpx.Request], httpx.Response]
INFO = {"model_path": "m", "served_model_name": "name", "version": "0.5.23", "max_req_input_len": 100}
HI = [{"role": "user", "content": "hi"}]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport.time, "sleep", lambda seconds: None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A byte-level tokenizer with a chat template."""
    path = tmp_path_factory.mktemp("tokenizer")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<end>"])
    tokenizer.save(str(path / "tokenizer.json"))
    template = "{% for m in messages %}{{ m.role }}:{{ m.content }}<end>{% endfor %}"
    (path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "<end>", "chat_template": template}))
    return path


@pytest.fixture
def connect(folder: Path) -> Callable[..., SGLangBackend]:
    """`connect(handler, info=INFO, **settings)`: a client of a server that answers with `handler`."""

    def make(handler: Handler, info: Any = INFO, **settings: Any) -> SGLangBackend:
        def serve(request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, json=info) if request.url.path == "/server_info" else handler(request)

        client = httpx.Client(transport=httpx.MockTransport(serve))
        return SGLangBackend("http://server/v1", tokenizer=folder, http_client=client, **settings)

    return make


def piece(ids: list[int], done: int, finish: Any = None, **meta: Any) -> dict[str, Any]:
    info = {"prompt_tokens": 9, "cached_tokens": 4, "completion_tokens": done, "finish_reason": finish, **meta}
    return {"text": "ignored", "output_ids": ids, "meta_info": info}


def stream(*pieces: Any) -> httpx.Response:
    text = "".join(f"data: {json.dumps(p, ensure_ascii=False)}\n\n" for p in pieces) + "data: [DONE]\n\n"
    return httpx.Response(200, content=text.encode(), headers={"content-type": "text/event-stream"})


def encode(backend: SGLangBackend, text: str) -> list[int]:
    return backend.renderer.encode(text)


def turn(**settings: Any) -> TurnInput:
    return TurnInput("s", **settings)


def test_an_answer_in_pieces(connect: Callable[..., SGLangBackend]) -> None:
    asked: list[dict[str, Any]] = []
    made: dict[str, SGLangBackend] = {}

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        ids = encode(made["b"], "word")
        stop = {"type": "stop", "matched": 256}
        return stream(piece(ids[:1], 1), piece(ids[:3], 3), piece([*ids, 256], 5, stop))

    made["b"] = backend = connect(serve)
    seen: list[str] = []
    answer = backend.chat(HI, None, turn(on_text=seen.append, sampling=Sampling(max_tokens=1000, seed=7)))
    assert answer.message == {"role": "assistant", "content": "word"}
    assert seen == ["w", "o", "r", "d"]
    assert list(answer.output_ids or ()) == encode(backend, "word"), "the stop token is not part of the answer"
    assert answer.finish_reason == "stop"
    assert answer.usage.completion_tokens == 5
    prompt = [*encode(backend, "user:hi"), 256]
    assert asked[0]["input_ids"] == prompt
    assert (answer.receipt.prompt_tokens, answer.receipt.prefix_tokens) == (len(prompt), 4)
    params = asked[0]["sampling_params"]
    assert params["max_new_tokens"] == 100 - len(prompt), "what does not fit is not asked for"
    assert params["sampling_seed"] == 7
    assert params["stream_interval"] == 1
    assert "custom_params" not in params
    assert answer.timings["ttft"] >= 0


def test_pieces_that_hold_only_what_is_new(connect: Callable[..., SGLangBackend]) -> None:
    """As a server with --incremental-streaming-output sends them, also when a piece is longer than all before."""
    made: dict[str, SGLangBackend] = {}

    def serve(request: httpx.Request) -> httpx.Response:
        ids = encode(made["b"], "incremental")
        return stream(piece(ids[:1], 1), piece(ids[1:9], 9), piece(ids[9:], 11, {"type": "length", "length": 11}))

    made["b"] = backend = connect(serve)
    answer = backend.chat(HI, None, turn())
    assert answer.message["content"] == "incremental"
    assert answer.finish_reason == "length"


def test_line_separators_inside_of_text_do_not_end_a_line() -> None:
    data = 'data: {"text": "a\u2028b\x85c"}\r\n\r\n'.encode()
    cut = [data[i : i + 3] for i in range(0, len(data), 3)]
    assert [json.loads(event) for event in events(cut)] == [{"text": "a\u2028b\x85c"}]
    assert list(events([b"data: 1\n\ndata: [DONE]\n\ndata: 2\n\n"])) == [b"1"]
    assert list(events([b"data: 1\n\nda", b"ta: 2"])) == [b"1", b"2"]


def test_an_event_may_have_several_lines_or_no_line_behind_it() -> None:
    spread = b'event: message\ndata: {"text":\ndata:  "a"}\n\ndata: {"text": "b"}\n\n'
    assert [json.loads(event) for event in events([spread])] == [{"text": "a"}, {"text": "b"}]
    tight = b'data: {"text": "a"}\ndata: {"text": "b"}\ndata: [DONE]\n'
    assert [json.loads(event) for event in events([tight])] == [{"text": "a"}, {"text": "b"}]
    assert list(events([b'data: {"text": "a"}\n\ndata: {"te'])) == [b'{"text": "a"}'], "what was cut is not passed on"
    assert list(events([b": a comment\n\ndata:\n\n"])) == [b""]


def test_a_stop_string_ends_text_and_tokens(connect: Callable[..., SGLangBackend]) -> None:
    made: dict[str, SGLangBackend] = {}

    def serve(request: httpx.Request) -> httpx.Response:
        ids = encode(made["b"], "say STOP")
        return stream(piece(ids, len(ids), {"type": "stop", "matched": "STOP"}))

    made["b"] = backend = connect(serve)
    answer = backend.chat(HI, None, turn(sampling=Sampling(stop=("STOP",))))
    assert answer.message["content"] == "say "
    assert list(answer.output_ids or ()) == encode(backend, "say ")


def test_directives_travel_with_the_removed_tokens(connect: Callable[..., SGLangBackend]) -> None:
    asked: list[dict[str, Any]] = []

    def serve(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        if not body["stream"]:  # whether tenants are kept apart
            return httpx.Response(200, json=piece([65], 1, cached_tokens=0))
        asked.append(body)
        receipt = {"prompt_tokens": 4, "prefix_tokens": 1, "spliced_tokens": 2, "prefilled_tokens": 1}
        receipt |= {"splices": [{"start": 1, "end": 3, "delta": -1, "seconds": 0.25}], "lineage": "L"}  # type: ignore[dict-item]
        receipt |= {"approximate_from": 1, "directives": 1, "acknowledged": ["spliced"]}  # type: ignore[dict-item]
        done = {"type": "length", "length": 1}
        return stream(piece([65], 1, leyline=[receipt, []]), piece([65, 66], 2, done, leyline=[[]]))

    backend = connect(serve)
    script = EditScript((Directive(1, 2),))
    session = turn(
        prompt=Rendered((1, 3, 4, 5)),
        source=(1, 2, 3, 4),
        script=script,
        lineage="K",
        lineage_start=1,
        tenant="t",
        seam=3,
    )
    answer = backend.chat([], None, session)
    request = json.loads(asked[0]["sampling_params"]["custom_params"]["leyline"])
    assert request["directives"] == [{"start": 1, "end": 2, "removed": [2], "replacement": [], "mode": "amortize"}]
    assert (request["lineage"], request["lineage_start"], request["seam"]) == ("K", 1, 3)
    assert asked[0]["extra_key"] == "t"
    assert answer.receipt.acknowledged == (Outcome.SPLICED,)
    assert answer.receipt.lineage == "L"
    assert answer.usage.cached_tokens == 3
    assert answer.timings["splice"] == 0.25


def test_a_script_that_does_not_fit_is_served_honestly(connect: Callable[..., SGLangBackend]) -> None:
    asked: list[dict[str, Any]] = []

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return stream(piece([65], 1, {"type": "length", "length": 1}))

    session = turn(prompt=Rendered((1, 2, 3, 4, 5)), source=(1, 2), script=EditScript((Directive(1, 9),)), lineage="K")
    receipt = connect(serve).chat([], None, session).receipt
    assert "custom_params" not in asked[0]["sampling_params"], "nothing is said of a lineage either: honest cache only"
    assert receipt.fallback is Fallback.OUT_OF_RANGE
    assert receipt.acknowledged == (Outcome.PREFILLED,)
    assert (receipt.prefix_tokens, receipt.prefilled_tokens) == (4, 1)


@pytest.mark.parametrize("script", [EditScript(()), EditScript((Directive(1, 9),))])
def test_a_server_that_counts_more_hits_than_tokens(connect: Callable[..., SGLangBackend], script: EditScript) -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        return stream(piece([65], 1, {"type": "length", "length": 1}))  # 4 tokens cached

    answer = connect(serve).chat([], None, turn(prompt=Rendered((1, 2, 3)), source=(1, 2), script=script))
    assert (answer.receipt.prefix_tokens, answer.receipt.prefilled_tokens, answer.usage.cached_tokens) == (3, 0, 3)


@pytest.mark.parametrize("broken", [None, [{"prompt_tokens": "many"}], "text"])
def test_without_a_readable_receipt_nothing_was_spliced(connect: Callable[..., SGLangBackend], broken: Any) -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        return stream(piece([65], 1, {"type": "length", "length": 1}, **({"leyline": broken} if broken else {})))

    session = turn(prompt=Rendered((1, 3, 4, 5)), source=(1, 2, 3, 4), script=EditScript((Directive(1, 2),)))
    receipt = connect(serve).chat([], None, session).receipt
    assert receipt.fallback is Fallback.BACKEND_HAS_NO_SPLICE
    assert receipt.spliced_tokens == 0
    assert receipt.detail


def test_a_server_without_the_plugin_says_so(connect: Callable[..., SGLangBackend]) -> None:
    capabilities = connect(lambda request: httpx.Response(500)).capabilities()
    assert (capabilities.splice, capabilities.tokens, capabilities.max_context) == (False, True, 100)
    assert "leyline serve" in (capabilities.reason or "")


def test_a_server_that_refuses_to_splice_says_why(connect: Callable[..., SGLangBackend]) -> None:
    receipt = {"prompt_tokens": 3, "prefix_tokens": 0, "spliced_tokens": 0, "prefilled_tokens": 3, "directives": 1}
    info = {**INFO, "radix_cache_backend": "leyline"}

    def capabilities(reason: str) -> Any:
        told = {**receipt, "fallback": reason, "detail": "because"}
        return connect(lambda request: httpx.Response(200, json=piece([1], 1, leyline=[told])), info).capabilities()

    assert capabilities("source_mismatch").splice
    refused = capabilities("unsupported_model")
    assert not refused.splice
    assert refused.reason == "unsupported_model: because"


def test_calls_in_another_form_are_read_by_the_servers_parser(connect: Callable[..., SGLangBackend]) -> None:
    asked: list[dict[str, Any]] = []

    def serve(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/parse_function_call":
            asked.append(json.loads(request.content))
            calls = [{"name": "run", "parameters": '{"a": 1}', "tool_index": 0}]
            return httpx.Response(200, json={"normal_text": "text", "calls": calls})
        return stream(piece([65, 66], 2, {"type": "length", "length": 2}))

    tools = [{"type": "function", "function": {"name": "run", "parameters": {}}}]
    backend = connect(serve, {**INFO, "tool_call_parser": "pythonic"})
    answer = backend.chat(HI, tools, turn())
    assert asked[0]["tool_call_parser"] == "pythonic"
    assert asked[0]["tools"] == tools
    (call,) = answer.message["tool_calls"]
    assert call["function"] == {"name": "run", "arguments": '{"a": 1}'}
    assert answer.message["content"] == "text"
    assert answer.finish_reason == "tool_calls"


def error(status: int, message: str = "words") -> Handler:
    return lambda request: httpx.Response(status, json={"error": {"message": message}})


@pytest.mark.parametrize(
    ("handler", "said", "kind"),
    [
        (error(400, "The input (9 tokens) is longer than the model's context length (8 tokens)."), "edit", True),
        (error(400, "sampling_params are odd"), "sampling_params are odd", False),
        (error(401), "--api-key", False),
        (error(404), "is it an SGLang server", False),
        (error(429), "busy", False),
        (error(500), "see the server's log", False),
        (lambda request: httpx.Response(200, text="<html>"), "broke off|before the answer", False),
        (lambda request: stream("text"), "cannot be read", False),
        (lambda request: stream({"no": "ids"}), "no output_ids", False),
        (lambda request: stream({"error": {"message": "out of memory"}}), "out of memory", False),
        (lambda request: stream(piece([], 0, {"type": "abort", "message": "queue full"})), "queue full", False),
    ],
)
def test_every_failure_is_one_line(
    connect: Callable[..., SGLangBackend], handler: Handler, said: str, kind: bool
) -> None:
    with pytest.raises(BackendError, match=said) as caught:
        connect(handler, retries=1).chat(HI, None, turn())
    assert isinstance(caught.value, ContextOverflowError) is kind
    assert "\n" not in str(caught.value)


def test_a_prompt_that_cannot_fit_is_not_sent(connect: Callable[..., SGLangBackend]) -> None:
    backend = connect(lambda request: pytest.fail("sent"))
    with pytest.raises(ContextOverflowError, match="takes 100"):
        backend.chat([], None, turn(prompt=Rendered(tuple(range(100)))))
    with pytest.raises(BackendError, match="empty"):
        backend.chat([], None, turn(prompt=Rendered(())))


def test_a_busy_server_is_asked_again(connect: Callable[..., SGLangBackend]) -> None:
    answers = iter([httpx.Response(503), httpx.Response(429), httpx.ConnectError("refused"), None])

    def serve(request: httpx.Request) -> httpx.Response:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer or stream(piece([65], 1, {"type": "length", "length": 1}))

    assert connect(serve).chat(HI, None, turn()).output_ids == (65,)


@pytest.mark.parametrize(
    "nothing",
    [
        lambda: stream(),
        lambda: httpx.Response(200),
        lambda: stream(piece([], 0, {"type": "abort", "message": "busy", "status_code": 503})),
        lambda: stream(piece([70, 71], 9, {"type": "abort", "message": "busy", "status_code": 503}, odd=1)),
    ],
)
def test_a_stream_that_answers_nothing_is_asked_for_again(
    connect: Callable[..., SGLangBackend], nothing: Callable[[], httpx.Response]
) -> None:
    answers = iter([nothing(), nothing(), stream(piece([65], 1), piece([65, 66], 2, {"type": "length", "length": 2}))])
    seen: list[str] = []
    answer = connect(lambda request: next(answers)).chat(HI, None, turn(on_text=seen.append))
    assert answer.output_ids == (65, 66)
    assert len(seen) == 2


def test_an_abort_behind_the_first_piece_is_not_asked_for_again(connect: Callable[..., SGLangBackend]) -> None:
    asked: list[int] = []

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(1)
        return stream(piece([65], 1), piece([65], 1, {"type": "abort", "message": "busy", "status_code": 503}))

    with pytest.raises(BackendError, match="busy"):
        connect(serve).chat(HI, None, turn())
    assert len(asked) == 1


def test_a_first_splice_names_the_sessions_own_lineage(connect: Callable[..., SGLangBackend]) -> None:
    asked: list[dict[str, Any]] = []

    def serve(request: httpx.Request) -> httpx.Response:
        params = json.loads(request.content)["sampling_params"]
        asked.append(json.loads(params.get("custom_params", {}).get("leyline", "{}")))
        return stream(piece([65], 1, {"type": "length", "length": 1}))

    backend = connect(serve)
    splice = turn(prompt=Rendered((1, 3, 4, 5)), source=(1, 2, 3, 4), script=EditScript((Directive(1, 2),)))
    for name in ("one", "one", "two words \u2028 " * 30):
        backend.chat([], None, replace(splice, session_id=name))
    first, again, other = (request["lineage"] for request in asked)
    assert first == again != other
    assert all("lineage_start" not in request for request in asked), "it is a new lineage"
    backend.chat([], None, replace(splice, script=EditScript(())))
    assert asked[-1] == {}
    backend.chat([], None, replace(splice, honest=True))
    assert "lineage" not in asked[-1]


def test_an_answer_that_broke_off_is_not_asked_for_again(connect: Callable[..., SGLangBackend]) -> None:
    asked: list[int] = []

    class Broken(httpx.SyncByteStream):
        def __iter__(self) -> Iterator[bytes]:
            yield f"data: {json.dumps(piece([65], 1))}\n\n".encode()
            raise httpx.ReadError("gone")

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(1)
        return httpx.Response(200, stream=Broken())

    with pytest.raises(BackendError, match="broke off") as caught:
        connect(serve).chat(HI, None, turn())
    assert caught.value.retryable
    assert len(asked) == 1


def test_prewarm_generates_nothing_and_never_fails(connect: Callable[..., SGLangBackend]) -> None:
    asked: list[dict[str, Any]] = []

    def serve(request: httpx.Request) -> httpx.Response:
        asked.append(json.loads(request.content))
        return httpx.Response(500)

    backend = connect(serve, retries=0)
    backend.prewarm(turn())
    assert asked == []
    backend.prewarm(turn(prompt=Rendered((1, 2))))
    assert asked[0]["sampling_params"]["max_new_tokens"] == 0


def test_addresses() -> None:
    assert server_url("http://host:1/v1/") == "http://host:1"
    assert server_url("https://host/prefix") == "https://host/prefix"
    for bad in ("host:1", "ftp://host", "http://"):
        with pytest.raises(BackendError):
            server_url(bad)


def test_another_kind_of_server_is_recognised(connect: Callable[..., SGLangBackend]) -> None:
    with pytest.raises(BackendError, match="is it an SGLang server"):
        connect(lambda request: httpx.Response(404), {"hello": "world"})


def test_a_missing_tokenizer_says_what_to_give(folder: Path) -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={**INFO, "tokenizer_path": "/only/on/the/server"})

    with pytest.raises(BackendError, match=r"no folder on this machine.*--model"):
        SGLangBackend("http://server", http_client=httpx.Client(transport=httpx.MockTransport(serve)))


def test_no_server_at_all() -> None:
    with pytest.raises(BackendError, match="leyline serve MODEL") as caught:
        SGLangBackend("http://127.0.0.1:9", retries=0)
    assert caught.value.retryable


def test_every_request_of_a_session_carries_its_affinity(connect: Callable[..., SGLangBackend]) -> None:
    seen: list[httpx.Headers] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers)
        if json.loads(request.content)["stream"]:
            return stream(piece([104], 1, {"type": "stop", "matched": 0}))
        return httpx.Response(200, json=piece([], 0, {"type": "length"}))

    backend = connect(handler)
    asked = turn(prompt=Rendered((104, 105)))
    backend.prewarm(asked)
    backend.chat([], None, asked)
    backend.chat([], None, replace(asked, session_id="another"))
    keys = [headers["x-smg-routing-key"] for headers in seen]
    assert keys[0] == keys[1] != keys[2]
    assert [headers["x-session-id"] for headers in seen] == keys


def shared_cache(strip: tuple[str, ...] = (), replicas: int = 1) -> tuple[Handler, list[dict[str, Any]]]:
    """Replicas that cache by tenant, asked in turn behind a router that takes fields away; and what they were asked."""
    asked: list[dict[str, Any]] = []
    caches: list[dict[object, list[int]]] = [{} for _ in range(replicas)]

    def serve(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        asked.append(body)
        for name in strip:
            body.pop(name, None)
            body["sampling_params"].pop(name, None)
        held, ids = caches[len(asked) % replicas], body["input_ids"]
        before = held.get(body.get("extra_key"), [])
        hits = next(
            (k for k, (a, b) in enumerate(zip(before, ids, strict=False)) if a != b), min(len(before), len(ids))
        )
        held[body.get("extra_key")] = ids
        finish = {"type": "length", "length": 1}
        made = piece([65], 1, finish, cached_tokens=min(hits, len(ids) - 1))
        return stream(made) if body["stream"] else httpx.Response(200, json=made)

    return serve, asked


@pytest.mark.parametrize("replicas", [1, 2])
def test_tenants_that_a_router_mixes_are_refused(connect: Callable[..., SGLangBackend], replicas: int) -> None:
    serve, asked = shared_cache(("extra_key",), replicas)
    backend = connect(serve, {**INFO, "max_req_input_len": 2000})
    request = turn(prompt=Rendered((1, 2, 3)))
    assert backend.chat([], None, request).receipt.prompt_tokens == 3, "without a tenant there is nothing to mix"
    before = len(asked)
    for _ in range(2):
        with pytest.raises(BackendError, match=r"does not keep tenants apart.*`extra_key`") as refused:
            backend.chat([], None, replace(request, tenant="t"))
        backend.prewarm(replace(request, tenant="t"))
    assert not refused.value.retryable
    assert not [body for body in asked[before:] if body["input_ids"] == [1, 2, 3]], "the tenant's prompt was sent"


def test_tenants_that_are_kept_apart_are_served_and_asked_about_once(connect: Callable[..., SGLangBackend]) -> None:
    serve, asked = shared_cache()
    backend = connect(serve, {**INFO, "max_req_input_len": 2000})
    for tenant in ("t", "u"):
        backend.chat([], None, turn(prompt=Rendered((1, 2, 3)), tenant=tenant))
    probes = [body for body in asked if str(body.get("extra_key")).startswith("leyline-probe")]
    assert (len(probes), len(asked)) == (3, 5)
    assert [body["extra_key"] for body in asked[-2:]] == ["t", "u"]


PLUGIN = {**INFO, "radix_cache_backend": "leyline", "max_req_input_len": 2000}


@pytest.mark.parametrize("info", [PLUGIN, INFO])
def test_a_turn_whose_fields_were_dropped_says_which(connect: Callable[..., SGLangBackend], info: Any) -> None:
    serve, _ = shared_cache(("custom_params",))
    backend = connect(serve, info)
    edited = turn(prompt=Rendered((1, 3)), source=(1, 2, 3), script=EditScript((Directive(1, 2),)))
    for request, directives in ((edited, 1), (turn(prompt=Rendered((1, 3)), lineage="L", lineage_start=1), 0)):
        receipt = backend.chat([], None, request).receipt
        assert receipt.directives == directives
        if info is PLUGIN:
            assert receipt.fallback is Fallback.BACKEND_HAS_NO_SPLICE
            assert "`custom_params`" in str(receipt.detail)
    assert backend.chat([], None, turn(prompt=Rendered((1, 3)))).receipt.fallback is None, "it carried nothing to lose"


def test_a_miss_is_told_where_the_turn_had_no_directive(connect: Callable[..., SGLangBackend]) -> None:
    """The sessions's first turn on a replica that holds nothing of it: with its lineage, a reason; else a detail."""
    serve, _ = shared_cache(replicas=2)
    backend = connect(serve, {**INFO, "max_req_input_len": 2000})
    ids = tuple(range(1, 60))
    first = backend.chat([], None, turn(prompt=Rendered(ids[:50])))
    again = turn(prompt=Rendered(ids), source=ids[:50])
    missed = backend.chat([], None, again).receipt
    assert (first.receipt.detail, missed.fallback) == (None, None)
    assert str(missed.detail).startswith("the server held 0 of the 50 tokens")
    assert backend.chat([], None, again).receipt.detail is None, "the first replica, which holds it"
    other = tuple(range(100, 160))
    lost = backend.chat([], None, turn(prompt=Rendered(other), source=other[:50], lineage="L", lineage_start=4))
    assert lost.receipt.fallback is Fallback.SOURCE_MISMATCH


FAILED = {"error": {"message": "worker http://a died", "code": 502}}


@pytest.mark.parametrize("opened", [(), (piece([], 0, leyline=[{"prompt_tokens": 7}]),)])
def test_an_error_in_the_stream_before_the_first_token_is_sent_again(
    connect: Callable[..., SGLangBackend], opened: tuple[Any, ...]
) -> None:
    answers = [stream(*opened, FAILED), stream(piece([65], 1, {"type": "length", "length": 1}))]
    backend = connect(lambda request: answers.pop(0))
    answer = backend.chat([], None, turn(prompt=Rendered((1, 3))))
    assert (answer.message["content"], answer.receipt.prompt_tokens, answers) == ("b", 2, [])


def test_an_error_in_the_stream_is_not_sent_again_once_text_came_or_where_the_request_is_wrong(
    connect: Callable[..., SGLangBackend],
) -> None:
    wrong = {"error": {"message": "bad", "code": 400}}
    for events_ in ((piece([65], 1), FAILED), (wrong,)):
        answers = [stream(*events_), stream(piece([65], 1, {"type": "length", "length": 1}))]
        backend = connect(lambda request, left=answers: left.pop(0))
        with pytest.raises(BackendError, match="could not answer"):
            backend.chat([], None, turn(prompt=Rendered((1, 3))))
        assert len(answers) == 1


def test_a_purge_reaches_every_replica_that_a_router_names(connect: Callable[..., SGLangBackend]) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def serve(request: httpx.Request) -> httpx.Response:
        host = request.url.host
        if request.url.path == "/workers":
            return httpx.Response(200, json={"workers": [{"url": f"http://{name}"} for name in ("a", "b", "gone")]})
        if host == "gone":
            raise httpx.ConnectError("refused")
        body = json.loads(request.content)
        asked.append((host, body))
        wire = WireRequest.from_json(body["sampling_params"]["custom_params"]["leyline"])
        receipt = {"prompt_tokens": 1, "prefix_tokens": 0, "spliced_tokens": 0, "prefilled_tokens": 1}
        receipt |= {"directives": 1, "acknowledged": ["forgotten"], "purged_tokens": 4}  # type: ignore[dict-item]
        if host == "b" and wire.lineage is not None:
            refused = {"acknowledged": ["prefilled"], "purged_tokens": None, "fallback": "lineage_mismatch"}
            receipt |= refused  # type: ignore[arg-type]
        return httpx.Response(200, json=piece([], 0, {"type": "length"}, leyline=[receipt]))

    backend = connect(serve, retries=0)
    done = backend.purge([Held((1, 2, 3)), Held((1, 2, 9), "L", 1), Held((1,))], tenant="t")
    assert done.tokens == {"http://a": 12, "http://b": 8}
    assert "http://gone" in done.failed
    assert {body["extra_key"] for _, body in asked} == {"t"}
    assert {tuple(body["input_ids"]) for _, body in asked} == {(1,)}, "nothing is computed for it"
    wires = [body["sampling_params"]["custom_params"]["leyline"] for host, body in asked if host == "a"]
    requests = [WireRequest.from_json(wire) for wire in wires]
    assert [tuple(request.source([1])) for request in requests] == [(1, 2, 3), (1, 2, 9), (1, 2, 9)]
    assert [(request.purge, request.honest, request.lineage) for request in requests] == [
        (True, True, None),
        (True, True, None),
        (True, True, "L"),
    ]


def test_a_server_that_does_not_purge_is_named(connect: Callable[..., SGLangBackend]) -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        known = request.url.path == "/generate"
        return httpx.Response(200, json=piece([], 0, {"type": "length"})) if known else httpx.Response(404)

    done = connect(serve).purge([Held((1, 2, 3))])
    assert done.tokens == {}
    assert "`custom_params`" in done.failed["http://server"]


def test_directives_travel_in_kv_hints_where_asked(connect: Callable[..., SGLangBackend]) -> None:
    serve, asked = shared_cache(("kv_hints",))
    edited = turn(prompt=Rendered((1, 3)), source=(1, 2, 3), script=EditScript((Directive(1, 2),)))
    hints: list[Any] = []

    def keep(request: httpx.Request) -> httpx.Response:
        hints.append(json.loads(request.content).get("kv_hints"))
        return serve(request)

    backend = connect(keep, PLUGIN, kv_hints=True)
    backend.prewarm(edited)
    receipt = backend.chat([], None, edited).receipt
    assert [WireRequest.from_kv_hints(value).script for value in hints] == [edited.script] * 2
    assert all("custom_params" not in body["sampling_params"] for body in asked)
    assert "`kv_hints`" in str(receipt.detail)
    backend.chat([], None, turn(prompt=Rendered((1, 3))))
    assert hints[-1] is None
