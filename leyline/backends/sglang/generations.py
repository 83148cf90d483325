"""How often the KV in a slot was moved. Each bf16 move rounds the key once more, so a chain of them has a limit."""

from __future__ import annotations

import torch

DEFAULT_LIMIT = 32
"""0.24 % rms after 1 move, 0.76 % after 10, about 1.4 % after 32 in bf16."""


class Generations:
    """One counter a slot, on the pool's device. Only slots on a lineage's path are ever read."""

    def __init__(self, slots: int, device: torch.device | str, limit: int = DEFAULT_LIMIT) -> None:
        self.limit = limit
        self._count = torch.zeros(slots, dtype=torch.uint8, device=device)

    def allowed(self, slots: torch.Tensor) -> int:
        """How many of the leading `slots` may be moved once more."""
        over = torch.nonzero(self._count[slots] >= self.limit)
        return int(over[0, 0]) if len(over) else len(slots)

    def moved(self, source: torch.Tensor, target: torch.Tensor, honest: bool) -> None:
        """The KV of `source` was copied to `target`; `honest` sources were computed where they stand."""
        self._count[target] = torch.ones_like(self._count[target]) if honest else self._count[source] + 1

    def reset(self, slots: torch.Tensor) -> None:
        """The KV in `slots` was computed."""
        self._count[slots] = 0
