"""What no policy may do, whatever it asks for."""

import copy
import json

import pytest

from leyline.directives import Mode, apply_edits
from leyline.policies import DROP, ChangePolicy, PolicyError, load_policy, policy_edits, rule
from leyline.policies.reading.plain import foreign
from leyline.policies.reading.sizes import weight
from leyline.policies.registry import BUILTINS

TASK = {"role": "user", "content": "Fix it. " * 40}
NEXT = {"role": "assistant", "content": "Next."}
LONG = "x" * 900


def call(call_id, name="view", **arguments):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def step(*ids, text=LONG, name="view"):
    made = {"role": "assistant", "content": None, "tool_calls": [call(i, name, path=i) for i in ids]}
    return [made, *({"role": "tool", "tool_call_id": i, "content": text} for i in ids)]


SPECS = {
    "keep_all": "keep_all",
    "truncate_older_than": "truncate_older_than(n=0, max_chars=20)",
    "drop_stale": "drop_stale",
    "drop_failed": "drop_failed(how='stub')",
    "dedupe": "dedupe(keep='first')",
    "keep_last": "keep_last(n=1)",
    "clear_over": "clear_over(trigger=1, keep=0, at_least=0)",
    "redact": "redact(pattern='x+')",
    "append_erratum": "append_erratum",
    "cost_aware": "cost_aware(truncate_older_than(n=0, max_chars=20))",
}
TAKES_OUT_OR_ADDS = {"redact", "append_erratum"}


@pytest.mark.parametrize("wrap", ["{}", "then({}, dedupe)", "when({}, every=2)", "with_mode({}, 'forget')"])
@pytest.mark.parametrize("mode", list(Mode))
@pytest.mark.parametrize("name", sorted(BUILTINS))
def test_what_the_model_has_not_seen_is_not_edited_and_nothing_gets_longer(name, mode, wrap):
    if name in TAKES_OUT_OR_ADDS and "with_mode" in wrap:
        return
    policy = load_policy(wrap.format(SPECS.get(name, name)))
    messages = [TASK, *step("a"), *step("a"), *step("b", "c", "d", "b")]
    edits = policy_edits(policy, messages, 3, mode)
    assert edits == policy.edits(messages, 3, mode)
    if name in TAKES_OUT_OR_ADDS:
        return
    for edit in edits:
        assert edit.message_index <= 5
        assert edit.replacement is None or weight(edit.replacement) <= weight(messages[edit.message_index])


@rule(roles="tool")
def cut(message, ctx):
    return {**message, "content": "cut"}


@rule(roles="user")
def cut_user(message, ctx):
    return {**message, "content": "cut"}


@rule(roles="tool")
def hide(message, ctx):
    return {**message, "content": message["content"].replace("secret", "[a secret that was taken out]")}


@rule(roles=["assistant", "tool"])
def drop_all(message, ctx):
    return DROP


def edited(policy, messages, mode=Mode.AMORTIZE):
    return {e.message_index for e in policy_edits(policy, messages, 2, mode)}


class Foreign:
    name = "foreign"

    def transform(self, messages, turn):
        return [{**m, "content": "cut"} if m["role"] == "tool" else m for m in messages]


@pytest.mark.parametrize("policy", [cut, Foreign()], ids=["rule", "foreign"])
def test_a_rule_edits_outputs_once_they_were_answered(policy):
    messages = [TASK, *step("a"), *step("b", "c")]
    assert edited(policy, messages) == {2}
    assert edited(policy, messages, Mode.FORGET) == {2}
    assert edited(policy, [*messages, NEXT]) == {2, 4, 5}


def test_a_user_message_behind_the_last_answer_is_new_too_but_instructions_are_not():
    messages = [TASK, *step("a"), NEXT, TASK]
    assert edited(cut_user, messages) == {0}
    system = rule(roles="system")(cut.function)
    assert edited(system, [*messages, {"role": "system", "content": LONG}]) == {5}
    assert edited(cut_user, [TASK]) == {0}  # before the first answer a rule may shorten the task, and the prefix stays


def test_a_rule_that_names_forget_takes_out_what_is_new_and_may_write_more():
    messages = [TASK, *step("a", text="my secret"), *step("b", text="a secret")]
    assert edited(hide, messages) == set()
    assert edited(hide(mode="forget"), messages) == {2, 4}
    assert edited(hide(mode="forget"), messages, Mode.FORGET) == {2, 4}
    assert edited(load_policy("redact(pattern='secret')"), messages, Mode.FORGET) == {2, 4}
    assert edited(load_policy("then(dedupe, redact(pattern='secret'))"), messages, Mode.FORGET) == {2, 4}


def test_an_exchange_is_dropped_whole_or_not_yet():
    messages = [TASK, *step("a"), *step("b", "c")]
    assert edited(drop_all, messages) == {1, 2}
    assert edited(drop_all, [*messages, NEXT]) == {1, 2, 3, 4, 5, 6}
    waiting = [TASK, *step("a", "b")[:2], NEXT, TASK]
    assert edited(drop_all(mode="forget"), waiting) == {3}


class Longer(ChangePolicy):
    def changes(self, messages, turn):
        return {i: {**m, "content": "more " * 300} for i, m in enumerate(messages)}


def test_longer_edits_are_not_made_wherever_they_are_asked_for():
    messages = [TASK, *step("a", text="x" * 2000), *step("b"), NEXT]
    assert edited(Longer(), messages) == {2}
    assert Longer().transform(messages, 3) == apply_edits(messages, Longer().edits(messages, 3))
    assert (
        edited(load_policy("truncate_older_than(n=0, max_chars=200)"), [TASK, *step("a", text="x" * 230), NEXT])
        == set()
    )


@pytest.mark.parametrize("place", ["content", "thinking_blocks", "reasoning_details"])
def test_signed_thinking_stays_as_it_came_or_goes_whole(place):
    thought = {"type": "thinking", "thinking": "my secret", "signature": "abc"}
    other = {"type": "thinking", "thinking": "no", "signature": "def"}
    answer = {**step("a")[0], place: [thought, other]}
    messages = [TASK, answer, step("a")[1], NEXT]

    def to(pieces):
        change = {1: {**answer, place: pieces}}
        return type("Change", (ChangePolicy,), {"changes": lambda self, m, turn: change})(mode="forget")

    assert edited(to([other]), messages) == {1}
    assert edited(to([]), messages) == {1}
    with pytest.raises(PolicyError, match="message 1: changes thinking that its API has signed"):
        edited(to([{**thought, "thinking": "my"}, other]), messages)
    redacted = load_policy("redact(pattern='secret')").transform(messages, 2)
    assert redacted[1][place] == [other]
    assert redacted[1]["tool_calls"] == answer["tool_calls"]


RESPONSES = [
    {"type": "message", "role": "user", "content": "Fix"},
    {"type": "function_call", "call_id": "c", "name": "v", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": LONG},
]
ANTHROPIC = [
    TASK,
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "v", "input": {}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": LONG}]},
]
FOREIGN = {
    "OpenAI's Responses API (function_call)": RESPONSES,
    "Anthropic's Messages API (tool_use)": ANTHROPIC,
    "Anthropic's Messages API (tool_result)": [TASK, ANTHROPIC[2]],
    "Bedrock's Converse API (toolUse)": [{"role": "assistant", "content": [{"toolUse": {"toolUseId": "t"}}]}],
    "Gemini's API (parts)": [{"role": "model", "parts": [{"functionCall": {"name": "v"}}]}],
    "the AI SDK (tool-call)": [{"role": "assistant", "content": [{"type": "tool-call", "toolCallId": "t"}]}],
    "ShareGPT": [{"from": "human", "value": "Fix"}],
    "no role": [{"content": "Fix"}],
    "is a str": ["Fix"],
    "tool_calls that are a str": [{"role": "assistant", "content": None, "tool_calls": "[]"}],
    "tool_calls that are a dict": [{"role": "assistant", "content": None, "tool_calls": {"0": {}}}],
    "a str as tool call 0": [{"role": "assistant", "content": None, "tool_calls": ["ls"]}],
}


@pytest.mark.parametrize("name", sorted(set(SPECS) & set(BUILTINS) - {"keep_all"}))
@pytest.mark.parametrize("form", FOREIGN)
def test_a_foreign_history_is_refused_by_name(form, name):
    policy, before = load_policy(SPECS[name]), copy.deepcopy(FOREIGN[form])
    for ask in (policy.transform, policy.edits, lambda m, turn: policy_edits(policy, m, turn)):
        with pytest.raises(PolicyError) as caught:
            ask(FOREIGN[form], 1)
        assert form in str(caught.value)
        assert policy.name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert FOREIGN[form] == before


def test_keep_all_never_looks():
    assert load_policy("keep_all").transform(ANTHROPIC, 1) == ANTHROPIC


def test_plain_histories_of_every_kind_are_read(dialects):
    thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "hi"}]
    parts = [{"role": "assistant", "content": thinking}, {"role": "user", "content": ["a", "b"]}]
    assert [foreign(messages) for messages in [*dialects.values(), parts]] == [None] * (len(dialects) + 1)


def test_outputs_that_are_objects_are_cut_as_their_json():
    messages = [TASK, *step("a", text={"stdout": LONG}), NEXT]
    new = load_policy("truncate_older_than(n=0, max_chars=20)").transform(messages, 2)[2]["content"]
    assert new.startswith('{"stdout":')
    assert len(new) < 70


def test_parts_that_are_bare_text_are_cut():
    messages = [TASK, *step("a", text=["y" * 300, "z" * 300]), NEXT]
    new = load_policy("truncate_older_than(n=0, max_chars=20)").transform(messages, 2)[2]["content"]
    assert len(new) == 1
    assert len(new[0]) < 70


def test_what_a_model_thought_in_parts_is_neither_text_nor_an_image():
    from leyline.directives.content import content_text, other_parts
    from leyline.policies.reading.sizes import approximate_tokens

    said = {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "hi"}]}
    assert content_text(said) == "hi"
    assert other_parts(said) == []
    assert approximate_tokens(said) < 20
