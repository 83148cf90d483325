"""How often KV was moved. Each bf16 move rounds the key once more, so a chain of moves has a limit.

Two accounts. One counter a slot, on the pool's device, is exact, and reading it makes the scheduler wait for the
device. An upper bound a path, on the host, costs nothing: a path that a move made holds at most one move more than its
donor did. The counters are read only where the bound has reached the limit, about once in as many turns.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

import torch

from leyline.backends.sglang.plugin.staging import Move
from leyline.backends.sglang.settings import DEFAULT_LIMIT

_ROOTS = 4096
_PATHS = 8
_TAIL = 16


class Generations:
    """One counter a slot. Only slots behind a lineage's first mark are ever read: others may hold the count of an
    earlier owner."""

    def __init__(
        self,
        slots: int,
        device: torch.device | str,
        limit: int = DEFAULT_LIMIT,
        settle: Callable[[], None] | None = None,
    ) -> None:
        """settle: makes the current stream wait for the counters that a launched forward still writes."""
        self.limit = limit
        self.bounds = Bounds(limit)
        self._count = torch.zeros(slots, dtype=torch.uint8, device=device)
        self._settle = settle or (lambda: None)

    def allowed(self, moves: Sequence[Move], source: torch.Tensor, honest: int) -> tuple[list[Move], int]:
        """`moves`, each up to its first token that may not be moved once more, and the most moves among the others.

        source: the donor's slots, of which the first `honest` were never moved. Waits for the device.
        """
        self._settle()
        counts = self._count[source].cpu().numpy()
        counts[:honest] = 0
        allowed, most = [], 0
        for run, start, end in moves:
            there = counts[start - run.shift : end - run.shift]
            over = (there >= self.limit).nonzero()[0]
            end = start + int(over[0]) if len(over) else end
            allowed.append(Move(run, start, end))
            if end > start:
                most = max(most, int(there[: end - start].max()))
        return allowed, most

    def most(self, slots: torch.Tensor) -> int:
        """How often the KV in one of `slots` was moved at most. Waits for the device."""
        self._settle()
        return int(self._count[slots].max()) if len(slots) else 0

    def moved(self, source: torch.Tensor, target: torch.Tensor, honest: torch.Tensor) -> None:
        """The KV of `source` was copied to `target`; where `honest`, it was computed where it stands."""
        self._count[target] = torch.where(honest, 0, self._count[source]) + 1

    def reset(self, slots: torch.Tensor) -> None:
        """The KV in `slots` is computed."""
        self._count[slots] = 0


class Bounds:
    """How often a token of a path was moved at most, for paths that are known by their first mark, their length and
    their last tokens. Where another path cannot be told apart, the larger bound holds for both."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._roots: OrderedDict[bytes, tuple[int, deque[tuple[int, array[int], int]]]] = OrderedDict()

    def of(self, root: bytes, ids: array[int]) -> int:
        """The bound for the path `ids` behind the mark named `root`; the limit, where nothing is known of it."""
        if root not in self._roots:
            return self._limit
        self._roots.move_to_end(root)
        most, paths = self._roots[root]
        known = [bound for end, tail, bound in paths if ids[max(0, end - _TAIL) : end] == tail and end <= len(ids)]
        return max(known, default=most)

    def note(self, root: bytes, ids: array[int], end: int, bound: int) -> None:
        """Tokens of `ids[:end]` were moved `bound` times at most."""
        most, paths = self._roots.get(root, (0, deque(maxlen=_PATHS)))
        paths.append((end, ids[max(0, end - _TAIL) : end], bound))
        self._roots[root] = (max(most, bound), paths)
        self._roots.move_to_end(root)
        if len(self._roots) > _ROOTS:
            self._roots.popitem(last=False)
