"""Sums over the turns of a session."""

from __future__ import annotations

import warnings
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from leyline.harness.session.session import SessionTurn


@dataclass
class Totals:
    """Sums over the turns of a session, in tokens; `prefix` is what was cached where it stands, `spliced` was moved."""

    turns: int = 0
    prompt_tokens: int = 0
    prefix_tokens: int = 0
    spliced_tokens: int = 0
    prefilled_tokens: int = 0
    completion_tokens: int = 0
    edits: int = 0
    fallbacks: Counter[str] = field(default_factory=Counter)

    @property
    def hit_rate(self) -> float:
        """(prefix + spliced) / prompt tokens over all turns; 0 before the first."""
        return (self.prefix_tokens + self.spliced_tokens) / self.prompt_tokens if self.prompt_tokens else 0.0

    def add(self, turn: SessionTurn) -> None:
        receipt = turn.receipt
        self.turns += 1
        self.prompt_tokens += receipt.prompt_tokens
        self.prefix_tokens += receipt.prefix_tokens
        self.spliced_tokens += receipt.spliced_tokens
        self.prefilled_tokens += receipt.prefilled_tokens
        self.completion_tokens += turn.usage.completion_tokens
        self.edits += len(turn.edits)
        if receipt.fallback is not None:
            self.fallbacks[receipt.fallback.value] += 1

    @property
    def cached_tokens(self) -> int:
        """The old name of `prefix_tokens`: in `Usage`, cached tokens are those of the prefix and the spliced ones."""
        warnings.warn("Totals.cached_tokens is called prefix_tokens now", DeprecationWarning, stacklevel=2)
        return self.prefix_tokens

    def to_dict(self) -> dict[str, object]:
        """JSON types; `cached_tokens` is `prefix_tokens` by the name that trajectories have always had for it."""
        sums = {key: value for key, value in vars(self).items() if key != "fallbacks"}
        return {
            **sums,
            "cached_tokens": self.prefix_tokens,
            "fallbacks": dict(self.fallbacks),
            "hit_rate": self.hit_rate,
        }
