"""How often the KV in a slot was moved. Each bf16 move rounds the key once more, so a chain of them has a limit."""

from __future__ import annotations

import torch

DEFAULT_LIMIT = 32
"""0.24 % rms after 1 move, 0.76 % after 10, about 1.4 % after 32 in bf16."""


class Generations:
    """One counter a slot, on the pool's device. Only slots behind a lineage's first mark are ever read: others may hold
    the count of an earlier owner."""

    def __init__(self, slots: int, device: torch.device | str, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self._count = torch.zeros(slots, dtype=torch.uint8, device=device)

    def allowed(self, slots: torch.Tensor, honest: int) -> int:
        """How many of the leading `slots` may be moved once more. The first `honest` of them were never moved."""
        if honest >= len(slots):
            return len(slots)
        over = torch.nonzero(self._count[slots[honest:]] >= self.limit)
        return honest + int(over[0, 0]) if len(over) else len(slots)

    def moved(self, source: torch.Tensor, target: torch.Tensor, honest: int) -> None:
        """The KV of `source` was copied to `target`; the first `honest` sources were computed where they stand."""
        self._count[target[:honest]] = 1
        self._count[target[honest:]] = self._count[source[honest:]] + 1

    def reset(self, slots: torch.Tensor) -> None:
        """The KV in `slots` was computed."""
        self._count[slots] = 0
