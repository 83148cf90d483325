"""Which runs of an edited prompt to move and which to compute, by their costs: the decision behind AUTO."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from leyline.directives.costs import Costs, Load
from leyline.directives.directive import Mode
from leyline.directives.errors import WireError
from leyline.directives.jsontypes import JsonObject
from leyline.directives.script import EditScript

Way = Literal["splice", "fewer", "prefill"]
WAYS: tuple[Way, ...] = ("splice", "fewer", "prefill")


class Reusable(NamedTuple):
    """Prompt tokens `[start, end)` whose KV can be moved. must: they are behind an AMORTIZE, which leaves no choice."""

    start: int
    end: int
    must: bool = False


@dataclass(frozen=True, slots=True)
class Choice:
    """What AUTO took, for a receipt.

    taken: `splice` (everything that can be moved is), `fewer` (some of it), or `prefill` (nothing that need not be).
    expected: seconds to the first token of each way that there was.
    seconds: from the decision to the first token, or None where it was not measured.
    """

    taken: Way
    expected: Mapping[Way, float]
    seconds: float | None = None

    def to_dict(self) -> JsonObject:
        """JSON types."""
        return {"taken": self.taken, "expected": dict(self.expected), "seconds": self.seconds}

    @classmethod
    def from_dict(cls, data: object) -> Choice:
        """Read from untrusted JSON. Raises `WireError`."""
        if not isinstance(data, Mapping) or data.get("taken") not in WAYS:
            raise WireError("receipt: choice must be an object with taken: splice, fewer or prefill")
        expected, seconds = data.get("expected"), data.get("seconds")
        if not isinstance(expected, Mapping) or not all(
            k in WAYS and type(v) in (int, float) for k, v in expected.items()
        ):
            raise WireError("receipt: choice.expected must give seconds by way")
        if seconds is not None and type(seconds) not in (int, float):
            raise WireError("receipt: choice.seconds must be a number or null")
        return cls(data["taken"], dict(expected), seconds)


def reusable(script: EditScript, runs: Iterable[tuple[int, int, int]]) -> tuple[Reusable, ...]:
    """What can be moved, as the directive right before each run lets it. runs: `(start, end, delta)` of the target."""
    ends = [d.end for d in script]
    found = []
    for start, end, delta in runs:
        before = script.directives[bisect_right(ends, start - delta) - 1]
        found.append(Reusable(start, end, before.mode is not Mode.AUTO))
    return tuple(found)


def choose(
    costs: Costs, held: int, length: int, runs: Sequence[Reusable], load: Load | None = None
) -> tuple[Choice, tuple[bool, ...]]:
    """The cheapest way to serve a prompt, and for each run whether to move it.

    held: tokens that the cache holds where they stand. length: of the prompt; its last token is always computed.
    runs: what could be moved, ascending, disjoint, in `[held, length - 1]`.

    The runs to move are found by dynamic programming over the tokens' own costs, in O(runs); the three ways are then
    compared by `Costs.turn`, and at equal cost the one that moves less is taken, for it keeps more of the cache honest.
    """
    ways = {
        "splice": tuple(True for _ in runs),
        "fewer": _cheapest(costs, held, length, runs),
        "prefill": tuple(run.must for run in runs),
    }
    if ways["fewer"] in (ways["splice"], ways["prefill"]):
        del ways["fewer"]
    if not runs or ways["splice"] == ways["prefill"]:
        ways.pop("prefill" if runs else "splice")
    expected: dict[Way, float] = {}
    for way in WAYS:
        if way in ways:
            expected[way] = costs.turn(*_work(held, length, runs, ways[way]), load)
    taken = min(reversed(list(expected)), key=lambda way: expected[way])
    return Choice(taken, expected), ways[taken]


def _work(held: int, length: int, runs: Sequence[Reusable], move: Sequence[bool]) -> tuple[list[tuple[int, int]], int]:
    """The blocks that are computed, and how many tokens are moved."""
    blocks, moved, at = [], 0, held
    for run, moves in zip(runs, move, strict=True):
        if moves:
            blocks.append((at, run.start))
            moved += run.end - run.start
            at = run.end
    blocks.append((at, length))
    return [block for block in blocks if block[0] < block[1]], moved


def _cheapest(costs: Costs, held: int, length: int, runs: Sequence[Reusable]) -> tuple[bool, ...]:
    """The moves of least cost, with forward passes counted by their share of tokens."""

    def computing(start: int, end: int) -> float:
        return costs.computing(start, end) + costs.forward * (end - start) / costs.chunk

    # By whether the tokens before `at` end in a block that is computed: the cost so far, and the moves as a chain.
    infinite = float("inf")
    cost = {False: 0.0, True: infinite}
    chain: dict[bool, Any] = {False: None, True: None}
    at = held
    for run in runs:
        if at < run.start:
            opened, going = cost[False] + costs.hole, cost[True]
            chain[True] = chain[True] if going <= opened else chain[False]
            cost = {False: infinite, True: min(going, opened) + computing(at, run.start)}
        before = min(cost, key=lambda state: cost[state])
        moved = cost[before] + costs.byte * costs.token_bytes * (run.end - run.start)
        open_from = cost[True] <= cost[False] + costs.hole
        computed = infinite
        if not run.must:
            computed = min(cost[True], cost[False] + costs.hole) + computing(run.start, run.end)
        chain = {False: (True, chain[before]), True: (False, chain[open_from])}
        cost = {False: moved, True: computed}
        at = run.end
    # The rest is computed in any case: behind a moved run it is a block of its own.
    link = chain[cost[True] <= cost[False] + costs.hole]
    moves: list[bool] = []
    while link is not None:
        moves.append(link[0])
        link = link[1]
    return tuple(reversed(moves))
