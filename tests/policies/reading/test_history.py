"""What is remembered of messages never differs from what a fresh look at them gives."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from leyline.directives import Mode, apply_edits
from leyline.policies import calls, load_policy, policy_edits, rule
from leyline.policies.reading.history import History, Memory, memory

Message = dict[str, Any]
SPECS = [
    *("truncate_older_than(n=1, max_chars=60)", "drop_stale", "drop_failed", "dedupe", "keep_last(n=2)"),
    *("clear_over(trigger=300, keep=1, at_least=50)", r"redact(pattern='sk-\w+')", "append_erratum"),
    *("freeze(drop_stale, every=2, behind=1)", "at_arrival(truncate_older_than(n=0, max_chars=60))"),
    *("cost_aware(drop_stale, splice=False, turns=3)", "then(drop_stale, drop_failed, keep_last(n=4))"),
    *("protect(drop_stale, last=1, files='m.*')", "when(drop_stale, over=200, every=2)"),
]
COMMANDS = [
    "cat m.py",
    "cat n.py",
    "sed -n '1,9p' m.py",
    "sed -i 's/a/b/' m.py",
    "pytest",
    "pytest -k x",
    "ls",
    "grep x",
]
OUTPUTS = ["", "Error: no such file", "exit code: 1", "sk-secret found", *("line of code\n" * k for k in (1, 9, 30))]


def call(rng: random.Random, number: int) -> Message:
    name, arguments = rng.choice(
        [
            ("bash", {"command": rng.choice(COMMANDS)}),
            ("view", {"path": rng.choice(["m.py", "n.py"]), "start": rng.choice([1, 2]), "end": 9}),
            ("edit", {"path": "m.py", "flag": rng.choice([1, True, 1.0])}),
        ]
    )
    given = arguments if rng.random() < 0.2 else json.dumps(arguments)
    return {"id": f"c{rng.choice([number, 0])}", "type": "function", "function": {"name": name, "arguments": given}}


def step(rng: random.Random, number: int) -> list[Message]:
    if rng.random() < 0.2:
        text = f"I look.\n```bash\n{rng.choice(COMMANDS)}\n```"
        return [{"role": "assistant", "content": text}, {"role": "user", "content": rng.choice(OUTPUTS)}]
    made = [call(rng, 10 * number + k) for k in range(rng.choice([1, 1, 2, 3]))]
    results = [
        {"role": "tool", "tool_call_id": one["id"], "content": content(rng)} for one in made if rng.random() < 0.95
    ]
    return [{"role": "assistant", "content": None, "tool_calls": made}, *results]


def content(rng: random.Random) -> Any:
    text = rng.choice(OUTPUTS)
    return [{"type": "text", "text": text}] if rng.random() < 0.1 else text


def mutate(rng: random.Random, messages: list[Message]) -> None:
    """Change a message in place, as a harness may."""
    message = rng.choice(messages)
    made = message.get("tool_calls")
    if made and isinstance(made[0]["function"]["arguments"], dict):
        made[0]["function"]["arguments"]["path"] = rng.choice(["m.py", "o.py"])
    elif made:
        made[0]["function"]["arguments"] = call(rng, 7)["function"]["arguments"]
    elif isinstance(message["content"], list):
        message["content"][0]["text"] += "more"
    else:
        message["content"] = content(rng)


def forget() -> None:
    memory.clear()


def asked(spec: str, seed: int, before: Callable[[], None], *, anew: bool) -> list[Any]:
    """The edits of a policy in each turn of a history that grows and is changed."""
    rng, messages, found = random.Random(seed), [{"role": "user", "content": "Fix m.py. sk-abc"}], []
    policy = load_policy(spec)
    for number in range(rng.randint(2, 7)):
        messages += step(rng, number)
        if rng.random() < 0.3:
            mutate(rng, messages)
        before()
        policy = load_policy(spec) if anew else policy
        turn = sum(message["role"] == "assistant" for message in messages)
        mode = rng.choice(list(Mode))
        edits = policy_edits(policy, messages, turn, mode)
        found.append(copy.deepcopy(edits))
        if rng.random() < 0.2:  # its own edits handed back
            messages = apply_edits(messages, edits)
        for edit in edits:  # a caller owns what it was given
            if edit.replacement is not None:
                for value in edit.replacement.values():
                    if isinstance(value, list) and value and isinstance(value[0], dict):
                        value[0]["changed"] = True
    return found


@pytest.mark.parametrize("spec", SPECS)
@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_a_history_that_was_read_before_is_edited_as_one_that_was_not(spec: str, seed: int) -> None:
    assert asked(spec, seed, lambda: None, anew=False) == asked(spec, seed, forget, anew=True)


def test_a_message_that_is_changed_in_place_is_read_again() -> None:
    messages: list[Message] = [{"role": "user", "content": "go"}]
    for number in range(6):
        messages += [{"role": "assistant", "content": "a"}, {"role": "user", "content": f"{number} " + "x" * 300}]
    policy = load_policy("freeze(truncate_older_than(n=0, max_chars=60), every=2, behind=1)")
    policy_edits(policy, messages, 6)
    messages[2]["content"] = "y" * 300
    edits = policy_edits(policy, messages, 6)
    assert edits[0].message_index == 2
    assert "yyy" in edits[0].replacement["content"]
    assert edits == policy_edits(load_policy(str(policy)), messages, 6)


def test_values_that_compare_equal_are_not_taken_for_one_another() -> None:
    for one, other in [(1, True), (0.0, -0.0), (1, 1.0), ([1], (1,)), (None, "None")]:
        first, second = memory.facts([{"role": "x", "a": one}, {"role": "x", "a": other}])
        assert first is not second
    [odd], [again] = memory.facts([{"role": "x", "a": {1, 2}}]), memory.facts([{"role": "x", "a": {1, 2}}])
    assert odd is not again  # a value whose content is not seen is looked at each time


def test_what_a_caller_is_given_is_its_own() -> None:
    messages = step(random.Random(3), 1)
    before = copy.deepcopy(calls(messages))
    for made in calls(messages):
        made.arguments["changed"] = True
    assert calls(messages) == before


def test_the_memory_is_bounded_by_the_text_that_it_holds() -> None:
    kept = Memory(limit=10_000)
    facts = [kept.facts([{"role": "tool", "content": f"{k} " + "x" * 1000}])[0] for k in range(50)]
    assert kept.facts([{"role": "tool", "content": "49 " + "x" * 1000}])[0] is facts[-1]
    assert kept.facts([{"role": "tool", "content": "0 " + "x" * 1000}])[0] is not facts[0]


def test_a_policy_of_a_user_gets_a_copy_of_its_own_even_as_a_subclass_of_a_built_in() -> None:
    from leyline.policies.builtin.truncate_older_than import TruncateOlderThan

    class Careless(TruncateOlderThan):
        def changes(self, messages: Any, turn: int) -> Any:
            messages[0]["content"] = "gone"
            return {0: messages[0]}

    @rule(roles="user")
    def careless(message: Message, ctx: Any) -> Message:
        ctx.messages[0]["content"] = message["content"] = "gone"
        return message

    for policy in (Careless(), careless):
        messages = History([{"role": "user", "content": "a longer text"}, {"role": "assistant", "content": "a"}])
        edits = policy_edits(policy, messages, 1)
        assert messages[0]["content"] == "a longer text"
        assert edits[0].replacement == {"role": "user", "content": "gone"}


def test_a_turn_costs_no_more_where_many_views_stand_open() -> None:
    """Ten times as long a history takes about ten times as many steps, whatever stands in it."""

    def comparisons(steps: int) -> int:
        history: list[Message] = []
        for number in range(steps):
            function = {"name": "view", "arguments": json.dumps({"path": f"src/part_{number}.py"})}
            history.append({"role": "assistant", "tool_calls": [{"id": f"c{number}", "function": function}]})
            history.append({"role": "tool", "tool_call_id": f"c{number}", "content": "x"})
        seen = 0
        from leyline.policies.reading import shell, stale

        plain = shell.View.covers

        def counted(self: Any, other: Any) -> bool:
            nonlocal seen
            seen += 1
            return plain(self, other)

        shell.View.covers = counted  # type: ignore[method-assign]
        try:
            stale.stale_outputs(history)
        finally:
            shell.View.covers = plain  # type: ignore[method-assign]
        return seen

    assert comparisons(300) <= 300
