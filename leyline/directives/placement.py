"""Where to serve a turn whose KV another replica holds: splice or prefill here, or go there. A closed predicate.

The alternatives of Move the Query, Not the Cache (arXiv 2606.01502), with a server's own calibrated costs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from leyline.directives.choice import Reusable, choose
from leyline.directives.costs import Costs, CostsError, Load

Place = Literal["splice", "prefill", "route"]
TOKEN_TEXT = 6
"""Bytes of one token id in a request's JSON."""


@dataclass(frozen=True, slots=True)
class Site:
    """What one replica has for a prompt. load: ahead of it. held: tokens that it holds where they stand; runs: tokens
    that it could move, as for `choose`.
    """

    load: Load = field(default_factory=Load)
    held: int = 0
    runs: tuple[Reusable, ...] = ()


@dataclass(frozen=True, slots=True)
class Link:
    """The way to another replica. latency: seconds, both ways together. bandwidth: bytes a second, above 0."""

    latency: float = 5e-4
    bandwidth: float = 1.25e9

    def __post_init__(self) -> None:
        if not (0 <= self.latency < math.inf and self.bandwidth > 0):
            raise CostsError(f"link: latency {self.latency!r} and bandwidth {self.bandwidth!r} must be positive")

    def carrying(self, size: int) -> float:
        """Seconds for a request of `size` bytes and its first answer."""
        return self.latency + size / self.bandwidth


@dataclass(frozen=True, slots=True)
class Placed:
    """The cheapest way, and the seconds to the first token that were expected of each one there was."""

    way: Place
    expected: Mapping[Place, float]


def place(
    costs: Costs,
    length: int,
    here: Site,
    there: Site | None = None,
    link: Link | None = None,
    *,
    size: int | None = None,
) -> Placed:
    """The cheapest of splice here, prefill here, and the cheaper of both there, behind its queue and the link.

    costs: of the replicas, which are alike. length: of the prompt, in tokens. size: bytes that the link carries; None
    counts `TOKEN_TEXT` for each token. At equal cost the turn stays, and prefill, which is exact, is taken.
    """
    expected: dict[Place, float] = {"prefill": costs.turn([(here.held, length)], 0, here.load)}
    moved = choose(costs, here.held, length, here.runs, here.load)[0].expected
    if here.runs:
        expected["splice"] = min(seconds for way, seconds in moved.items() if way != "prefill")
    if there is not None:
        way = (link or Link()).carrying(TOKEN_TEXT * length if size is None else size)
        expected["route"] = way + min(choose(costs, there.held, length, there.runs, there.load)[0].expected.values())
    order: tuple[Place, ...] = ("prefill", "splice", "route")
    return Placed(min((name for name in order if name in expected), key=lambda name: expected[name]), expected)
