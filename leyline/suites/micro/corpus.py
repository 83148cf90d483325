"""Training documents: what a model reads, piece by piece, with what it is to learn of each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from leyline.directives import Message
from leyline.directives.hermes import block
from leyline.policies import Policy
from leyline.suites.micro.generate import make_task
from leyline.suites.micro.rollout import Episode, Turn, attempt

ASSISTANT_HEAD = "<|im_start|>assistant\n"
NOTHING, ASSISTANT, TOOL = 0, 1, 2
LEVELS = (("short", 0.5), ("long", 0.35), ("xlong", 0.15))
OTHER_TURNS = 0.3  # share of an edited episode's turns that may become documents, beside the edits
MOST_TURNS = 3  # documents of an edited episode: each is read whole and teaches one turn, which is dear


@dataclass(frozen=True)
class Document:
    """One training text. pieces: (text, code) a message; code 0 nothing, 1 an assistant turn to learn, 2 tool text.

    Of a piece with code 1 the part behind `ASSISTANT_HEAD`, up to and with `<|im_end|>`, is to be learned.
    """

    seed: int
    level: str
    policy: str | None
    pieces: tuple[tuple[str, int], ...]

    @property
    def text(self) -> str:
        return "".join(text for text, _ in self.pieces)


def episode(
    seed: int, level: str = "short", split: str = "train", policy: str | Policy | None = None, mistakes: float = 0.0
) -> Episode:
    """The scripted agent at the task of a seed. Deterministic. mistakes: 0: an error-free run, 1: as training wants."""
    return attempt(make_task(seed, level, split), policy, mistakes)


def documents(seed: int, *, mistakes: float = 1.0) -> list[Document]:
    """The documents of a training seed; level and policy are drawn from it. An episode that was not solved gives none.

    An unedited episode is one document. An edited one gives a document a turn, as the policy shows the history there,
    for a few of its turns, most of them edits.
    """
    rng = random.Random(f"documents/{seed}")
    level = rng.choices([name for name, _ in LEVELS], [share for _, share in LEVELS])[0]
    policy = draw_policy(rng)
    run = episode(seed, level, "train", policy, mistakes)
    if not run.solved:
        return []
    if policy is None:
        return [Document(seed, level, None, whole(run))]
    chosen = [t for t in run.turns if t.correct and (t.action == "edit" or rng.random() < OTHER_TURNS)]
    if len(chosen) > MOST_TURNS:
        chosen = rng.sample(chosen, MOST_TURNS)
    return [Document(seed, level, policy, edited(run, turn)) for turn in chosen]


def edited(run: Episode, turn: Turn) -> tuple[tuple[str, int], ...]:
    """What the policy showed before a turn, and the turn, which alone is to be learned."""
    view = run.messages[: turn.index] if turn.view is None else turn.view
    pieces = [(render_message(message), NOTHING) for message in view]
    return (*pieces, (render_message(run.messages[turn.index]), ASSISTANT))


def whole(run: Episode) -> tuple[tuple[str, int], ...]:
    """An unedited episode as pieces: every right turn is to be learned."""
    correct = {turn.index: turn.correct for turn in run.turns}
    codes = {"assistant": ASSISTANT, "tool": TOOL}
    last = run.turns[-1].index  # what comes behind the last turn is never read
    return tuple(
        (render_message(m), codes.get(m["role"], NOTHING) if correct.get(i, True) else NOTHING)
        for i, m in enumerate(run.messages[: last + 1])
    )


def draw_policy(rng: random.Random) -> str | None:
    """The policy of a training episode, None for an unedited one."""
    x = rng.random()
    if x < 0.5:
        return None
    if x < 0.76:
        return "truncate_older_than(n=2, max_chars=200)"
    if x < 0.86:
        return f"truncate_older_than(n={rng.choice([1, 2, 3, 4])}, max_chars={rng.choice([100, 200, 400])})"
    if x < 0.92:
        return "drop_stale"
    if x < 0.95:
        return f"keep_last(n={rng.choice([3, 4, 5, 6])})"
    if x < 0.97:
        return f"clear_over(trigger={rng.choice([1000, 2000, 4000])}, keep=3, at_least=500)"
    return rng.choice(["dedupe", "drop_failed", "append_erratum"])


def render_message(message: Message) -> str:
    """A message as the agents' chat template prints it."""
    role, content = message["role"], message.get("content") or ""
    if role == "tool":
        return f"<|im_start|>user\n<tool_response>\n{content}\n</tool_response><|im_end|>\n"
    calls = "".join(_call_text(call["function"]) for call in message.get("tool_calls") or ())
    return f"<|im_start|>{role}\n{content}{calls}<|im_end|>\n"


def render(messages: Sequence[Message]) -> str:
    """A conversation as the template prints it, without the opening of the next turn."""
    return "".join(render_message(message) for message in messages)


def _call_text(function: dict[str, str]) -> str:
    body = f'{{"name": "{function["name"]}", "arguments": {function["arguments"]}}}'
    return block(body)
