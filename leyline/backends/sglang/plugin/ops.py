"""What the splicer needs from a radix cache: the small interface that each SGLang version's adapter provides."""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from leyline.backends.sglang.plugin.keys import Space

Held = Any
"""What `hold` gave, for `release`: SGLang's own kind of lock."""


@dataclass(frozen=True, slots=True)
class Hit:
    """The longest cached prefix of some tokens: how many (whole pages, on the device), and the tree node it ends in."""

    length: int
    node: Any


class TreeOps(Protocol):
    """Operations on one rank's cache tree and KV pool. Every rank makes the same calls in the same order."""

    @property
    def page(self) -> int: ...

    def match(self, ids: array[int], limit: int, space: Space) -> Hit:
        """The longest prefix of `ids[:limit]` in the cache. May split nodes, which leaves earlier hits valid: a node
        that is split goes on as its lower part."""

    def slots(self, hit: Hit) -> torch.Tensor:
        """The KV slots of a hit, `(length,)` int64 on the device."""

    def hold(self, hit: Hit) -> Held:
        """Keep the hit's path from being evicted, until `release`."""

    def release(self, held: Held) -> None: ...

    def room(self) -> int:
        """Slots that are free or could be freed."""

    def reserve(self, tokens: int) -> torch.Tensor | None:
        """Slots for `tokens` (whole pages), evicting if needed; None when there is no room."""

    def give_back(self, slots: torch.Tensor) -> None:
        """Free slots of `reserve`."""

    def agree(self, ok: bool) -> bool:
        """Whether it went well on every rank."""

    def drop_branch(self, ids: array[int], start: int, space: Space) -> bool:
        """Evict what the path `ids` holds from `start` on. False when part of it is in use or shared further down."""


def all_agree(ok: bool, group: Any) -> bool:
    """Whether `ok` holds on every rank of the (CPU) process group, or of this process alone without one."""
    if group is None or torch.distributed.get_world_size(group=group) == 1:
        return ok
    vote = torch.tensor(int(ok), dtype=torch.int)
    torch.distributed.all_reduce(vote, op=torch.distributed.ReduceOp.MIN, group=group)
    return bool(vote.item())
