"""Providers' own ways within chat completions: thinking that must go back, calls that are cut up oddly."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from leyline.backends.contract import BackendError, ContextOverflowError, TurnInput
from leyline.backends.mock import tool_call
from leyline.backends.openai.assembly import Assembly
from leyline.backends.openai.backend import OpenAIBackend
from leyline.backends.openai.reply import read_completion

USER = [{"role": "user", "content": "hi"}]
DETAILS = [{"type": "reasoning.encrypted", "data": "opaque", "id": "r1", "index": 0}]
GOOGLE = {"google": {"thought_signature": "sig"}}


def delta(reason: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": reason}]}


def part(name: str | None = None, arguments: str | None = None, **more: Any) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**more, "function": function}


def stream(*chunks: dict[str, Any]) -> dict[str, Any]:
    assembly = Assembly()
    for chunk in chunks:
        assembly.add(chunk)
    return assembly.reply(tools=True).message


def calls(*pieces: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """The calls of a stream; each list is one chunk's."""
    message = stream(*(delta(tool_calls=piece) for piece in pieces), delta("tool_calls"))
    return [(call["function"]["name"], call["function"]["arguments"]) for call in message["tool_calls"]]


def whole(message: dict[str, Any], reason: str = "stop") -> dict[str, Any]:
    body = {"choices": [{"message": {"role": "assistant", **message}, "finish_reason": reason}]}
    return read_completion(json.dumps(body), tools=True).message


TWO = [("view", '{"path":"a"}'), ("grep", '{"x":"b"}')]


@pytest.mark.parametrize(
    "pieces",
    [
        [[part(*TWO[0], index=0, id="a")], [part(*TWO[1], index=0, id="b")]],
        [[part(*TWO[0], index=0, id="a"), part(*TWO[1], index=0, id="b")]],
        [[part(*TWO[0], index=0, id=""), part(*TWO[1], index=0, id="")]],
        [[part(*TWO[0], index=0)], [part(*TWO[1], index=0)]],
        [[part(*TWO[0], id="a")], [part(*TWO[1], id="b")]],
        [[part(*TWO[0])], [part(*TWO[1])]],
        [[part("view", "", index=0, id="a")], [part(None, '{"path":"a"}', index=0)], [part(*TWO[1], index=0, id="b")]],
        [[part("view", id="a")], [part(None, '{"path"')], [part(None, ':"a"}')], [part(*TWO[1], id="b")]],
        [[part("view", '{"path"', id="a")], [part(None, ':"a"}', id="a")], [part(*TWO[1], id="b")]],
        # the name once more in each piece
        [
            [part("view", '{"path"', index=0, id="a")],
            [part("view", ':"a"}', index=0)],
            [part(*TWO[1], index=1, id="b")],
        ],
        [[part("view", '{"path"', index=0)], [part("view", ':"a"}', index=0)], [part(*TWO[1], index=1)]],
        [[part("view", '{"path"', id="a")], [part("view", ':"a"}', id="a")], [part(*TWO[1], id="b")]],
        # a new id in each piece
        [
            [part("view", '{"path"', index=0, id="a")],
            [part("view", ':"a"}', index=0, id="c")],
            [part(*TWO[1], index=1)],
        ],
        [[part("view", '{"path"', index=0, id="a")], [part(None, ':"a"}', index=0, id="c")], [part(*TWO[1], index=1)]],
        # a name in pieces, or all of it so far
        [
            [part("vi", index=0, id="a")],
            [part("ew", index=0)],
            [part(None, TWO[0][1], index=0)],
            [part(*TWO[1], index=1)],
        ],
        [[part("vi", index=0, id="a")], [part("view", TWO[0][1], index=0)], [part(*TWO[1], index=1, id="b")]],
        # out of order
        [[part(*TWO[1], index=1, id="b")], [part(*TWO[0], index=0, id="a")]],
    ],
)
def test_two_calls(pieces: list[list[dict[str, Any]]]) -> None:
    assert calls(*pieces) == TWO


def test_the_same_call_twice_is_two_calls() -> None:
    assert calls([part(*TWO[0], index=0, id="a"), part(*TWO[0], index=0, id="b")]) == [TWO[0], TWO[0]]
    assert calls([part(*TWO[0], index=0)], [part(*TWO[0], index=0)]) == [TWO[0], TWO[0]]


def test_arguments_as_an_object_or_none_at_all() -> None:
    assert calls([{"index": 0, "function": {"name": "view", "arguments": {"path": "a"}}}]) == [
        ("view", '{"path": "a"}')
    ]
    assert calls([part("submit", "", index=0, id="a")]) == [("submit", "{}")]
    assert whole({"tool_calls": [part("submit", "")]})["tool_calls"][0]["function"]["arguments"] == "{}"


@pytest.mark.parametrize(
    "bound",
    [
        {"reasoning_content": "I look."},
        {"reasoning": "I look.", "reasoning_details": DETAILS},
        {"thinking_blocks": [{"type": "thinking", "thinking": "I look.", "signature": "s"}]},
        {"provider_specific_fields": {"thought_signatures": ["s"]}},
        {"extra_content": GOOGLE},
    ],
)
def test_thinking_goes_back_as_it_came(bound: dict[str, Any]) -> None:
    call = {**tool_call("view", "c1")["tool_calls"][0], "extra_content": GOOGLE}
    message = whole({"content": None, "tool_calls": [call], **bound, "refusal": None, "annotations": [], "audio": None})
    expected = {"role": "assistant", "content": None, "tool_calls": [call], **bound}
    assert message == expected
    assert stream(delta(**bound), delta(tool_calls=[{"index": 0, **call}]), delta("tool_calls")) == expected


def test_thinking_in_pieces() -> None:
    message = stream(
        delta(reasoning_content="I "),
        delta(reasoning_content="look.", thinking_blocks=[{"type": "thinking", "thinking": "I "}]),
        delta(thinking_blocks=[{"type": "thinking", "thinking": "look."}]),
        delta(thinking_blocks=[{"type": "thinking", "thinking": "", "signature": "s"}]),
        delta(thinking_blocks=[{"type": "thinking", "thinking": "Again."}]),
        delta(reasoning_details=[{"type": "reasoning.text", "text": "I ", "index": 0}]),
        delta(reasoning_details=[{"type": "reasoning.text", "text": "look.", "index": 0, "signature": "s"}]),
        delta(reasoning_details=[{"type": "reasoning.encrypted", "data": "x", "index": 1}]),
        delta("stop", content="Done."),
    )
    assert message == {
        "role": "assistant",
        "content": "Done.",
        "reasoning_content": "I look.",
        "thinking_blocks": [
            {"type": "thinking", "thinking": "I look.", "signature": "s"},
            {"type": "thinking", "thinking": "Again."},
        ],
        "reasoning_details": [
            {"type": "reasoning.text", "text": "I look.", "index": 0, "signature": "s"},
            {"type": "reasoning.encrypted", "data": "x", "index": 1},
        ],
    }


def test_content_in_parts() -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "I look."}]}
    parts = [thinking, {"type": "text", "text": "Done."}]
    assert whole({"content": parts})["content"] == parts
    assert whole({"content": parts[1:]})["content"] == "Done."
    halves = [{"type": "thinking", "thinking": [{"type": "text", "text": text}]} for text in ("I ", "look.")]
    shown = Assembly()
    said = [shown.add(delta(content=[half])) for half in halves]
    said += [shown.add(delta(content="Do")), shown.add(delta("stop", content="ne."))]
    assert said == ["", "", "Do", "ne."]
    assert shown.reply(tools=True).message["content"] == parts


class Strict:
    """A server that answers with thinking, and wants or refuses it back."""

    def __init__(self, *, wants: bool) -> None:
        self.wants, self.requests = wants, 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        answers = [m for m in json.loads(request.content)["messages"] if m["role"] == "assistant"]
        held = all("reasoning_content" in m for m in answers)
        if answers and held != self.wants:
            said = "is missing" if self.wants else "is not supported in input messages"
            return httpx.Response(400, json={"error": {"message": f"messages.1.reasoning_content {said}"}})
        message = {"role": "assistant", "content": "ok", "reasoning_content": "I look."}
        return httpx.Response(200, json={"choices": [{"message": message, "finish_reason": "stop"}]})


@pytest.mark.parametrize(("wants", "requests"), [(True, 3), (False, 4)])
def test_a_server_gets_the_thinking_that_it_takes(wants: bool, requests: int) -> None:
    server = Strict(wants=wants)
    client = httpx.Client(transport=httpx.MockTransport(server))
    backend = OpenAIBackend("m", base_url="http://server.test/v1", http_client=client, retries=0)
    history: list[dict[str, Any]] = list(USER)
    for _ in range(3):
        history += [backend.chat(history, None, TurnInput("s")).message, *USER]
    assert server.requests == requests
    assert history[1]["reasoning_content"] == "I look."


def test_a_stream_that_sends_a_message_in_place_of_a_delta() -> None:
    whole_message = {"choices": [{"message": {"role": "assistant", "content": "ok"}, "finish_reason": "stop"}]}
    assert stream(whole_message) == {"role": "assistant", "content": "ok"}


def test_an_answer_that_ended_because_the_context_is_full() -> None:
    for reason in ("model_context_window_exceeded", "context_length_exceeded"):
        with pytest.raises(ContextOverflowError, match="does not fit"):
            whole({"content": ""}, reason)
        with pytest.raises(ContextOverflowError, match="does not fit"):
            stream(delta(content=""), delta(reason))
    assert whole({"content": "half"}, "model_context_window_exceeded")["content"] == "half"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (
            {"base_resp": {"status_code": 2013, "status_msg": "invalid params, context window exceeds limit"}},
            ContextOverflowError,
        ),
        (
            [{"error": {"message": "The input token count (2) exceeds the maximum number of tokens allowed (1)."}}],
            ContextOverflowError,
        ),
        ({"object": "error", "message": "the worker died"}, BackendError),
    ],
)
def test_an_error_that_comes_as_an_answer(body: Any, kind: type[BackendError]) -> None:
    with pytest.raises(kind):
        read_completion(json.dumps(body), tools=False)


def test_a_server_that_counts_as_minimax_does_is_no_failure() -> None:
    body = {"choices": [{"message": {"content": "ok"}, "finish_reason": "stop"}], "base_resp": {"status_code": 0}}
    assert read_completion(json.dumps(body), tools=False).message["content"] == "ok"
