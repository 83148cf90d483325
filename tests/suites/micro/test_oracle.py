"""The scripted agent solves every task under every policy, and acts on nothing that it does not see."""

from __future__ import annotations

import json
import random
import re

import pytest

from leyline.directives.content import content_text
from leyline.policies import load_policy
from leyline.policies.registry import BUILTINS
from leyline.suites import micro
from leyline.suites.micro.env import MicroEnv
from leyline.suites.micro.mistakes import Mistakes
from leyline.suites.micro.oracle import Oracle
from leyline.suites.micro.repair import file_repairs, lines_of
from leyline.suites.micro.rollout import CHECKED, Episode, attempt

HARSH = (
    "keep_last(n=1)",
    "truncate_older_than(n=1, max_chars=60)",
    "clear_over(trigger=300, keep=1, at_least=1)",
    "then(drop_stale, truncate_older_than(n=1, max_chars=100))",
)


def test_every_built_in_policy_is_checked() -> None:
    checked = {"keep_all" if spec is None else spec.partition("(")[0] for spec in CHECKED}
    assert checked == set(BUILTINS)


@pytest.mark.parametrize("policy", [*CHECKED, *HARSH])
@pytest.mark.parametrize(("level", "split"), [("short", "train"), ("long", "unseen"), ("xlong", "seen")])
def test_solves_under_every_policy(policy: str | None, level: str, split: str) -> None:
    for seed in range(20, 23 if level == "short" else 21):
        run = attempt(micro.make_task(seed, level, split), policy)
        assert run.solved
        assert all(turn.correct for turn in run.turns)
        assert len(run.turns) <= run.task.budget / 2


@pytest.mark.parametrize("policy", [None, "truncate_older_than", "drop_stale", "keep_last(n=2)"])
def test_comes_back_from_wrong_turns(policy: str | None) -> None:
    runs = [attempt(micro.make_task(seed, "short", "train"), policy, mistakes=4.0) for seed in range(30)]
    wrong = sum(not turn.correct for run in runs for turn in run.turns)
    assert wrong > 30
    for run in runs:
        # A wrong change may pass the visible tests; then nothing tells that it is wrong.
        assert run.solved or run.turns[-1].action == "submit", run.task.id
    assert sum(run.solved for run in runs) >= 25


def shown(view: list[dict[str, object]]) -> set[tuple[int, str]]:
    """Every `line|text` in the outputs of a view, and the lines that its edits wrote."""
    lines = set()
    for message in view:
        if message["role"] == "tool":
            lines |= {(int(n), text) for n, text in re.findall(r"^(\d+)\|(.*)$", content_text(message), re.M)}
    return lines


@pytest.mark.parametrize("policy", ["keep_all", "truncate_older_than", "drop_stale", *HARSH])
def test_edits_only_lines_that_it_sees(policy: str) -> None:
    edits = 0
    for seed, level in ((1, "short"), (2, "short"), (3, "long")):
        run = attempt(micro.make_task(seed, level, "train"), policy, mistakes=2.0)
        for turn in run.turns:
            if turn.action != "edit" or not turn.correct:
                continue
            edits += 1
            call = run.messages[turn.index]
            line = int(re.search(r'"line": (\d+)', call["tool_calls"][0]["function"]["arguments"])[1])
            quoted = re.search(r"`(.*)`\.$", call["content"])[1]
            assert any(n == line and text.strip() == quoted for n, text in shown(turn.view)), call["content"]
    assert edits >= 5


@pytest.mark.parametrize("stub", ["", "[output cleared to save context]", "x\n[... 90 characters removed ...]\nx"])
def test_without_outputs_it_never_edits_or_submits(stub: str) -> None:
    run = attempt(micro.make_task(4, "long", "train"))
    oracle, env = Oracle(run.task), MicroEnv(run.task)
    for turn in run.turns:
        view = [{**m, "content": stub} if m["role"] == "tool" else m for m in run.messages[: turn.index]]
        action = oracle.relabel(view, env.files)
        assert action is not None
        assert action.name not in ("edit", "submit")


def wander(task: micro.MicroTask, rng: random.Random) -> tuple[list[dict[str, object]], MicroEnv]:
    """A history of mostly wrong turns, as a bad learner makes them."""
    env, oracle, mistakes = MicroEnv(task), Oracle(task), Mistakes(task, rng, 1e9)
    messages = list(env.messages)
    for number in range(rng.randint(1, 9)):
        action = oracle.relabel(messages, env.files)
        assert action is not None
        mistakes._left = 9
        action = mistakes.instead_of(action, env.files) or action if rng.random() < 0.7 else action
        messages.append(action.message(f"call_{number}"))
        text = env.call(action.name, action.arguments)
        messages.append({"role": "tool", "tool_call_id": f"call_{number}", "content": text})
        if env.done:
            break
    return messages, env


def finish(messages: list[dict[str, object]], env: MicroEnv, policy: str, turns: int = 60) -> bool:
    oracle, rule = Oracle(env.task), load_policy(policy)
    for number in range(turns):
        action = oracle.relabel(rule.transform(messages, number), env.files)
        if action is None:
            return False
        messages.append(action.message(f"late_{number}"))
        text = env.call(action.name, action.arguments)
        messages.append({"role": "tool", "tool_call_id": f"late_{number}", "content": text})
        if env.done:
            return True
    return False


@pytest.mark.parametrize("policy", ["keep_all", "truncate_older_than", "keep_last(n=1)"])
def test_relabels_any_state(policy: str) -> None:
    """From wherever a learner got, the oracle leads to passing tests."""
    rng = random.Random(policy)
    for seed in range(12):
        messages, env = wander(micro.make_task(seed, "short", "train"), rng)
        if not env.done:
            assert finish(messages, env, policy), (seed, [content_text(m)[:300] for m in messages[-6:]])
            report, passed = env.task.evaluate(env.files, 1)
            assert passed, report


def test_relabels_after_damage() -> None:
    """Headers gone, code doubled, files that do not load: the repair still gets there."""
    rng = random.Random(7)
    for seed in range(12):
        task = micro.make_task(seed, "short", "train")
        env = MicroEnv(task)
        path = task.modules[0]
        for _ in range(3):
            count = len(lines_of(env.files[path]))
            code = rng.choice(["", "def f(:", "x = 1\ny = 2", "        pass", "class A:"])
            env.call("edit", {"path": path, "line": rng.randint(1, count), "new_code": code})
        assert finish(list(env.messages), env, "keep_all"), (seed, env.files[path])


def test_relabels_whatever_a_model_says() -> None:
    """Junk calls, calls of several tools at once, answers without a call: never an error, and a way on."""
    rng = random.Random(8)
    for seed in range(15):
        env = MicroEnv(micro.make_task(seed, "short", "train"))
        oracle, messages = Oracle(env.task), list(env.messages)
        paths = [*env.files, "nowhere.py", 7, None, ["a"]]
        numbers = [1, 2, 9, 40, "3", "x", -1, None, 1e400, {}]
        codes = ["", "x", "def f(:", "    return 1\n", 5, None, "    pass"]
        for number in range(12):
            calls = []
            for part in range(rng.choice([0, 1, 1, 1, 2])):
                name = rng.choice(["view", "grep", "edit", "edit", "eval", "bash", ""])
                drawn = {"path": rng.choice(paths), "line": rng.choice(numbers), "new_code": rng.choice(codes)}
                drawn |= {"start": rng.choice(numbers), "end": rng.choice(numbers), "pattern": rng.choice(["def", 3])}
                text = rng.choice([json.dumps(drawn), json.dumps(drawn), "{", "[]", "{}"])
                calls.append({"id": f"c{number}.{part}", "function": {"name": name, "arguments": text}})
            thought = rng.choice(
                ["", "check nothing.", "nowhere.py line 3 does not load.", f"check {env.task.program[0].name}."]
            )
            messages.append({"role": "assistant", "content": thought, **({"tool_calls": calls} if calls else {})})
            if not calls:
                messages.append({"role": "user", "content": "Error: no valid tool call."})
            for call in calls:
                output = env.call(call["function"]["name"], call["function"]["arguments"])
                messages.append({"role": "tool", "tool_call_id": call["id"], "content": output})
            assert oracle.relabel(messages, env.files) is not None
        assert finish(messages, env, "keep_all")


def test_repairs_end_at_the_reference() -> None:
    rng = random.Random(9)
    for _ in range(60):
        right = "\n".join(rng.choice("abcdef") for _ in range(8)) + "\n"
        now = "\n".join(rng.choice("abcdef") for _ in range(rng.randint(1, 11))) + "\n"
        for _ in range(40):
            repairs = file_repairs({"m.py": now}, "m.py", right)
            if not repairs:
                break
            lines = lines_of(now)
            assert lines[repairs[0].line - 1] == repairs[0].old
            new = repairs[0].new.split("\n") if repairs[0].new else []
            lines[repairs[0].line - 1 : repairs[0].line] = new
            now = "\n".join(lines) + "\n"
        assert now == right


def test_episodes_are_deterministic() -> None:
    def texts(run: Episode) -> list[str]:
        return [content_text(m) for m in run.messages]

    task = micro.make_task(5, "short", "train")
    assert texts(attempt(task, None, 1.0)) == texts(attempt(task, None, 1.0))
