"""policy_edits: what it accepts from any policy, and what it refuses."""

import copy
import sys
from dataclasses import dataclass

import pytest

from leyline.directives import MessageEdit, Mode, apply_edits
from leyline.policies import BasePolicy, ChangePolicy, Policy, PolicyError, load_policy, policy_edits, protect, then
from leyline.policies.draft import Draft


class Foreign:
    """The least a policy can be."""

    name = "foreign"

    def __init__(self, change):
        self.change = change

    def transform(self, messages, turn):
        return self.change(messages)


def in_place(messages):
    messages[1]["content"] = "changed"
    return messages


def test_foreign_policy_may_edit_in_place(native):
    messages = native().messages
    before = copy.deepcopy(messages)
    assert isinstance(Foreign(in_place), Policy)
    edits = policy_edits(Foreign(in_place), messages, 0, Mode.FORGET)
    assert edits == [MessageEdit(1, {"role": "user", "content": "changed"}, Mode.FORGET)]
    assert messages == before


class InPlace(ChangePolicy):
    def changes(self, messages, turn):
        messages[0]["content"] = "changed, and not said"
        messages[1]["content"] = "changed"
        return {1: messages[1]}


@pytest.mark.parametrize("ask", [InPlace().edits, lambda m, turn: policy_edits(InPlace(), m, turn)])
def test_a_change_policy_may_edit_in_place(native, ask):
    messages = native().messages
    before = copy.deepcopy(messages)
    assert ask(messages, 0) == [MessageEdit(1, {"role": "user", "content": "changed"})]
    assert messages == before


def test_a_function_in_a_file_may_edit_in_place(native, tmp_path):
    file = tmp_path / "rules.py"
    file.write_text("def f(messages, turn):\n    messages[1]['content'] = 'changed'\n    return messages\n")
    messages = native().messages
    before = copy.deepcopy(messages)
    edits = policy_edits(load_policy(f"{file}:f"), messages, 0)
    assert edits == [MessageEdit(1, {"role": "user", "content": "changed"})]
    assert messages == before


def test_a_setting_that_is_missing_is_found_when_the_policy_is_loaded(tmp_path):
    file = tmp_path / "rules.py"
    file.write_text("from leyline import rule\n@rule\ndef needs(message, ctx, size):\n    return None\n")
    with pytest.raises(PolicyError, match="needs: needs size"):
        load_policy(f"{file}:needs")
    assert str(load_policy(f"{file}:needs(size=1)")) == "needs(size=1)"


def test_appended_messages_are_edits(native):
    note = {"role": "user", "content": "note"}
    edits = policy_edits(Foreign(lambda m: [*m, note]), native().messages, 0)
    assert edits == [MessageEdit(2, note, Mode.AMORTIZE, insert=True)]


def drop_ids(message):
    return {k: v for k, v in message.items() if k != "tool_calls"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m[:2] + m[3:], "drops the tool call in message 2 but keeps its result in message 3"),
        (lambda m: m[:3] + m[4:], "drops the tool result in message 3 but keeps its call in message 2"),
        (lambda m: [*m[:2], drop_ids(m[2]), *m[3:]], "drops the tool call in message 2|no longer follows its call"),
        (lambda m: [*m[:3], {**m[3], "tool_call_id": "other"}, *m[4:]], "drops|no longer follows|lost its result"),
        (lambda m: [*m[:3], {"role": "user", "content": "x"}, *m[3:]], "lost its result|no longer follows"),
        (lambda m: "text", "transform returned str; return the list of messages"),
        (lambda m: ["text"], "transform returned list"),
        (lambda m: [{"content": "x"}, *m], "no chat message"),
        (lambda m: m[99], "policy foreign failed at turn 3: IndexError"),
        (lambda m: sys.exit("bye"), "policy foreign failed at turn 3: SystemExit: bye"),
    ],
)
def test_what_is_refused(change, words, native):
    messages = native().step(("view", {}, "x")).step(("eval", {}, "y")).messages
    with pytest.raises(PolicyError, match=words) as caught:
        policy_edits(Foreign(change), messages, 3)
    assert "foreign" in str(caught.value)
    assert "\n" not in str(caught.value)


@dataclass(frozen=True)
class Put(ChangePolicy):
    index: int
    replacement: dict[str, object]

    def changes(self, messages, turn):
        return {self.index: self.replacement}


NEXT = {"role": "assistant", "content": "Next."}
RESULT = {"role": "tool", "tool_call_id": "call_2_0"}


@pytest.mark.parametrize(
    ("replacement", "words"),
    [
        ({"role": "tool", "content": "x"}, "without its tool_call_id"),
        ({**RESULT, "tool_call_id": "other", "content": "x"}, "without its tool_call_id"),
        ({**RESULT, "role": "user", "content": "x"}, "a message of role 'user' in place of one of role 'tool'"),
        ({**RESULT, "content": 5}, "content is int"),
        ({**RESULT, "content": {1, 2}}, "content is set"),
        ({**RESULT, "content": {"type": "text", "text": "x"}}, "content is dict"),
        ({**RESULT, "content": ["x"]}, "content is list"),
    ],
)
def test_a_replacement_keeps_what_ties_it_to_its_place(replacement, words, native):
    messages = native().step(("view", {}, "abc")).messages
    with pytest.raises(PolicyError, match=words) as caught:
        policy_edits(Put(3, replacement), messages, 1)
    assert "policy put: " in str(caught.value)
    assert 'return {**message, "content": ...} or truncate(message, max_chars=...)' in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_role_stays_in_a_text_only_history(text):
    messages = text().step("ls", "a.py").messages
    with pytest.raises(PolicyError, match="a message of role 'tool' in place of one of role 'user'"):
        policy_edits(Put(3, {"role": "tool", "content": "x"}), messages, 1)


@pytest.mark.parametrize("content", ["", None, [], [{"type": "text", "text": "x"}]])
def test_contents_that_a_message_may_have(content, native):
    messages = [*native().step(("view", {}, "abc")).messages, NEXT]
    assert len(policy_edits(Put(3, {**RESULT, "content": content}), messages, 1)) == 1


def test_an_odd_content_that_was_there_before_is_not_the_policys_fault(native):
    messages = [*native().step(("view", {}, {"odd": 1})).messages, NEXT]
    assert len(policy_edits(Put(3, {**messages[3], "name": "view"}), messages, 1)) == 1


def test_an_inserted_message_has_a_content(native):
    with pytest.raises(PolicyError, match="content is int"):
        policy_edits(Foreign(lambda m: [*m, {"role": "user", "content": 5}]), native().messages, 0)


def test_a_history_that_was_broken_before_is_not_the_policys_fault(native):
    messages = native().step(("view", {}, "x" * 50)).messages[:2] + native().step(("view", {}, "x" * 50)).messages[3:]
    shorten = Foreign(lambda m: [*m[:2], {**m[2], "content": "x"}])
    assert len(policy_edits(shorten, messages, 1)) == 1


class Wrong(BasePolicy):
    def transform(self, messages, turn):
        return list(messages)

    def edits(self, messages, turn, mode=Mode.AMORTIZE):
        return [MessageEdit(99, None, mode)]


def test_edits_out_of_range_name_the_policy(native):
    with pytest.raises(PolicyError, match="policy wrong: edit of message 99"):
        policy_edits(Wrong(), native().messages, 0)


def test_then_maps_indices_back_and_keeps_forget(native):
    messages = native().step(("view", {}, "a" * 300)).step(("view", {}, "sk-1 " + "b" * 300)).messages
    edits = then("keep_last(n=1)", "truncate_older_than(n=0, max_chars=20)", "redact(pattern='sk-[0-9]')").edits(
        messages, 2
    )
    assert [(e.message_index, e.mode.value) for e in edits] == [(2, "amortize"), (3, "amortize"), (5, "forget")]
    assert "[redacted]" in str(apply_edits(messages, edits))


def test_draft_with_insertions():
    messages = [{"role": "user", "content": str(k)} for k in range(3)]
    draft = Draft(messages)
    note = {"role": "user", "content": "note"}
    draft.apply([MessageEdit(1, note, Mode.AMORTIZE, insert=True), MessageEdit(2, None, Mode.AMORTIZE)])
    assert [m["content"] for m in draft.messages] == ["0", "note", "1"]
    draft.apply(
        [
            MessageEdit(1, {"role": "user", "content": "NOTE"}, Mode.AMORTIZE),
            MessageEdit(2, {"role": "user", "content": "ONE"}, Mode.FORGET),
            MessageEdit(3, note, Mode.AMORTIZE, insert=True),
        ]
    )
    edits = draft.edits()
    assert apply_edits(messages, edits) == draft.messages
    assert [m["content"] for m in draft.messages] == ["0", "NOTE", "ONE", "note"]
    assert [(e.message_index, e.insert, e.mode.value) for e in edits] == [
        (1, True, "amortize"),
        (1, False, "forget"),
        (2, False, "amortize"),
        (3, True, "amortize"),
    ]
    draft.apply([MessageEdit(1, None, Mode.AMORTIZE)])
    assert apply_edits(messages, draft.edits()) == draft.messages


def test_protect_keeps_both_halves(native):
    messages = (
        native().step(("edit", {"path": "src/a.py"}, "x")).step(("view", {}, "y")).step(("view", {}, "z")).messages
    )
    assert list(protect("keep_last(n=1)", tools=["edit"]).edits(messages, 3)) == protect(
        "keep_last(n=1)", files=["a.*"]
    ).edits(messages, 3)
    assert [e.message_index for e in protect("keep_last(n=1)", tools=["edit"]).edits(messages, 3)] == [4, 5]
    assert [e.message_index for e in protect("keep_last(n=1)", last=2).edits(messages, 3)] == [2, 3]
    assert protect("keep_last(n=1)", last=9).edits(messages, 3) == []


def test_when_every_batches(native):
    from leyline.policies import when

    history = native()
    policy = when("truncate_older_than(n=0, max_chars=10)", every=4)
    edited = []
    for turn in range(10):
        edited.append(len(policy.edits(history.messages, turn)))
        history.step(("view", {}, "x" * 100))
    assert edited == [0, 0, 0, 0, 3, 3, 3, 3, 7, 7]  # never the newest, which is still to be read


def test_when_condition(native):
    from leyline.policies import when

    messages = [*native().step(("view", {}, "x" * 100)).messages, NEXT]
    inner = "truncate_older_than(n=0, max_chars=10)"
    assert when(inner, condition=lambda m, turn: turn > 1).edits(messages, 1) == []
    assert len(when(inner, condition=lambda m, turn: turn > 1).edits(messages, 2)) == 1
    assert when(inner, over=10_000).edits(messages, 1) == []
    with pytest.raises(PolicyError, match="condition must be a function"):
        when(inner, condition=3)
