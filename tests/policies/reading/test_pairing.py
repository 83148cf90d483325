"""Which result answers which call, whatever ids they have and whatever stands between."""

import pytest

from leyline.policies import calls, load_policy, policy_edits
from leyline.policies.reading.calls import groups

TASK = {"role": "user", "content": "Fix it."}
NEXT = {"role": "assistant", "content": "Next."}


def call(call_id, name="view", **arguments):
    found = {"type": "function", "function": {"name": name, "arguments": arguments}}
    return found if call_id is None else {"id": call_id, **found}


def said(*made):
    return {"role": "assistant", "content": None, "tool_calls": list(made)}


def out(call_id, text):
    return {"role": "tool", "content": text} | ({} if call_id is None else {"tool_call_id": call_id})


def edited(spec, messages):
    turn = sum(m["role"] == "assistant" for m in messages)
    return {e.message_index for e in policy_edits(load_policy(spec), messages, turn)}


def results(messages):
    return [(c.arguments.get("path"), c.result_index) for c in calls(messages)]


def test_parallel_calls_with_one_id_are_answered_in_order():
    messages = [TASK, said(call("c", path="a"), call("c", path="b")), out("c", "A" * 99), out("c", "B" * 99)]
    assert results(messages) == [("a", 2), ("b", 3)]
    messages += [said(call("d", "edit", path="a")), out("d", "edited"), NEXT]
    assert edited("drop_stale", messages) == {2}


def test_an_id_that_every_turn_repeats_is_answered_by_the_newest_call():
    messages = [TASK]
    for path in "abc":
        messages += [said(call("call_0", path=path)), out("call_0", path * 99)]
    assert results(messages) == [("a", 2), ("b", 4), ("c", 6)]
    assert edited("keep_last(n=1)", messages) == {1, 2, 3, 4}


def test_a_call_that_was_given_up_does_not_take_the_result_of_a_later_one():
    messages = [TASK, said(call("c", path="a")), TASK, said(call("c", path="b")), out("c", "B")]
    assert results(messages) == [("a", None), ("b", 4)]


@pytest.mark.parametrize("ids", [(None, None), ("", ""), ("other", "another")])
def test_results_and_calls_without_ids_go_by_order(ids):
    messages = [TASK, said(call(None, path="a"), call(None, path="b")), out(ids[0], "A"), out(ids[1], "B")]
    assert results(messages) == [("a", 2), ("b", 3)]


def test_a_result_with_an_id_of_its_own_answers_no_call_with_another():
    messages = [TASK, said(call("x", path="a")), out("y", "A")]
    assert results(messages) == [("a", None)]


def test_a_result_that_says_its_tool_goes_to_that_tool():
    messages = [TASK, said(call(None, "view"), call(None, "grep")), {**out(None, "G"), "name": "grep"}, out(None, "V")]
    assert [(c.name, c.result_index) for c in calls(messages)] == [("view", 3), ("grep", 2)]


def test_the_older_functions_are_read():
    old = {"role": "assistant", "content": None, "function_call": {"name": "view", "arguments": '{"path": "a"}'}}
    messages = [TASK, old, {"role": "function", "name": "view", "content": "x" * 900}, NEXT]
    assert results(messages) == [("a", 2)]
    assert edited("truncate_older_than(n=0, max_chars=9)", messages) == {2}


@pytest.mark.parametrize("between", [TASK, {"role": "user", "content": [{"type": "image_url"}]}, NEXT])
def test_a_group_is_whole_whatever_stands_in_it(between):
    messages = [TASK, said(call("1", path="a"), call("2", path="b")), out("1", "A"), between, out("2", "B")]
    messages += [said(call("3", path="c")), out("3", "C"), NEXT]
    assert [1, 2, 4] in groups(messages)
    gone = edited("keep_last(n=1)", messages)
    assert {1, 2, 4} <= gone
    assert edited("protect(keep_last(n=1), tools=['nothing'], last=9)", messages) == set()


def test_a_second_result_of_a_call_belongs_to_its_group():
    messages = [TASK, said(call("1")), out("1", "part"), out("1", "whole"), said(call("2")), out("2", "x"), NEXT]
    assert edited("keep_last(n=2)", messages) == {1, 2, 3}


def test_a_call_that_waits_for_a_result_stays():
    messages = [TASK, said(call("1"), call("2")), out("1", "A"), NEXT, NEXT, NEXT]
    assert edited("keep_last(n=1)", messages) == {3, 4}
    assert edited("keep_last(n=1)", [*messages, out("2", "late"), NEXT]) == {1, 2, 3, 4, 5, 6}


def test_calls_of_one_answer_in_several_messages():
    messages = [TASK, said(call("1", path="a")), said(call("2", path="b")), out("1", "A"), out("2", "B"), NEXT]
    assert results(messages) == [("a", 3), ("b", 4)]
    assert edited("keep_last(n=1)", messages) == {1, 2, 3, 4}


def test_calls_in_other_forms_are_read():
    flat = {"id": "1", "name": "view", "args": {"path": "a"}}
    custom = {"id": "2", "type": "custom", "custom": {"name": "apply_patch", "input": "*** Update File: a\n"}}
    made = calls([TASK, said(flat, custom)])
    assert [(c.name, c.arguments) for c in made] == [
        ("view", {"path": "a"}),
        ("apply_patch", {"input": "*** Update File: a\n"}),
    ]
