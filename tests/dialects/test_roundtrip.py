"""One conversation, drawn at random, in each dialect: what was read comes back, and an edit reads as what it made."""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline.dialects import DIALECTS, Dialect, DialectError, Placed, detect, read
from leyline.dialects.plain import MARKS

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=60)
MARK = {"type": "ephemeral"}


@dataclass(frozen=True)
class Step:
    """An answer and what came of it. texts: of the answer. results: one for each call, with whether it failed."""

    thinking: str | None
    text: str | None
    results: tuple[tuple[str | tuple[str, ...], bool], ...]
    reminder: str | None
    marked: bool
    loose: bool
    """Whether contents are written as text where the dialect allows parts."""


results = st.tuples(st.one_of(TEXT, st.lists(TEXT, min_size=1, max_size=3).map(tuple)), st.booleans())
steps = st.builds(
    Step,
    thinking=st.none() | TEXT,
    text=st.none() | TEXT,
    results=st.lists(results, min_size=1, max_size=3).map(tuple),
    reminder=st.none() | TEXT,
    marked=st.booleans(),
    loose=st.booleans(),
)
conversations = st.tuples(st.none() | TEXT, TEXT, st.lists(steps, max_size=6))


def chat(conversation: tuple[str | None, str, list[Step]]) -> dict[str, Any]:
    system, task, made = conversation
    messages: list[dict[str, Any]] = [] if system is None else [{"role": "system", "content": system}]
    messages.append({"role": "user", "content": task})
    for number, step in enumerate(made):
        calls = [
            {"id": f"c{number}_{k}", "type": "function", "function": {"name": "view", "arguments": '{"path": "a"}'}}
            for k in range(len(step.results))
        ]
        answer: dict[str, Any] = {"role": "assistant", "content": step.text, "tool_calls": calls}
        messages.append(answer if step.thinking is None else {**answer, "reasoning_content": step.thinking})
        for k, (content, _) in enumerate(step.results):
            messages.append(
                {"role": "tool", "tool_call_id": f"c{number}_{k}", "content": _parts(content, "text", step)}
            )
        if step.reminder is not None:
            messages.append({"role": "user", "content": _parts(step.reminder, "text", step)})
    return {"model": "m", "messages": messages}


def messages(conversation: tuple[str | None, str, list[Step]]) -> dict[str, Any]:
    system, task, made = conversation
    found: list[dict[str, Any]] = [{"role": "user", "content": task}]
    for number, step in enumerate(made):
        blocks: list[dict[str, Any]] = []
        if step.thinking is not None:
            blocks.append({"type": "thinking", "thinking": step.thinking, "signature": "sig"})
            blocks.append({"type": "redacted_thinking", "data": "xx"})
        if step.text is not None:
            blocks.append({"type": "text", "text": step.text})
        for k in range(len(step.results)):
            blocks.append({"type": "tool_use", "id": f"c{number}_{k}", "name": "view", "input": {"path": "a"}})
        found.append({"role": "assistant", "content": blocks})
        answers: list[dict[str, Any]] = []
        for k, (content, failed) in enumerate(step.results):
            block = {"type": "tool_result", "tool_use_id": f"c{number}_{k}", "content": _parts(content, "text", step)}
            answers.append({**block, "is_error": True} if failed else block)
        if step.reminder is not None:
            answers.append({"type": "text", "text": step.reminder})
        if step.marked:
            answers[-1]["cache_control"] = MARK
        found.append({"role": "user", "content": answers})
    body: dict[str, Any] = {"model": "m", "max_tokens": 9, "messages": found}
    return body if system is None else {**body, "system": [{"type": "text", "text": system, "cache_control": MARK}]}


def responses(conversation: tuple[str | None, str, list[Step]]) -> dict[str, Any]:
    system, task, made = conversation
    items: list[dict[str, Any]] = [{"role": "user", "content": task}]
    for number, step in enumerate(made):
        if step.thinking is not None:
            thought = {"type": "summary_text", "text": step.thinking}
            items.append({"type": "reasoning", "id": f"r{number}", "summary": [thought], "encrypted_content": "xx"})
        if step.text is not None:
            said = {"type": "output_text", "text": step.text, "annotations": []}
            head = {"type": "message", "id": f"m{number}", "status": "completed", "role": "assistant"}
            items.append({**head, "content": [said]})
        for k in range(len(step.results)):
            items.append(_call(f"c{number}_{k}", k))
        for k, (content, _) in enumerate(step.results):
            if k == 1:
                items.append({"type": "local_shell_call_output", "id": f"c{number}_{k}", "output": str(content)})
            else:
                kind = "custom_tool_call_output" if k == 2 else "function_call_output"
                output = _parts(content, "input_text", step)
                items.append({"type": kind, "call_id": f"c{number}_{k}", "output": output})
        if step.reminder is not None:
            items.append({"role": "developer", "content": _parts(step.reminder, "input_text", step)})
    body: dict[str, Any] = {"model": "m", "input": items}
    return body if system is None else {**body, "instructions": system}


def _call(name: str, kind: int) -> dict[str, Any]:
    if kind == 1:
        action = {"type": "exec", "command": ["bash", "-lc", "cat a"], "env": {}}
        return {"type": "local_shell_call", "id": name, "call_id": name, "status": "completed", "action": action}
    if kind == 2:
        return {"type": "custom_tool_call", "call_id": name, "name": "patch", "input": "*** a"}
    return {"type": "function_call", "call_id": name, "name": "view", "arguments": json.dumps({"path": "a"})}


def _parts(content: str | tuple[str, ...], kind: str, step: Step) -> Any:
    if isinstance(content, str) and step.loose:
        return content
    parts = [{"type": kind, "text": text} for text in ([content] if isinstance(content, str) else content)]
    if step.marked and kind == "text":
        parts[-1]["cache_control"] = MARK  # type: ignore[assignment]
    return parts


WRITERS = {"chat": chat, "messages": messages, "responses": responses}
dialects = pytest.mark.parametrize("dialect", DIALECTS)


def body_of(body: dict[str, Any], reading: Any, edited: list[Placed]) -> dict[str, Any]:
    written = reading.write(edited)
    made = {**body, reading.field_name: written.items, **written.fields}
    return {key: value for key, value in made.items() if value is not None}


def normal(message: dict[str, Any]) -> dict[str, Any]:
    """A message with text and a lone text part made equal, and no field that says nothing."""
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text") for part in content]
        content = texts if all(isinstance(text, str) for text in texts) else content
    elif isinstance(content, str):
        content = [content] if content else []
    return {**{k: v for k, v in message.items() if v not in (None, [], {})}, "content": content or []}


@dialects
@settings(max_examples=60, deadline=None)
@given(conversation=conversations)
def test_without_an_edit_everything_is_the_object_that_was_given(dialect: Dialect, conversation: Any) -> None:
    body = WRITERS[dialect](conversation)
    before = copy.deepcopy(body)
    reading = read(body, dialect)
    edited = [Placed(k, message) for k, message in enumerate(reading.history)]
    written = reading.write(edited)
    assert reading.untouched(edited)
    assert all(new is old for new, old in zip(written.items, body[reading.field_name], strict=True))
    assert written.origins == list(range(len(written.items)))
    assert not written.fields
    assert body == before
    assert not any(f'"{mark}"' in json.dumps(reading.history) for mark in MARKS)


@dialects
@settings(max_examples=60, deadline=None)
@given(conversation=conversations)
def test_one_conversation_reads_alike_in_every_dialect(dialect: Dialect, conversation: Any) -> None:
    def seen(name: Dialect) -> list[tuple[Any, ...]]:
        history = read(WRITERS[name](conversation), name).history
        roles = {"developer": "user"}
        return [
            (roles.get(m["role"], m["role"]), m.get("tool_call_id"), len(m.get("tool_calls") or ())) for m in history
        ]

    assert seen(dialect) == seen("chat")


@dialects
@settings(max_examples=150, deadline=None)
@given(conversation=conversations, data=st.data())
def test_an_edited_history_reads_as_what_the_edit_made_of_it(dialect: Dialect, conversation: Any, data: Any) -> None:
    body = WRITERS[dialect](conversation)
    reading = read(body, dialect)
    edited: list[Placed] = []
    groups = _groups(reading.history)
    for group in groups:
        what = data.draw(st.sampled_from(["keep", "keep", "drop", "text", "part"]), label="edit")
        if what == "drop" and group[0] > 1:
            continue
        for index in group:
            message = reading.history[index]
            if what == "text" and message["role"] not in ("assistant",):
                message = {**message, "content": "cut"}
            elif what == "part" and isinstance(message["content"], list):
                parts = [{**part, "text": "part"} if "text" in part else part for part in message["content"]]
                message = {**message, "content": parts}
            elif what == "text":
                message = {**message, "content": "said"}
            edited.append(Placed(index, message))
    again = read(body_of(body, reading, edited), dialect).history
    assert [normal(m) for m in again] == [normal(p.message) for p in edited]


def _groups(history: list[dict[str, Any]]) -> list[list[int]]:
    groups: list[list[int]] = []
    for index, message in enumerate(history):
        if message["role"] == "tool":
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


@dialects
@settings(max_examples=200, deadline=None)
@given(
    items=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=9),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["role", "content", "type", "text", "tool_calls", "id", "input", "call_id", "output", "name"]
                ),
                inner
                | st.sampled_from(["user", "assistant", "tool_use", "function_call", "message", "text", "reasoning"]),
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_no_body_does_more_than_be_refused(dialect: Dialect, items: Any) -> None:
    body = {"messages": items, "input": items}
    try:
        reading = read(body, dialect)
    except DialectError:
        return
    edited = [Placed(k, {**m, "content": "cut"}) for k, m in enumerate(reading.history)]
    reading.write(edited)


def test_a_dialect_is_known_by_its_items() -> None:
    for name, writer in WRITERS.items():
        body = writer((None, "go", [Step("think", "text", (("out", False),), None, False, False)]))
        assert detect(body) == name
        assert detect({"messages": body.get("messages") or body["input"]}) == name
