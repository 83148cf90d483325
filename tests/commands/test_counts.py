"""What is counted is told in the singular where there is one of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from leyline.commands.rows import COUNTS, summary_text
from leyline.directives.counts import count
from leyline.harness.session.ledger import Ledger, LedgerError

ONE_OF_MANY = re.compile(
    r"(?<![\d,.])1 (?:[a-z]+ )?(?:edit|message|turn|prompt|trial|character|line|change|request)s\b"
)


@pytest.mark.parametrize(
    ("number", "words", "told"),
    [
        (0, ("edit",), "0 edits"),
        (1, ("edit",), "1 edit"),
        (1200, ("edit",), "1,200 edits"),
        (1, ("trial is", "trials are"), "1 trial is"),
        (2, ("trial is", "trials are"), "2 trials are"),
    ],
)
def test_count(number: int, words: tuple[str, ...], told: str) -> None:
    assert count(number, *words) == told


def test_the_totals_of_a_run() -> None:
    summary = {**dict.fromkeys(COUNTS, 1), "solved": 1, "tasks": 1, "seconds": 1.0, "hit_rate": 0.5, "fallbacks": {}}
    assert summary_text({**summary, "unscored": 0}).startswith("solved 1 of 1 in 1.0 s, 1 edit\n")
    none = {**summary, "solved": 0, "unscored": 1}
    assert summary_text(none).startswith("1 task without tests, so without a verdict in 1.0 s, 1 edit\n")
    some = {**summary, "tasks": 4, "unscored": 2}
    assert summary_text(some).startswith("solved 1 of 2; 2 tasks without tests, so without a verdict in 1.0 s")


@pytest.mark.parametrize("turns", [1, 3])
def test_a_policy_on_a_short_trajectory(leyline: Any, tmp_path: Path, turns: int) -> None:
    messages: list[dict[str, Any]] = [{"role": "user", "content": "go"}]
    for _ in range(turns):
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": "1", "content": "a\nb\nc\n" * 30})
    (tmp_path / "t.jsonl").write_text(json.dumps({"messages": messages[:-1]}) + "\n")
    policy = "truncate_older_than(n=0, max_chars=1)"
    done = leyline("policy", "test", policy, "--trace", tmp_path / "t.jsonl", "--lines", 1)
    assert done.code == 0, done.err
    assert f"{count(turns, 'turn')}\n" in done.out
    assert f"{count(max(0, turns - 2), 'edit')}; over {count(turns, 'prompt')} " in done.out
    assert not ONE_OF_MANY.search(done.out), done.out


def test_an_eval_of_one_trial(leyline: Any, tmp_path: Path) -> None:
    (tmp_path / "script.json").write_text('["Hm."]')
    arm = f"keep_all,backend=mock,model=m,options.script={tmp_path / 'script.json'}"
    done = leyline(
        "eval", "micro", "--arms", arm, "--tasks", 1, "--workers", 0, "--turns", 1, "--out", tmp_path / "run"
    )
    assert "1 trial is recorded in " in done.out
    assert "1 trial: 0 recorded, 1 to run" in done.err
    assert "1 turn " in done.err
    assert not ONE_OF_MANY.search(done.out + done.err)


def test_a_history_of_one_message() -> None:
    ledger = Ledger()
    ledger.commit(ledger.plan([{"role": "user", "content": "go"}], [], turn=0))
    with pytest.raises(LedgerError, match="has 1 message;"):
        ledger.unedit(3)


def test_kept_computed_is_what_append_only_prompts_compute() -> None:
    from leyline.commands.rows import comparison, kept_computed

    assert kept_computed([], []) is None
    assert kept_computed([10, 30], [4]) is None
    # 10 prompt tokens, 4 answered, 16 more; 5 answered, 7 more: what was generated is not prefilled
    assert kept_computed([10, 30, 42], [4, 5, 9]) == 10 + 16 + 7
    assert comparison(None, 1640, 927) == ("computed tokens: 1,640 with these edits on an ordinary cache, 927 spliced")
