"""What a dialect reads and writes, case by case."""

from __future__ import annotations

import json
from enum import Enum
from typing import Any

import pytest

from leyline.dialects import DialectError, Placed, read

MARK = {"type": "ephemeral"}


def test_marks_stay_where_they_were_when_their_part_is_edited() -> None:
    marked = {"type": "text", "text": "long", "cache_control": MARK}
    chat = read({"messages": [{"role": "user", "content": [marked]}]}, "chat")
    assert chat.history == [{"role": "user", "content": [{"type": "text", "text": "long"}]}]
    (item,) = chat.write([Placed(0, {"role": "user", "content": "cut"})]).items
    assert item["content"] == [{"type": "text", "text": "cut", "cache_control": MARK}]
    result = {"type": "tool_result", "tool_use_id": "a", "content": "long", "cache_control": MARK}
    image = {"type": "image", "source": {"type": "url", "url": "u"}, "cache_control": MARK}
    body = {"messages": [{"role": "user", "content": [result, {"type": "text", "text": "look"}, image]}]}
    messages = read(body, "messages")
    tool, user = messages.history
    edited = [Placed(0, {**tool, "content": "cut"}), Placed(1, {**user, "content": "no image"})]
    (item,) = messages.write(edited).items
    assert item["content"] == [
        {**result, "content": "cut"},
        {"type": "text", "text": "no image", "cache_control": MARK},
    ]


def test_thinking_stays_as_it_came_and_goes_where_it_was_edited() -> None:
    thinking = {"type": "thinking", "thinking": "the key is sk-1", "signature": "s"}
    use = {"type": "tool_use", "id": "a", "name": "run", "input": {"key": "sk-1"}}
    body = {"messages": [{"role": "assistant", "content": [thinking, {"type": "text", "text": "Now."}, use]}]}
    reading = read(body, "messages")
    message = reading.history[0]
    assert message["reasoning_content"] == "the key is sk-1"
    assert message["content"] == [{"type": "text", "text": "Now."}]
    cut = reading.write([Placed(0, {**message, "content": "Cut."})]).items[0]
    assert cut["content"] == [thinking, {"type": "text", "text": "Cut."}, use]
    call = {**message["tool_calls"][0], "function": {"name": "run", "arguments": '{"key": "-"}'}}
    clean = {**message, "reasoning_content": "the key is -", "tool_calls": [call]}
    blocks = reading.write([Placed(0, clean)]).items[0]["content"]
    assert blocks == [{"type": "text", "text": "Now."}, {**use, "input": {"key": "-"}}]


def test_reasoning_items_stay_beside_their_answer() -> None:
    reasoning = {"type": "reasoning", "id": "rs", "summary": [], "encrypted_content": "x"}
    call = {"type": "function_call", "id": "fc", "call_id": "a", "name": "run", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "a", "output": "long " * 9}
    body = {"input": [{"role": "user", "content": "go"}, reasoning, call, output]}
    reading = read(body, "responses")
    user, answer, tool = (Placed(k, m) for k, m in enumerate(reading.history))
    cut = reading.write([user, answer, Placed(2, {**tool.message, "content": "cut"})]).items
    assert cut == [body["input"][0], reasoning, call, {**output, "output": "cut"}]
    assert reading.write([user]).items == [body["input"][0]]


def test_shell_and_patch_calls_read_as_calls_that_policies_know() -> None:
    outcome = {"type": "exit", "exit_code": 1}
    items: list[dict[str, Any]] = [
        {"type": "shell_call", "call_id": "a", "action": {"commands": ["cat a.py"]}},
        {"type": "shell_call_output", "call_id": "a", "output": [{"stdout": "x", "stderr": "e", "outcome": outcome}]},
        {"type": "apply_patch_call", "call_id": "b", "operation": {"type": "update_file", "path": "a.py", "diff": "d"}},
        {"type": "apply_patch_call_output", "call_id": "b", "status": "completed"},
    ]
    reading = read({"input": items}, "responses")
    assert json.loads(reading.history[0]["tool_calls"][0]["function"]["arguments"]) == {"command": "cat a.py"}
    assert reading.history[1] == {"role": "tool", "tool_call_id": "a", "content": "x\ne", "is_error": True}
    edited = [Placed(k, m) for k, m in enumerate(reading.history)]
    edited[1] = Placed(1, {**reading.history[1], "content": "cut"})
    assert reading.write(edited).items[1]["output"] == [{"stdout": "cut", "stderr": "", "outcome": outcome}]


def test_the_older_function_calls_are_read_and_written() -> None:
    items: list[dict[str, Any]] = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "function_call": {"name": "view", "arguments": "{}"}},
        {"role": "function", "name": "view", "content": "long"},
    ]
    reading = read({"messages": items}, "chat")
    assert reading.history[1]["tool_calls"][0]["id"] == reading.history[2]["tool_call_id"]
    edited = [Placed(k, m) for k, m in enumerate(reading.history)]
    edited[2] = Placed(2, {**reading.history[2], "content": "cut"})
    assert reading.write(edited).items == [*items[:2], {**items[2], "content": "cut"}]


def test_a_new_message_joins_the_one_that_it_stands_in() -> None:
    result = {"type": "tool_result", "tool_use_id": "a", "content": "x"}
    body = {"messages": [{"role": "user", "content": [result, {"type": "text", "text": "go on"}]}]}
    reading = read(body, "messages")
    tool, user = (Placed(k, m) for k, m in enumerate(reading.history))
    note = Placed(None, {"role": "user", "content": "note"})
    (item,) = reading.write([tool, note, user]).items
    assert item["content"] == [result, {"type": "text", "text": "note"}, {"type": "text", "text": "go on"}]
    assert reading.write([tool, user, note]).items == [*body["messages"], {"role": "user", "content": "note"}]


REFUSED = [
    ("chat", {"messages": "text"}, "messages is a str"),
    ("chat", {}, "messages is missing"),
    ("chat", {"messages": [{"content": "x"}]}, r"messages\[0\] is without a role"),
    ("chat", {"messages": [{"role": "user", "content": ["x"]}]}, r"messages\[0\].content\[0\] is a str"),
    ("chat", {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "of the messages dialect"),
    ("messages", {"messages": [{"role": "tool", "content": "x"}]}, r"messages\[0\] is of role 'tool'"),
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "new"}]}]},
        r"content\[0\] is a block of type 'new'",
    ),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "tool_result"}]}]}, "without tool_use_id"),
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "tool_use", "id": "a"}]}]},
        "holds a tool_use block",
    ),
    ("messages", {"system": 7, "messages": []}, "system is a int"),
    ("responses", {"input": [{"type": "new"}]}, r"input\[0\] is an item of type 'new'"),
    ("responses", {"input": [], "previous_response_id": "r"}, "previous_response_id: the history before it"),
    ("responses", {"input": [], "conversation": {"id": "c"}}, "conversation: the history before it"),
    ("responses", {"input": [{"id": "x"}]}, r"input\[0\] refers to an item on the server"),
    ("responses", {"input": [{"type": "function_call", "call_id": "a"}]}, "without a name"),
    ("responses", {"input": [{"role": "tool", "content": "x"}]}, "a message of chat completions"),
    ("other", {}, "dialect 'other' is not known"),
]


@pytest.mark.parametrize(("dialect", "body", "said"), REFUSED, ids=[said for _, _, said in REFUSED])
def test_what_cannot_be_read_is_refused_in_a_line_that_names_it(dialect: Any, body: dict[str, Any], said: str) -> None:
    with pytest.raises(DialectError, match=said) as error:
        read(body, dialect)
    assert "\n" not in str(error.value)


def test_a_role_that_is_an_enum_is_read_as_its_text() -> None:
    """smolagents gives `MessageRole.ASSISTANT`, which JSON writes as `assistant`."""

    class Role(str, Enum):  # noqa: UP042  (the text of a StrEnum would be its value)
        USER, ASSISTANT = "user", "assistant"

    given = [{"role": Role.USER, "content": "Go."}, {"role": Role.ASSISTANT, "content": "Done."}]
    reading = read({"messages": given}, "chat")
    assert [str(message["role"]) for message in reading.history] == ["user", "assistant"]
    assert reading.items[0] is given[0]
