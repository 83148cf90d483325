"""What an edit policy has to beat: edits that are made rarely and stay, and outputs that are short from the start."""

from __future__ import annotations

import pickle
from typing import Any

from leyline.directives import apply_edits
from leyline.policies import load_policy, policy_edits

LONG = "0123456789" * 30


def history(turns: int) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
    for k in range(turns):
        messages.append({"role": "assistant", "content": f"step {k}"})
        messages.append({"role": "user", "content": f"{k} {LONG}"})
    return messages


def prompts(spec: str, turns: int) -> list[list[dict[str, Any]]]:
    policy, whole = load_policy(spec), history(turns)
    return [apply_edits(whole[: 2 * t + 1], policy_edits(policy, whole[: 2 * t + 1], t)) for t in range(turns + 1)]


def test_frozen_edits_break_the_prefix_once_a_batch_and_are_not_made_again() -> None:
    sent = prompts("freeze(truncate_older_than(n=0, max_chars=60), every=5, behind=2)", 21)
    broken = [t for t in range(1, 22) if sent[t][: len(sent[t - 1])] != sent[t - 1]]
    assert broken == [5, 10, 15, 20]
    assert all(len(m["content"]) > 200 for m in sent[21][-3:] if m["role"] == "user")


def test_what_is_cut_at_arrival_never_breaks_the_prefix() -> None:
    sent = prompts("at_arrival(truncate_older_than(n=0, max_chars=60))", 12)
    assert all(sent[t][: len(sent[t - 1])] == sent[t - 1] for t in range(1, 13))
    assert all(len(m["content"]) < 120 for m in sent[12][1:])


def test_both_are_functions_of_the_history_alone_and_travel_to_workers() -> None:
    for spec in ("freeze(drop_failed, every=2, behind=0)", "at_arrival(truncate_older_than(n=0, max_chars=60))"):
        used, fresh, whole = load_policy(spec), load_policy(spec), history(9)
        for turn in (3, 9, 4, 0, 9):
            part = whole[: 2 * turn + 1]
            assert policy_edits(used, part, turn) == policy_edits(load_policy(spec), part, turn)
        assert str(pickle.loads(pickle.dumps(fresh))) == str(fresh)
