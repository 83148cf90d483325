from __future__ import annotations

from typing import Any

import pytest

from leyline.backends.contract import Backend, BackendError, TurnInput
from leyline.backends.mock import MockBackend, tool_call
from leyline.directives import Directive, EditScript, Fallback, Message

USER: Message = {"role": "user", "content": "look at the file"}
SESSION = TurnInput(session_id="s")


def test_it_is_a_backend() -> None:
    backend = MockBackend([])
    assert isinstance(backend, Backend)
    assert not backend.capabilities().splice
    assert backend.renderer is None


def test_replies_come_in_order_and_requests_are_kept() -> None:
    backend = MockBackend(["hello", tool_call("view", path="a.py"), {"content": "bye"}])
    tools = [{"type": "function", "function": {"name": "view"}}]
    turns = [backend.chat([USER], tools, SESSION) for _ in range(3)]
    assert turns[0].message == {"role": "assistant", "content": "hello"}
    call = turns[1].message["tool_calls"][0]
    assert call == {"id": "call_1", "type": "function", "function": {"name": "view", "arguments": '{"path": "a.py"}'}}
    assert [t.finish_reason for t in turns] == ["stop", "tool_calls", "stop"]
    assert turns[2].message == {"role": "assistant", "content": "bye"}
    assert backend.requests[2].tools == tools
    assert backend.requests[0].messages == [USER]
    assert backend.remaining == 0


def test_a_script_that_is_used_up_says_so() -> None:
    backend = MockBackend(["only"])
    backend.chat([USER], None, SESSION)
    with pytest.raises(BackendError, match="1 replies, all used"):
        backend.chat([USER], None, SESSION)


def test_exceptions_are_raised_and_functions_asked() -> None:
    def answer(messages: list[Message]) -> Any:
        messages[0]["content"] = "scribbled over"
        return BackendError("down", retryable=True) if len(messages) > 1 else "first"

    backend = MockBackend([answer, answer, KeyboardInterrupt()])
    assert backend.chat([USER], None, SESSION).message["content"] == "first"
    with pytest.raises(BackendError, match="down"):
        backend.chat([USER, USER], None, SESSION)
    with pytest.raises(KeyboardInterrupt):
        backend.chat([USER], None, SESSION)
    assert USER["content"] == "look at the file"
    assert backend.requests[0].messages == [USER]


def test_one_function_answers_everything() -> None:
    backend = MockBackend(lambda messages: f"{len(messages)} messages")
    assert [backend.chat([USER] * n, None, SESSION).message["content"] for n in (1, 2)] == ["1 messages", "2 messages"]
    assert backend.remaining == 0


def test_an_append_hits_all_but_the_new_and_an_edit_hits_up_to_itself() -> None:
    backend = MockBackend(["fine"] * 4)
    history: list[Message] = [USER, {"role": "user", "content": "x" * 200}, {"role": "user", "content": "y" * 300}]
    first = backend.chat(history, None, SESSION)
    assert first.usage.cached_tokens == 0
    whole = first.usage.prompt_tokens + first.usage.completion_tokens
    history = [*history, first.message, {"role": "user", "content": "more"}]
    second = backend.chat(history, None, SESSION)
    assert whole <= second.usage.cached_tokens < second.usage.prompt_tokens
    edited = [history[0], {"role": "user", "content": "[cut]"}, *history[2:]]
    third = backend.chat(edited, None, SESSION)
    assert 0 < third.usage.cached_tokens < 100
    assert third.usage.prompt_tokens == second.usage.prompt_tokens - 195
    again = backend.chat(edited, None, SESSION)
    assert again.usage.cached_tokens == again.usage.prompt_tokens - 1
    for turn in (first, second, third):
        assert turn.receipt.prefix_tokens == turn.usage.cached_tokens
        assert turn.receipt.fallback is None


def test_tenants_share_no_cache() -> None:
    backend = MockBackend(["a", "b"])
    backend.chat([USER], None, TurnInput("s", tenant="one"))
    assert backend.chat([USER], None, TurnInput("s", tenant="two")).usage.cached_tokens == 0


def test_a_tokenizer_may_be_given() -> None:
    backend = MockBackend(["a b"], tokenize=str.split)
    assert backend.chat([{"role": "user", "content": "one two three"}], None, SESSION).usage.prompt_tokens == 3


def test_directives_and_edits_are_acknowledged_as_not_spliced() -> None:
    backend = MockBackend(["a", "b"])
    asked = backend.chat([USER], None, TurnInput("s", script=EditScript((Directive(0, 1), Directive(2, 3)))))
    assert (asked.receipt.directives, asked.receipt.fallback) == (2, Fallback.BACKEND_HAS_NO_SPLICE)
    assert backend.chat([USER], None, TurnInput("s", edits=3)).receipt.directives == 3


def test_text_is_streamed() -> None:
    pieces: list[str] = []
    MockBackend(["one\ntwo"]).chat([USER], None, TurnInput("s", on_text=pieces.append))
    assert pieces == ["one\n", "two"]


@pytest.mark.parametrize("script", ["one reply", tool_call("x")])
def test_a_single_reply_is_refused(script: Any) -> None:
    with pytest.raises(TypeError, match="put it into a list"):
        MockBackend(script)


def test_a_reply_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match="not int"):
        MockBackend([3]).chat([USER], None, SESSION)  # type: ignore[list-item]
