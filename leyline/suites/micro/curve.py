"""How hard the levels are, measured with the scripted agent: size, turns, and the context an error-free run needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import mean

from leyline.directives import Message
from leyline.suites.micro.corpus import ASSISTANT_HEAD, render
from leyline.suites.micro.generate import make_task
from leyline.suites.micro.rollout import Episode, attempt

TRAINED = 8192  # positions that the bundled agents were trained on


@dataclass(frozen=True)
class Row:
    """One level under one policy, over `tasks` tasks; means, unless it says otherwise.

    context: tokens of the longest prompt with its answer; context_max: the largest one; beyond: share of tasks whose
    context is longer than what the bundled agents were trained on; read: tokens of all prompts together; failing: tests
    that fail at first.
    """

    level: str
    policy: str
    tasks: int
    solved: int
    bugs: float
    modules: float
    lines: float
    failing: float
    turns: float
    context: float
    context_max: int
    beyond: float
    read: float

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


def measure(
    level: str, split: str, seeds: Iterable[int], policies: Sequence[str], count: Callable[[str], int]
) -> list[Row]:
    """Rows of a level, one a policy. count: the tokens of a text."""
    tasks = [make_task(seed, level, split) for seed in seeds]
    rows = []
    for policy in policies:
        runs = [attempt(task, policy) for task in tasks]
        sizes = [_sizes(run, count) for run in runs]
        peaks = [max(s) for s in sizes]
        rows.append(
            Row(
                level=level,
                policy=policy,
                tasks=len(tasks),
                solved=sum(run.solved for run in runs),
                bugs=mean(len(t.bugs) for t in tasks),
                modules=mean(len(t.modules) for t in tasks),
                lines=mean(sum(text.count("\n") for text in t.files.values()) for t in tasks),
                failing=mean(_failing(run) for run in runs),
                turns=mean(len(run.turns) for run in runs),
                context=mean(peaks),
                context_max=max(peaks),
                beyond=mean(peak > TRAINED for peak in peaks),
                read=mean(sum(s) for s in sizes),
            )
        )
    return rows


def _sizes(run: Episode, count: Callable[[str], int]) -> list[int]:
    """Tokens of prompt and answer, by turn."""
    known: dict[str, int] = {}

    def tokens(messages: Sequence[Message]) -> int:
        total = 0
        for message in messages:
            text = render([message])
            if text not in known:
                known[text] = count(text)
            total += known[text]
        return total

    head = count(ASSISTANT_HEAD)
    return [
        tokens(run.messages[: t.index] if t.view is None else t.view) + tokens([run.messages[t.index]]) + head
        for t in run.turns
    ]


def _failing(run: Episode) -> int:
    """Tests that fail in the first report."""
    first = next(m["content"] for m in run.messages if m["role"] == "tool")
    words = first.rstrip().rpartition("\n")[2].replace("=", "").split()
    return int(words[words.index("failed,") - 1]) if "failed," in words else 0
