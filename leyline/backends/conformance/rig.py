"""What the conformance checks stand on: prompts, turns, and what every receipt must fulfil."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from leyline.backends.conformance.expect import at_least, at_most, equal, given
from leyline.backends.contract import Backend, Sampling, Turn, TurnInput
from leyline.directives import Directive, EditScript, Fallback, Mode, Rendered

Tokens = tuple[int, ...]
NOT_HELD = frozenset({Fallback.SOURCE_MISMATCH, Fallback.DONOR_MISSING})
"""What a receipt may say where the cache does not hold the source."""


@dataclass
class Rig:
    """What a check needs.

    fresh: gives a backend with an empty cache (a new one, or the same server after a flush).
    vocabulary: token ids that prompts are drawn from; no stop tokens among them.
    slack: how many tokens a prefix hit may fall short (a page, or the last chunk).
    length: tokens of the first prompt. decode: tokens of each answer. computes: whether answers come from the KV; a
    simulated cache has none, so that its answers say nothing.
    """

    fresh: Callable[[], Backend]
    vocabulary: Sequence[int]
    slack: int
    length: int
    decode: int
    seed: int
    computes: bool = True

    def __post_init__(self) -> None:
        self.seed_again()

    def seed_again(self) -> None:
        """Let `tokens` give the same prompts once more."""
        self._random = random.Random(self.seed)

    def tokens(self, count: int) -> Tokens:
        """Random token ids, other ones in each call."""
        return tuple(self._random.choices(self.vocabulary, k=count))

    def ask(self, backend: Backend, prompt: Sequence[int], **settings: Any) -> Turn:
        """Serve a prompt greedily and check what every receipt must fulfil."""
        ids = tuple(prompt)
        sampling = Sampling(max_tokens=self.decode, temperature=0.0)
        turn = backend.chat([], None, TurnInput("conformance", prompt=Rendered(ids), sampling=sampling, **settings))
        check_receipt(turn, ids, settings.get("script", EditScript()))
        return turn

    def cold(self, prompt: Sequence[int]) -> Tokens:
        """The greedy answer of an empty cache."""
        return answer(self.ask(self.fresh(), prompt))

    def edited(
        self, backend: Backend, held: Sequence[int], script: EditScript, tail: Sequence[int], **settings: object
    ) -> tuple[Tokens, Turn]:
        """The next turn: the held tokens with `script` applied, and `tail`. Returns (prompt, turn)."""
        prompt = (*script.apply(held), *tail)
        return prompt, self.ask(backend, prompt, source=tuple(held), script=script, **settings)

    def opened(self, backend: Backend) -> Tokens:
        """A first turn. Returns what the backend then holds: the prompt and its answer."""
        prompt = self.tokens(self.length)
        return (*prompt, *answer(self.ask(backend, prompt)))

    def middle(self, mode: Mode = Mode.AMORTIZE, *, replacement: Sequence[int] = ()) -> EditScript:
        """An edit of the second fifth of a first turn's prompt."""
        step = self.length // 5
        return EditScript((Directive(step, 2 * step, tuple(replacement), mode),))


def answer(turn: Turn) -> Tokens:
    """The generated tokens."""
    return given(turn.output_ids, "a backend that takes token ids must say which tokens it generated")


def check_receipt(turn: Turn, prompt: Tokens, script: EditScript) -> None:
    """What every receipt must fulfil, whatever was asked."""
    r = turn.receipt
    equal(r.prompt_tokens, len(prompt), "the receipt counts other prompt tokens")
    equal(r.prefix_tokens + r.spliced_tokens + r.prefilled_tokens, len(prompt), "the receipt's parts do not add up")
    at_least(r.prefilled_tokens, 1, "the last prompt token cannot come from the cache")
    equal(sum(s.end - s.start for s in r.splices), r.spliced_tokens, "the splices do not add up to spliced_tokens")
    position = 0
    for s in r.splices:
        wrong = f"splice [{s.start}, {s.end}) is out of order or of range"
        at_least(s.start, position, wrong)
        at_least(s.end, s.start + 1, wrong)
        at_most(s.end, len(prompt), wrong)
        position = s.end
    asked = len(script) + len(r.found)
    equal((r.directives, len(r.acknowledged)), (asked, asked), "each directive must be acknowledged")
    equal(r.approximate_from is None, r.lineage is None, "a lineage and approximate_from come together")
    if r.splices:
        approximate = given(r.approximate_from, "a spliced prompt is approximate")
        at_most(approximate, r.splices[0].start, "approximate_from lies behind the first spliced token")
    u = turn.usage
    equal(u.prompt_tokens, len(prompt), "usage and receipt disagree on the prompt")
    equal(u.cached_tokens, r.prefix_tokens + r.spliced_tokens, "usage and receipt disagree on the cached tokens")
    at_least(u.completion_tokens, len(answer(turn)), "usage counts fewer tokens than were generated")
