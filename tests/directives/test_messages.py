from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leyline.directives import EditError, Message, MessageEdit, Mode, apply_edits, diff


def message(role: str, content: str, **more: Any) -> Message:
    return {"role": role, "content": content, **more}


def call(name: str, content: str = "") -> Message:
    return message("assistant", content, tool_calls=[{"id": name, "type": "function", "function": {"name": "view"}}])


def answer(name: str, content: str) -> Message:
    return message("tool", content, tool_call_id=name)


HISTORY = [message("system", "s"), message("user", "u"), call("1"), answer("1", "one"), call("2"), answer("2", "two")]

messages = st.builds(message, st.sampled_from(["user", "assistant"]), st.sampled_from("abc")) | st.builds(
    answer, st.sampled_from("12"), st.sampled_from("abc")
)
histories = st.lists(messages, max_size=9)


@given(histories, histories)
def test_diff_and_apply_are_inverse(old: list[Message], new: list[Message]) -> None:
    edits = diff(old, new)
    applied = apply_edits(old, edits)
    assert applied + new[len(applied) :] == new
    assert [e.message_index for e in edits] == sorted(e.message_index for e in edits)


@given(histories, st.data())
def test_diff_finds_what_apply_edits_did(old: list[Message], data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.integers(0, max(0, len(old) - 1)), max_size=len(old)))
    edits = [MessageEdit(i, data.draw(st.none() | messages)) for i in sorted(chosen) if i < len(old)]
    new = apply_edits(old, edits)
    assert apply_edits(old, diff(old, new)) == new[: len(apply_edits(old, diff(old, new)))]
    assert diff(old, old) == []


@given(histories, histories)
def test_an_appended_tail_is_no_edit(old: list[Message], tail: list[Message]) -> None:
    assert diff(old, old + tail) == []


def test_a_replaced_tool_output_is_one_edit() -> None:
    new = [*HISTORY[:3], answer("1", "[cut]"), *HISTORY[4:], message("assistant", "next")]
    assert diff(HISTORY, new, Mode.FORGET) == [MessageEdit(3, answer("1", "[cut]"), Mode.FORGET)]


def test_a_dropped_pair_is_two_drops() -> None:
    assert diff(HISTORY, [*HISTORY[:2], *HISTORY[4:]]) == [MessageEdit(2, None), MessageEdit(3, None)]


def test_a_message_put_in_the_middle_is_an_insertion() -> None:
    note = message("user", "note")
    assert diff(HISTORY, [*HISTORY[:4], note, *HISTORY[4:]]) == [MessageEdit(4, note, insert=True)]


def test_replaced_dropped_and_inserted_at_once() -> None:
    note = message("user", "note")
    new = [HISTORY[0], note, HISTORY[1], HISTORY[4], answer("2", "cut"), message("assistant", "tail")]
    edits = diff(HISTORY, new)
    assert edits == [
        MessageEdit(1, note, insert=True),
        MessageEdit(2, None),
        MessageEdit(3, None),
        MessageEdit(5, answer("2", "cut")),
    ]


def test_answers_of_other_calls_are_not_paired() -> None:
    edits = diff([HISTORY[0], answer("1", "a"), HISTORY[1]], [HISTORY[0], answer("9", "b"), HISTORY[1]])
    assert edits == [MessageEdit(1, None), MessageEdit(2, answer("9", "b"), insert=True)]


def test_key_order_is_no_difference() -> None:
    assert diff([{"role": "user", "content": "x"}], [{"content": "x", "role": "user"}]) == []


def test_a_first_message_that_changed_is_replaced_not_dropped() -> None:
    new = [message("system", "S"), *HISTORY[1:]]
    assert diff(HISTORY, new) == [MessageEdit(0, new[0])]


@pytest.mark.parametrize(
    ("edits", "text"),
    [
        ([MessageEdit(6, None)], "the bound is 5"),
        ([MessageEdit(-1, None)], "edit of message -1"),
        ([MessageEdit(7, HISTORY[0], insert=True)], "the bound is 6"),
        ([MessageEdit(2, None, insert=True)], "an insertion needs a replacement"),
        ([MessageEdit(2, None), MessageEdit(2, HISTORY[0])], "edited twice"),
    ],
)
def test_bad_edits_are_refused(edits: list[MessageEdit], text: str) -> None:
    with pytest.raises(EditError, match=text):
        apply_edits(HISTORY, edits)


def test_long_histories_are_diffed_in_time() -> None:
    old = [message("user" if i % 2 else "assistant", f"text {i}") for i in range(1000)]
    new = [message("user", "cut") if i % 2 and i < 990 else m for i, m in enumerate(old)]
    edits = diff(old, [*new, message("user", "tail")])
    assert len(edits) == 495
    assert apply_edits(old, edits) == new
