"""Whatever JSON stands in a body, it is read and edited, or refused in one line; the body is never changed."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline.dialects import Dialect, DialectError, detect
from leyline.directives import LeylineError
from leyline.harness import Editor

LONG = "hello world " * 30
MARK = {"cache_control": {"type": "ephemeral"}}
CALL = {"id": "a", "type": "function", "function": {"name": "bash", "arguments": '{"command": "cat m.py"}'}}
BODIES: dict[str, dict[str, Any]] = {
    "chat": {
        "messages": [
            {"role": "system", "content": LONG},
            {"role": "user", "content": [{"type": "text", "text": LONG, **MARK}, {"type": "image_url"}]},
            {"role": "assistant", "content": None, "reasoning_content": LONG, "tool_calls": [CALL]},
            {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": LONG}]},
            {"role": "assistant", "content": "x", "function_call": {"name": "bash", "arguments": "{}"}},
            {"role": "function", "name": "bash", "content": LONG},
            {"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "refusal", "refusal": "no"}]},
            {"role": "user", "content": "more"},
        ]
    },
    "responses": {
        "instructions": LONG,
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": LONG}]},
            {"type": "reasoning", "id": "r", "summary": [{"type": "summary_text", "text": "s"}], "content": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": LONG}]},
            {"type": "function_call", "call_id": "a", "name": "bash", "arguments": '{"command": "cat m.py"}'},
            {"type": "function_call_output", "call_id": "a", "output": LONG},
            {"type": "local_shell_call", "id": "l", "call_id": "b", "action": {"command": ["bash", "-lc", "ls"]}},
            {"type": "local_shell_call_output", "id": "l", "output": LONG},
            {"type": "shell_call", "call_id": "c", "action": {"commands": ["cat m.py"]}},
            {"type": "shell_call_output", "call_id": "c", "output": [{"stdout": LONG, "outcome": {"exit_code": 1}}]},
            {"type": "apply_patch_call", "call_id": "d", "operation": {"path": "m.py"}},
            {"type": "apply_patch_call_output", "call_id": "d", "status": "failed", "output": LONG},
            {"type": "custom_tool_call", "call_id": "g", "name": "x", "input": LONG},
            {"type": "custom_tool_call_output", "call_id": "g", "output": [{"type": "input_text", "text": LONG}]},
            {"type": "web_search_call", "id": "w", "action": {"q": "hello"}},
            {"role": "assistant", "content": "done"},
            {"role": "user", "content": "more"},
        ],
    },
    "messages": {
        "system": [{"type": "text", "text": LONG, **MARK}],
        "messages": [
            {"role": "user", "content": LONG},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "hello", "signature": "s"},
                    {"type": "text", "text": LONG},
                    {"type": "tool_use", "id": "a", "name": "bash", "input": {"command": "cat m.py"}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": LONG}], **MARK},
                    {"type": "text", "text": LONG},
                ],
            },
            {"role": "assistant", "content": [{"type": "server_tool_use", "id": "s"}, {"type": "text", "text": "x"}]},
            {"role": "user", "content": "more"},
        ],
    },
}
POLICIES = [
    *("truncate_older_than(n=0, max_chars=20)", "drop_stale", "drop_failed", "dedupe", "keep_last(n=1)"),
    *("clear_over(trigger=10, keep=0, at_least=0)", "redact(pattern='hel+o|cat')", "append_erratum"),
]
FIELDS = [
    *("content", "role", "type", "name", "call_id", "tool_calls", "arguments", "output", "summary", "is_error", "id"),
    *("function_call", "cache_control", "input", "status", "text"),
]
WORDS = [
    "user",
    "assistant",
    "tool",
    "text",
    "tool_use",
    "tool_result",
    "reasoning",
    "function_call",
    "{",
    "",
    "\ud800",
]
SCALARS = st.one_of(st.sampled_from([None, True, False, 0, -1, 3.5, float("inf"), 10**30]), st.sampled_from(WORDS))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=2), st.dictionaries(st.sampled_from([*FIELDS, "function", "x"]), inner, max_size=2)
    ),
    max_leaves=4,
)


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if above:
        yield above
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, found in inner:
        yield from places(found, (*above, key))


PLACES = {dialect: list(places(body)) for dialect, body in BODIES.items()}


@st.composite
def bodies(draw: st.DrawFn, dialect: str) -> dict[str, Any]:
    """A body of the dialect in which one to three values are others, are gone, or have a field more."""
    body = copy.deepcopy(BODIES[dialect])
    for place in draw(st.lists(st.sampled_from(PLACES[dialect]), min_size=1, max_size=3)):
        holder: Any = body
        try:
            for key in place[:-1]:
                holder = holder[key]
            how, value = draw(st.sampled_from(["set", "set", "set", "del", "add"])), draw(VALUES)
            if how == "del":
                del holder[place[-1]]
            elif how == "add" and isinstance(holder[place[-1]], dict):
                holder[place[-1]][draw(st.sampled_from(FIELDS))] = value
            else:
                holder[place[-1]] = value
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    return body


@pytest.mark.parametrize("dialect", get_args(Dialect))
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_any_body_is_read_or_refused_in_one_line(dialect: Dialect, data: st.DataObject) -> None:
    body = data.draw(bodies(dialect))
    before = repr(body)
    detect(body)
    said = "read"
    try:
        plan = Editor(data.draw(st.sampled_from(POLICIES))).plan(body, dialect=dialect)
        plan.served({"usage": data.draw(VALUES), "choices": data.draw(VALUES)})
        json.dumps(plan.body)
    except LeylineError as error:
        said = str(error)
    assert said
    assert "\n" not in said
    assert repr(body) == before


@pytest.mark.parametrize(
    ("dialect", "body", "said"),
    [
        ("responses", {"input": [{"role": "assistant", "content": 5}]}, r"the content of input\[0\] is no text"),
        ("responses", {"input": [{"type": "reasoning", "summary": 5}]}, r"the summary of input\[0\] is no text"),
        (
            "responses",
            {"input": [{"type": "shell_call", "call_id": "a", "action": {"commands": 5}}]},
            r"input\[0\] is a shell_call whose commands are no list",
        ),
    ],
)
def test_what_is_no_content_is_named(dialect: Dialect, body: dict[str, Any], said: str) -> None:
    with pytest.raises(DialectError, match=said):
        Editor().plan(body, dialect=dialect)


@pytest.mark.parametrize("dialect", get_args(Dialect))
def test_a_message_that_is_nested_as_deep_as_json_goes_is_refused(dialect: Dialect) -> None:
    deep = json.loads("[" * 600 + "]" * 600)
    body = copy.deepcopy(BODIES[dialect])
    next(value for value in body.values() if isinstance(value, list) and value[0].get("role"))[0]["extra"] = deep
    with pytest.raises(DialectError, match="nested over 128 levels"):
        Editor("drop_stale").plan(body, dialect=dialect)


def test_a_part_whose_type_is_no_text_is_a_part_like_any_other() -> None:
    history = [{"role": "user", "content": [{"type": ["x"], "text": "a"}]}, {"role": "assistant", "content": "b"}]
    assert Editor("drop_stale").plan(history, dialect="chat").messages == history
