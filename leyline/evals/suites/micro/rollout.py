"""Episodes of the scripted agent under a policy: whole ones, and as documents to train on.

The views are what the policies themselves make of the history, so a model learns to read what it will be shown.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from leyline.directives import Message
from leyline.evals.suites.micro.env import MicroEnv
from leyline.evals.suites.micro.generate import make_task
from leyline.evals.suites.micro.mistakes import Mistakes
from leyline.evals.suites.micro.oracle import Oracle
from leyline.evals.suites.micro.task import MicroTask
from leyline.policies import Policy, load_policy


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


def episode(
    seed: int, level: str = "short", split: str = "train", policy: str | Policy | None = None, mistakes: float = 0.0
) -> Episode:
    """The scripted agent at the task of a seed. Deterministic. mistakes: 0 for an error-free run, 1 as training wants."""
    return attempt(make_task(seed, level, split), policy, mistakes)


def attempt(task: MicroTask, policy: str | Policy | None = None, mistakes: float = 0.0) -> Episode:
    """The scripted agent at a task. Ends unsolved where it runs out of turns or does not know on."""
    rule = load_policy(policy) if isinstance(policy, str) else policy
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
