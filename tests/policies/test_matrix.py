"""Every built-in through every combinator, over histories of every dialect."""

from __future__ import annotations

import copy

import pytest

from leyline.directives import Mode, apply_edits
from leyline.policies import BasePolicy, load_policy, policy_edits
from leyline.policies.reading.calls import groups
from leyline.policies.registry import BUILTINS

SPECS = {
    "keep_all": "keep_all",
    "truncate_older_than": "truncate_older_than(n=1, max_chars=60)",
    "drop_stale": "drop_stale",
    "drop_failed": "drop_failed",
    "dedupe": "dedupe",
    "keep_last": "keep_last(n=2)",
    "clear_over": "clear_over(trigger=300, keep=1, at_least=50)",
    "redact": r"redact(pattern='sk-\w+')",
    "append_erratum": "append_erratum",
}
COMBINATORS = {
    "plain": "{}",
    "then": "then(drop_failed, {}, truncate_older_than(n=3, max_chars=40))",
    "before redact": "then({}, redact(pattern='sk-[a-z0-9]+', replacement='***'))",
    "when": "when({}, min_turn=2, every=3)",
    "when over": "when({}, over=200)",
    "protect tools": "protect({}, tools=['edit', 'grep'], last=1)",
    "protect files": "protect({}, files='m.*')",
    "with_mode": "with_mode({}, mode='forget')",
    "cost_aware": "cost_aware({})",
    "cost_aware, prefilled": "cost_aware({}, splice=False, turns=3)",
    "freeze": "freeze({}, every=3, behind=1)",
    "at_arrival": "at_arrival({})",
    "nested": "then(protect(when({}, min_turn=1), last=2), dedupe)",
}


def test_every_builtin_is_in_the_matrix():
    assert set(SPECS) == set(BUILTINS)


def check(policy, messages):
    """Purity, determinism, agreement of edits and transform, and whole pairs; for every turn of the history."""
    ends = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    for turn, end in enumerate([*ends, len(messages)]):
        prompt = messages[:end]
        before = copy.deepcopy(prompt)
        edits = policy_edits(policy, prompt, turn)
        assert edits == policy_edits(policy, copy.deepcopy(prompt), turn)
        assert policy.transform(prompt, turn) == apply_edits(prompt, edits)
        assert prompt == before
        dropped = {e.message_index for e in edits if e.replacement is None}
        for group in groups(prompt):
            assert dropped.isdisjoint(group) or dropped.issuperset(group)
        kept = {e.message_index: e.replacement for e in edits if e.replacement is not None and not e.insert}
        for index, replacement in kept.items():
            assert replacement["role"] == prompt[index]["role"]
            assert replacement.get("tool_call_id") == prompt[index].get("tool_call_id")


@pytest.mark.parametrize("combinator", COMBINATORS)
@pytest.mark.parametrize("name", SPECS)
def test_matrix(name, combinator, history):
    policy = load_policy(COMBINATORS[combinator].format(SPECS[name]))
    assert isinstance(policy, BasePolicy)
    assert load_policy(str(policy)) == policy
    check(policy, history)


@pytest.mark.parametrize("name", SPECS)
def test_idempotent(name, history):
    policy = load_policy(SPECS[name])
    turn = sum(m["role"] == "assistant" for m in history)
    once = policy.transform(history, turn)
    assert policy.transform(once, turn) == once


@pytest.mark.parametrize("dialect", ["native", "text", "written"])
@pytest.mark.parametrize("name", SPECS)
def test_every_builtin_edits_every_dialect(name, dialect, dialects):
    edits = load_policy(SPECS[name]).edits(dialects[dialect], turn=9)
    # Nothing is repeated word for word in the shortest one.
    assert bool(edits) == (name != "keep_all" and (name, dialect) != ("dedupe", "written"))


@pytest.mark.parametrize("name", SPECS)
def test_mode(name, dialects):
    wanted = Mode.FORGET if name == "redact" else Mode.AMORTIZE
    messages = dialects["text"]
    policy = load_policy(SPECS[name])
    assert {e.mode for e in policy_edits(policy, messages, 9)} <= {wanted}
    assert {e.mode for e in policy_edits(policy, messages, 9, Mode.FORGET)} <= {Mode.FORGET}
    forgetting = load_policy(f"with_mode({SPECS[name]}, 'forget')")
    assert {e.mode for e in policy_edits(forgetting, messages, 9)} <= {Mode.FORGET}


@pytest.mark.shared
@pytest.mark.parametrize("name", SPECS)
def test_recorded_trajectories(name, shared_traces):
    policy = load_policy(SPECS[name])
    for messages in shared_traces:
        turn = sum(m["role"] == "assistant" for m in messages)
        before = copy.deepcopy(messages)
        edits = policy_edits(policy, messages, turn)
        once = apply_edits(messages, edits)
        assert policy_edits(policy, messages, turn) == edits
        assert messages == before
        assert policy.transform(once, turn) == once


@pytest.mark.shared
@pytest.mark.parametrize("combinator", COMBINATORS)
def test_recorded_trajectories_through_combinators(combinator, shared_traces):
    for name in SPECS:
        policy = load_policy(COMBINATORS[combinator].format(SPECS[name]))
        check(policy, shared_traces[2][:60])
        for messages in shared_traces[::10]:
            policy_edits(policy, messages, turn=len(messages) // 2)
