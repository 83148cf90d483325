"""Tool calls in generated text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline.rendering.toolcalls import parse_output


def block(body: str) -> str:
    return f"<tool_call>\n{body}\n</tool_call>"


def test_text_and_calls_are_told_apart() -> None:
    said = "First.\n" + block('{"name": "view", "arguments": {"path": "a.py"}}') + "\n" + block('{"name": "eval"}')
    parsed = parse_output(said, seed="t1")
    assert parsed.content == "First."
    assert [c["function"]["name"] for c in parsed.tool_calls] == ["view", "eval"]
    assert [c["function"]["arguments"] for c in parsed.tool_calls] == ['{"path": "a.py"}', "{}"]
    assert len({c["id"] for c in parsed.tool_calls}) == 2
    assert parsed.error is None
    assert parsed == parse_output(said, seed="t1")
    assert parsed.tool_calls[0]["id"] != parse_output(said, seed="t2").tool_calls[0]["id"]


def test_a_message_of_calls_alone_has_no_content() -> None:
    assert parse_output(block('{"name": "eval", "arguments": {}}')).message()["content"] is None
    assert parse_output("").message() == {"role": "assistant", "content": ""}


@pytest.mark.parametrize(
    "arguments", ['{"a":1,  "b": [1, 2]}', '{"text": "\\u00e9 }"}', '{"x": "\\"arguments\\": {}"}', "{}", '{"n": 1.50}']
)
def test_arguments_stay_the_very_text_that_was_generated(arguments: str) -> None:
    for body in (f'{{"name": "f", "arguments": {arguments}}}', f'{{"arguments" : {arguments}, "name": "f"}}'):
        given_back = parse_output(block(body)).tool_calls[0]["function"]["arguments"]
        assert json.loads(given_back) == json.loads(arguments)
    assert (
        parse_output(block(f'{{"name": "f", "arguments": {arguments}}}')).tool_calls[0]["function"]["arguments"]
        == arguments
    )


@pytest.mark.parametrize(
    ("said", "says"),
    [
        (block("{oops}"), "not valid JSON"),
        (block('{"arguments": {}}'), '"name"'),
        (block('{"name": "f", "arguments": [1]}'), '"arguments"'),
        (block('{"name": "f", "arguments": "no json"}'), '"arguments"'),
        ('<tool_call>{"name": "f"}', "not closed"),
        ("</tool_call>", "without its"),
        (block("[" * 100_000), "not valid JSON"),
    ],
)
def test_a_call_that_cannot_be_read_stays_text_and_is_explained(said: str, says: str) -> None:
    parsed = parse_output(said)
    assert parsed.tool_calls == ()
    assert parsed.content == said
    assert says in str(parsed.error)


@pytest.mark.parametrize("body", ["\n", " x", "<tool_call>", "<tool_call>\n"])
def test_long_text_with_a_call_that_is_not_closed(body: str) -> None:
    said = block('{"name": "eval"}') + "<tool_call>" + body * (200_000 // len(body)) + "x"
    parsed = parse_output(said)
    assert [c["function"]["name"] for c in parsed.tool_calls] == ["eval"]
    assert "not closed" in str(parsed.error)


def test_white_space_around_a_call_is_no_part_of_it() -> None:
    tight, wide = (parse_output(f"<tool_call>{s}{{}}{s}</tool_call>") for s in ("", " \n\n "))
    assert tight.error == wide.error
    tight, wide = (parse_output(f'<tool_call>{s}{{"name": "f"}}{s}</tool_call>') for s in ("", " \n\n "))
    assert tight.tool_calls == wide.tool_calls != ()


@given(
    st.lists(
        st.sampled_from(["<tool_call>", "</tool_call>", "{", "}", '"name": "f"', ",", '"arguments": {}', "\n", "x"])
    )
)
def test_no_text_is_too_odd(pieces: list[str]) -> None:
    said = "".join(pieces)
    parsed = parse_output(said)
    assert parsed.raw == said
    message: dict[str, Any] = parsed.message()
    for call in message.get("tool_calls", ()):
        assert isinstance(json.loads(call["function"]["arguments"]), dict)
    if not parsed.tool_calls:
        assert parsed.content == said
