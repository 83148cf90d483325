"""Which runs of a prompt are moved in the next forward, and which holes between them are computed beside its tail.

A *hole* is what stands between two moved runs and was never computed like this: a replacement, a seam, a run without a
donor. All holes of a forward are computed in it together, so a prompt costs one forward however many edits it has.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from leyline.backends.sglang.plugin.keys import Mark
from leyline.backends.sglang.plugin.ops import Held
from leyline.backends.sglang.plugin.runs import Run

MAX_HOLES = 256
"""Holes of one forward, over all its requests: a backend's page table has a row for each."""


class Room(NamedTuple):
    """What a forward may compute beside the tails of its requests: tokens, and holes."""

    tokens: int
    holes: int


class Move(NamedTuple):
    """Prompt tokens `[start, end)`, whole pages of `run`, take the KV of their source."""

    run: Run
    start: int
    end: int


@dataclass
class Staged:
    """Slots of a request's own for prompt tokens `[start, end)`: some take moved KV, the others are computed.

    slots: `(end - start,)` int64. source: the donor's slots from its first token on, of which the first `honest` were
    never moved. marks: of the prompt's path from this forward on. held: paths that must stay until then.
    bound: how often a token of it was moved then, at most.
    """

    start: int
    end: int
    slots: torch.Tensor
    source: torch.Tensor
    honest: int
    moves: tuple[Move, ...]
    marks: tuple[Mark, ...]
    held: list[Held]
    bound: int
    seconds: float = 0.0
    holes: list[tuple[int, int]] = field(init=False)

    def __post_init__(self) -> None:
        self.holes = gaps(self.start, self.end, ((move.start, move.end) for move in self.moves))

    @property
    def computed(self) -> int:
        """Tokens in holes."""
        return sum(end - start for start, end in self.holes)


def movable(runs: Iterable[Run], position: int, reach: int, limit: int, page: int) -> list[Move]:
    """The whole pages of `runs` from `position` on that have a donor.

    reach: how many source tokens the cache holds; limit: how many prompt tokens may be reused.
    """
    moves = []
    for run in runs:
        start = max(run.start, position)
        end = min(run.end, limit, reach + run.shift) // page * page
        if end > start:
            moves.append(Move(run, start, end))
    return moves


def fit(moves: Sequence[Move], position: int, room: Room) -> tuple[Move, ...]:
    """The moves whose holes, from `position` on, have room beside the tail.

    The shortest moves are left out first: what they hold is computed with the hole around it.
    """
    if len(moves) > room.holes:
        kept = sorted(sorted(moves, key=lambda move: move.start - move.end)[: room.holes], key=lambda move: move.start)
    else:
        kept = list(moves)
    fitting: list[Move] = []
    at, left = position, room.tokens
    for move in kept:
        left -= move.start - at
        if left < 0:
            break
        fitting.append(move)
        at = move.end
    return tuple(fitting)


def gaps(start: int, end: int, taken: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """`[start, end)` without the spans in `taken`."""
    found, at = [], start
    for a, b in sorted(taken):
        if b <= at or a >= end:
            continue
        if a > at:
            found.append((at, a))
        at = max(at, b)
    if at < end:
        found.append((at, end))
    return found
