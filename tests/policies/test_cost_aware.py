"""cost_aware: an edit waits until it pays, a FORGET never does."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from leyline.directives import Costs
from leyline.policies import PolicyError, load_policy

CUT = "truncate_older_than(n=1, max_chars=200)"


def session(turns: int, *, output: int = 40_000, last: int | None = None) -> list[dict[str, Any]]:
    """A history of `turns` answers, each followed by an output of so many characters."""
    history: list[dict[str, Any]] = [{"role": "user", "content": "Fix it."}]
    for index in range(turns):
        size = last if last is not None and index == turns - 1 else output
        history += [
            {"role": "assistant", "content": "I look. " * 50},
            {"role": "tool", "content": f"{index} " * (size // 2)},
        ]
    return history


def edited(spec: str, history: list[dict[str, Any]], turn: int) -> list[int]:
    return [edit.message_index for edit in load_policy(spec).edits(history, turn)]


def test_a_server_that_moves_is_edited_at_once_and_one_that_prefills_later() -> None:
    history = session(6)
    assert edited(f"cost_aware({CUT})", history, 6) == edited(CUT, history, 6) == [2, 4, 6, 8, 10]
    waits = f"cost_aware({CUT}, splice=False, turns=1)"
    assert edited(waits, history, 6) == []


def test_it_waits_until_enough_is_shed_and_what_was_made_stays() -> None:
    policy = load_policy(f"cost_aware({CUT}, splice=False, turns=12)")
    history = session(30, output=20_000)
    made: list[set[int]] = []
    for turn in range(31):
        past = history[: 1 + 2 * turn]
        made.append({edit.message_index for edit in policy.edits(past, turn)})
    assert made[2] == set(), "the first cut cannot pay"
    assert made[30], "in the end it pays"
    assert all(a <= b for a, b in itertools.pairwise(made)), "an edit was taken back"
    steps = sum(a != b for a, b in itertools.pairwise(made))
    at_once = [{e.message_index for e in load_policy(CUT).edits(history[: 1 + 2 * t], t)} for t in range(31)]
    assert steps < sum(a != b for a, b in itertools.pairwise(at_once)), "nothing was made together"
    assert {edit.message_index for edit in load_policy(str(policy)).edits(history, 30)} == made[30], "not pure"


def test_the_horizon_decides() -> None:
    history = session(20)
    counts = [len(edited(f"cost_aware({CUT}, splice=False, turns={t})", history, 20)) for t in (1, 10, 1000)]
    assert counts == sorted(counts)
    assert counts[0] < counts[2] == 19


def test_a_forget_and_an_insertion_do_not_wait() -> None:
    history = session(3)
    history[2]["content"] = "the key is sk-abc " + history[2]["content"]
    assert edited(r"cost_aware(redact(pattern='sk-\\w+'), splice=False, turns=1)", history, 3) == [2]
    erratum = r"cost_aware(append_erratum, splice=False, turns=1)"
    assert edited(erratum, history, 3) == edited("append_erratum", history, 3)


def test_a_call_and_its_output_go_together() -> None:
    history: list[dict[str, Any]] = [{"role": "user", "content": "Fix it."}]
    for index in range(12):
        call = {"id": f"c{index}", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
        history += [
            {"role": "assistant", "content": "x" * 30_000 if index % 2 else "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": f"c{index}", "content": "y" * (10 if index % 2 else 30_000)},
        ]
    for turns in range(1, 60, 4):
        dropped = edited(f"cost_aware(keep_last(n=1), splice=False, turns={turns})", history, 12)
        assert all((index + 1 in dropped) == (index in dropped) for index in range(1, 25, 2))


def test_costs_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "costs.json"
    Costs(forward=0, token=0, pair=1e-6, hole=0, move=0, byte=0).save(path)
    free = f"cost_aware({CUT}, costs={str(path)!r}, turns=1)"
    assert edited(free, session(3), 3) == edited(CUT, session(3), 3)
    path.write_text("no")
    with pytest.raises(PolicyError, match="leyline bench calibrate"):
        load_policy(free)


@pytest.mark.parametrize("arguments", ["splice=1", "turns=-1", "costs=5", "turns=1.5"])
def test_bad_settings_say_what_to_write(arguments: str) -> None:
    with pytest.raises(PolicyError, match=arguments.partition("=")[0]):
        load_policy(f"cost_aware(keep_all, {arguments})")
