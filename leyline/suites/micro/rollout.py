"""Episodes of the scripted agent under a policy, and the check that every task can be solved under each of them.

The views are what the policies themselves make of the history, so a model learns to read what it will be shown.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from dataclasses import dataclass

from leyline.directives import Message
from leyline.policies import Policy, load_policy
from leyline.policies.registry import BUILTINS
from leyline.suites.micro.env import MicroEnv
from leyline.suites.micro.mistakes import Mistakes
from leyline.suites.micro.oracle import Oracle
from leyline.suites.micro.task import MicroTask


@dataclass(frozen=True)
class Turn:
    """One assistant turn.

    index: its message in the episode; action: the tool it calls; correct: false for a wrong turn, which nobody should
    learn; view: the edited messages it saw, None where that is the whole history before it.
    """

    index: int
    action: str
    correct: bool
    view: Sequence[Message] | None


@dataclass(frozen=True)
class Episode:
    """A finished attempt. messages: the unedited history, in native tool calls; solved: hidden tests pass."""

    task: MicroTask
    policy: str | None
    messages: Sequence[Message]
    turns: Sequence[Turn]
    solved: bool


def attempt(task: MicroTask, policy: str | Policy | None = None, mistakes: float = 0.0) -> Episode:
    """The scripted agent at a task. Ends unsolved where it runs out of turns or does not know on."""
    rule = _loaded(policy) if isinstance(policy, str) else policy
    env, oracle = MicroEnv(task), Oracle(task)
    stumble = Mistakes(task, random.Random(f"{task.id}/{policy}/{mistakes}"), mistakes) if mistakes else None
    messages: list[Message] = list(env.messages)
    turns: list[Turn] = []
    while len(turns) < task.budget:
        view = messages if rule is None else rule.transform(messages, len(turns))
        files = env.files
        action = oracle.relabel(view, files)
        if action is None:
            break
        wrong = stumble.instead_of(action, files) if stumble else None
        action = wrong or action
        turns.append(Turn(len(messages), action.name, wrong is None, None if rule is None else view))
        call_id = f"call_{len(turns)}"
        messages.append(action.message(call_id))
        text = env.call(action.name, action.arguments)
        messages.append({"role": "tool", "tool_call_id": call_id, "content": text})
        if env.done:
            return Episode(task, None if policy is None else str(policy), messages, turns, env.solved())
    return Episode(task, None if policy is None else str(policy), messages, turns, False)


_SETTINGS = {"redact": "redact(pattern='sk-[A-Za-z0-9]+')"}
CHECKED = (None, *(_SETTINGS.get(name, name) for name in BUILTINS if name != "keep_all"))
"""Every built-in policy with its default settings (`redact` has none); None is `keep_all`."""


def characters(run: Episode) -> int:
    """The length of the messages of an episode, tool calls included."""
    return sum(len(m.get("content") or "") + sum(map(_length, m.get("tool_calls") or ())) for m in run.messages)


def solvable(run: Episode) -> bool:
    """Whether the scripted agent solves a task without a wrong turn under every built-in policy.

    run: the episode with nothing edited; a policy that leaves it alone needs no episode of its own.
    """
    if not run.solved:
        return False
    policies = (_loaded(spec) for spec in CHECKED if spec is not None)
    return all(_untouched(run, policy) or attempt(run.task, policy).solved for policy in policies)


def _untouched(run: Episode, policy: Policy) -> bool:
    histories = ((number, run.messages[: turn.index]) for number, turn in enumerate(run.turns))
    return all(policy.transform(history, number) == list(history) for number, history in histories)


def _length(call: dict[str, dict[str, str]]) -> int:
    return len(call["function"]["name"]) + len(call["function"]["arguments"])


@functools.lru_cache(maxsize=256)
def _loaded(spec: str) -> Policy:
    return load_policy(spec)
