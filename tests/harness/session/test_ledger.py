"""The ledger against what a careful reader would do by hand, and against random policies and clients."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline.directives import Message, MessageEdit, Mode, apply_edits
from leyline.harness.session.ledger import Ledger, LedgerError, Plan


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


def call(name: str) -> Message:
    function = {"name": "view", "arguments": "{}"}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": name, "type": "function", "function": function}]}


def result(name: str, text: str) -> Message:
    return {"role": "tool", "tool_call_id": name, "content": text}


def contents(plan: Plan) -> list[Any]:
    return [message["content"] for message in plan.messages]


def serve(ledger: Ledger, history: list[Message], *proposals: MessageEdit, said: str = "ok") -> Plan:
    plan = ledger.plan(history, proposals)
    ledger.commit(plan, answer(said))
    history.append(answer(said))
    return plan


def test_an_edit_made_once_stays_although_the_policy_forgets_it() -> None:
    ledger, history = Ledger(), [user("long text"), user("b")]
    serve(ledger, history, MessageEdit(0, user("l")))
    history.append(user("c"))
    plan = serve(ledger, history)
    assert contents(plan) == ["l", "b", "ok", "c"]
    assert plan.accepted == ()
    assert plan.edits == ()


def test_the_same_proposal_again_is_not_new() -> None:
    ledger, history = Ledger(), [user("long text"), user("b")]
    assert len(serve(ledger, history, MessageEdit(0, user("l"))).accepted) == 1
    plan = serve(ledger, history, MessageEdit(0, user("l")))
    assert plan.accepted == plan.edits == ()


@pytest.mark.parametrize(
    ("proposal", "taken"),
    [
        (MessageEdit(0, user("abc")), True),
        (MessageEdit(0, None), True),
        (MessageEdit(0, user("vwxyz")), False),
        (MessageEdit(0, user("long text")), False),
        (MessageEdit(0, user("something much longer than before"), Mode.FORGET), True),
        (MessageEdit(0, user("12345"), Mode.FORGET), True),
    ],
    ids=["shorter", "drop", "same length", "the original", "forget longer", "forget same text"],
)
def test_a_pinned_edit_gives_way_only_to_more_removal_or_forget(proposal: MessageEdit, taken: bool) -> None:
    ledger, history = Ledger(), [user("long text"), user("b")]
    serve(ledger, history, MessageEdit(0, user("12345")))
    plan = ledger.plan(history, [proposal])
    assert plan.accepted == ((proposal,) if taken else ())
    expected = proposal if taken else MessageEdit(0, user("12345"))
    assert plan.messages == apply_edits(history, [expected])
    assert [e.message_index for e in plan.edits] == ([0] if taken else [])


def test_a_forget_is_sent_once() -> None:
    ledger, history = Ledger(), [user("secret"), user("b")]
    forget = MessageEdit(0, user("x"), Mode.FORGET)
    assert serve(ledger, history).edits == ()
    assert serve(ledger, history, forget).edits == (forget,)
    assert serve(ledger, history, forget).edits == ()


def test_an_edit_of_a_message_that_was_never_sent_is_no_change_of_what_the_server_holds() -> None:
    ledger, history = Ledger(), [user("a")]
    serve(ledger, history)
    history.append(user("secret"))
    plan = serve(ledger, history, MessageEdit(2, user("x"), Mode.FORGET))
    assert contents(plan) == ["a", "ok", "x"]
    assert plan.edits == ()
    assert len(plan.accepted) == 1


def test_planning_changes_nothing_until_it_is_committed() -> None:
    ledger, history = Ledger(), [user("aaaa"), user("b")]
    before = ledger.to_dict()
    ledger.plan(history, [MessageEdit(0, None)])
    assert ledger.to_dict() == before


def test_edits_are_in_indices_of_what_was_sent() -> None:
    ledger, history = Ledger(), [user("a"), user("bbbb"), user("c")]
    serve(ledger, history, MessageEdit(0, None))
    plan = serve(ledger, history, MessageEdit(1, user("b")))
    assert plan.accepted == (MessageEdit(1, user("b")),)
    assert plan.edits == (MessageEdit(0, user("b")),)


def test_a_note_stays_where_it_was_put() -> None:
    ledger, history = Ledger(), [user("a"), user("b")]
    note = MessageEdit(2, user("by the way"), insert=True)
    assert contents(serve(ledger, history, note)) == ["a", "b", "by the way"]
    history.append(user("c"))
    plan = serve(ledger, history, note)
    assert contents(plan) == ["a", "b", "by the way", "ok", "c"]
    assert plan.edits == plan.accepted == ()
    early = MessageEdit(1, user("first"), insert=True)
    plan = serve(ledger, history, note, early)
    assert contents(plan)[:3] == ["a", "first", "b"]
    assert plan.edits == (early,)


def test_unedit_brings_the_original_back_for_good() -> None:
    ledger, history = Ledger(), [user("long text"), user("b")]
    cut = MessageEdit(0, user("l"))
    serve(ledger, history, cut)
    assert ledger.unedit(0)
    assert not ledger.unedit(1)
    plan = serve(ledger, history, cut)
    assert contents(plan) == ["long text", "b", "ok"]
    assert plan.edits == (MessageEdit(0, user("long text")),)
    assert serve(ledger, history, cut).edits == ()
    with pytest.raises(LedgerError, match="no message 99"):
        ledger.unedit(99)


def test_unedit_of_half_a_dropped_tool_pair_brings_back_the_pair() -> None:
    ledger, history = Ledger(), [user("a"), call("1"), result("1", "out"), user("b")]
    drop = [MessageEdit(1, None), MessageEdit(2, None)]
    assert contents(serve(ledger, history, *drop)) == ["a", "b"]
    assert ledger.unedit(2)
    assert serve(ledger, history, *drop).messages == history[:-1]


@pytest.mark.parametrize(("mode", "left"), [(Mode.AMORTIZE, True), (Mode.FORGET, False)])
def test_a_result_that_comes_late_never_stands_without_its_call(mode: Mode, left: bool) -> None:
    """A second result, of a call whose exchange was dropped in between: the exchange comes back, or the result goes."""
    ledger, history = Ledger(), [user("a"), call("1"), result("1", "part"), user("b")]
    serve(ledger, history, MessageEdit(1, None, mode), MessageEdit(2, None, mode))
    history.append(result("1", "whole"))
    plan = serve(ledger, history)
    assert contents(plan) == (["a", "", "part", "b", "ok", "whole"] if left else ["a", "b", "ok"])


def test_a_tool_pair_is_not_dropped_when_half_of_it_was_given_back() -> None:
    ledger, history = Ledger(), [user("a"), call("1"), result("1", "output"), user("b")]
    serve(ledger, history, MessageEdit(2, result("1", "o")))
    assert ledger.unedit(2)
    plan = serve(ledger, history, MessageEdit(1, None), MessageEdit(2, None))
    assert plan.messages == history[:-1]
    assert plan.accepted == ()


def test_a_forget_of_half_a_dropped_tool_pair_brings_nothing_back_and_heals_what_is_behind() -> None:
    ledger, history = Ledger(), [user("a"), call("1"), result("1", "secret"), user("b"), user("c")]
    serve(ledger, history, MessageEdit(1, None), MessageEdit(2, None))
    redact = MessageEdit(2, result("1", "[redacted]"), Mode.FORGET)
    plan = serve(ledger, history, redact)
    assert contents(plan) == ["a", "b", "c", "ok"]
    assert plan.edits == (MessageEdit(1, user("b"), Mode.FORGET),)
    assert plan.causes == ("policy",)
    assert serve(ledger, history, redact).edits == ()


def test_what_was_forgotten_does_not_come_back_in_a_shorter_version() -> None:
    ledger, history = Ledger(), [user("the secret is 1234 and so on"), user("b")]
    serve(ledger, history, MessageEdit(0, user("the secret is [redacted] and so on"), Mode.FORGET))
    plan = serve(ledger, history, MessageEdit(0, user("the secret is 1234")))
    assert contents(plan) == ["the secret is [redacted] and so on", "b", "ok"]
    assert contents(serve(ledger, history, MessageEdit(0, None))) == ["b", "ok", "ok"]


def test_unedit_brings_back_an_exchange_of_a_text_only_history_too() -> None:
    ledger, history = Ledger(), [user("a"), answer("ls"), user("out"), answer("ok"), user("b")]
    serve(ledger, history, MessageEdit(1, None), MessageEdit(2, None))
    assert ledger.unedit(1)
    assert serve(ledger, history).messages == history[:-1]


def test_a_message_that_the_harness_changed_becomes_an_edit_and_loses_its_pin() -> None:
    ledger, history = Ledger(), [user("aaaa"), user("b"), user("c")]
    serve(ledger, history, MessageEdit(0, user("a")))
    history[0], history[2] = user("AAAA"), user("C")
    plan = serve(ledger, history)
    assert contents(plan) == ["AAAA", "b", "C", "ok"]
    assert plan.client == (0, 2)
    assert plan.edits == (MessageEdit(0, user("AAAA")), MessageEdit(2, user("C")))


def test_messages_that_the_harness_dropped_become_edits_and_the_other_pins_move_along() -> None:
    ledger, history = Ledger(), [user("a"), user("b"), user("cccc"), user("d")]
    serve(ledger, history, MessageEdit(2, user("c")))
    del history[0:2]
    history.append(user("e"))
    plan = serve(ledger, history)
    assert contents(plan) == ["c", "d", "ok", "e"]
    assert plan.client == (0, 1)
    assert plan.edits == (MessageEdit(0, None), MessageEdit(1, None))
    assert ledger.pinned() == [MessageEdit(0, user("c"))]


def test_a_changed_half_of_a_dropped_tool_pair_releases_the_other_half() -> None:
    ledger, history = Ledger(), [user("a"), call("1"), result("1", "out"), user("b")]
    serve(ledger, history, MessageEdit(1, None), MessageEdit(2, None))
    history[2] = result("1", "new")
    assert ledger.plan(history).messages == history


def test_a_round_trip_through_a_client_is_the_same_message() -> None:
    ledger, history = Ledger(), [user("a")]
    plan = ledger.plan(history)
    ledger.commit(plan, call("1"))
    back = {**call("1"), "content": None, "refusal": None, "annotations": [], "function_call": None}
    plan = ledger.plan([*history, back, result("1", "x")])
    assert plan.client == plan.edits == ()


def test_a_retry_without_the_answer_drops_it() -> None:
    ledger, history = Ledger(), [user("a")]
    ledger.commit(ledger.plan(history), answer("no"))
    plan = ledger.plan(history)
    assert contents(plan) == ["a"]
    assert plan.edits == (MessageEdit(1, None),)


@pytest.mark.parametrize(
    "proposal",
    [
        MessageEdit(1, user("x")),
        MessageEdit(-1, None),
        MessageEdit(2, user("x"), insert=True),
        MessageEdit(0, insert=True),
    ],
)
def test_a_proposal_out_of_range_is_refused(proposal: MessageEdit) -> None:
    ledger = Ledger()
    with pytest.raises(LedgerError):
        ledger.plan([user("a")], [proposal])
    assert len(ledger) == 0


def test_a_saved_ledger_goes_on_where_it_was() -> None:
    ledger, history = Ledger(Mode.FORGET), [user("aaaa"), call("1"), result("1", "out"), user("b")]
    serve(ledger, history, MessageEdit(0, user("a")), MessageEdit(4, user("n"), insert=True), MessageEdit(1, None))
    ledger.unedit(1)
    saved = Ledger.from_dict(json.loads(json.dumps(ledger.to_dict())))
    assert saved.to_dict() == ledger.to_dict()
    history.append(user("c"))
    assert saved.plan(history, [MessageEdit(1, None)]) == ledger.plan(history, [MessageEdit(1, None)])


@pytest.mark.parametrize("data", [{}, {"version": 2}, {"version": 1, "mode": "no"}, {"version": 1, "mode": "forget"}])
def test_what_is_no_saved_ledger_is_an_error_that_says_so(data: dict[str, Any]) -> None:
    with pytest.raises(LedgerError, match="ledger"):
        Ledger.from_dict(data)


texts = st.text("ab", max_size=4)
moves = st.lists(
    st.tuples(
        st.sampled_from(["cut", "drop", "note", "forget", "client_edit", "client_drop", "unedit", "fail"]),
        st.integers(0, 12),
        texts,
    ),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(turns=st.lists(st.tuples(moves, texts), min_size=1, max_size=6))
def test_edits_always_lead_from_what_was_sent_to_a_prefix_of_the_view(turns: list[tuple[list[Any], str]]) -> None:
    ledger, history = Ledger(), [user("start")]
    sent: list[Message] = []
    for steps, said in turns:
        proposals: dict[int, MessageEdit] = {}
        notes: list[MessageEdit] = []
        for kind, place, text in steps:
            index = place % len(history)
            if kind in ("cut", "forget"):
                proposals[index] = MessageEdit(index, user(text), Mode.FORGET if kind == "forget" else Mode.AMORTIZE)
            elif kind == "drop":
                proposals[index] = MessageEdit(index, None)
            elif kind == "note":
                notes.append(MessageEdit(place % (len(history) + 1), user("note " + text), insert=True))
            elif kind == "client_edit":
                history[index] = user("client " + text)
            elif kind == "client_drop" and len(history) > 1:
                del history[index]
                proposals, notes = {}, []
            elif kind == "unedit" and ledger.digests:
                ledger.unedit(place % len(ledger.digests))
            elif kind == "fail":
                ledger.plan(history, [*proposals.values(), *notes])
        plan = ledger.plan(history, [*proposals.values(), *notes])
        moved = apply_edits(sent, plan.edits)
        assert plan.messages[: len(moved)] == moved
        assert apply_edits(history, _in_force(ledger, plan, history)) == plan.messages
        ledger.commit(plan, answer(said))
        sent = [*plan.messages, answer(said)]
        history = [*history, answer(said), user("next")]


def _in_force(ledger: Ledger, plan: Plan, history: list[Message]) -> list[MessageEdit]:
    """The plan's pins, read from a ledger that committed it."""
    twin = ledger.copy()
    twin.commit(plan, answer("x"))
    return twin.pinned()
