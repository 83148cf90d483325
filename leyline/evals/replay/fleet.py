"""Recorded sessions over many replicas behind a router: hit rate, queueing and moved bytes as the fleet grows.

Counts of tokens, not keys: what a replica holds of a session is known from the turns that it served, so that a thousand
replicas take seconds. Service times are a server's calibrated costs.
"""

from __future__ import annotations

import heapq
import random
import statistics
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from leyline.directives import Costs, Link, Load, Receipt, Reusable, Site, choose, place
from leyline.directives.common import common_prefix
from leyline.directives.placement import TOKEN_TEXT

Router = Literal["affinity", "cache_aware", "least_load", "round_robin", "place"]
ROUTERS: tuple[Router, ...] = ("affinity", "cache_aware", "least_load", "round_robin", "place")
MATCH = 0.3
"""The share of a prompt that `cache_aware` of SMG wants matched before it follows the cache."""
SAMPLE = 8
"""How many replicas are looked at for the least loaded one, where there are more."""


class Seen(NamedTuple):
    """One turn as it was served where its session's KV was: prompt and answer in tokens, and the receipt."""

    prompt: Sequence[int]
    output: Sequence[int]
    receipt: Receipt


@dataclass(frozen=True)
class Request:
    """One turn. shared: for each earlier turn, the tokens that it has in common with this prompt; the last is what a
    router compares. exact: for each earlier turn, how many tokens of it are exact where its edits were spliced, or None
    for all.
    """

    length: int
    answer: int
    held: int
    runs: tuple[Reusable, ...]
    shared: tuple[int, ...]
    exact: tuple[int | None, ...]


def requests(turns: Sequence[Seen]) -> tuple[Request, ...]:
    """A session's turns, reduced to what a simulation asks of them."""
    made = []
    for index, turn in enumerate(turns):
        receipt = turn.receipt
        shared = tuple(common_prefix((*old.prompt, *old.output), turn.prompt) for old in turns[:index])
        exact = tuple(old.receipt.approximate_from for old in turns[:index])
        runs = tuple(Reusable(splice.start, splice.end, True) for splice in receipt.splices)
        held = min(receipt.prefix_tokens, runs[0].start) if runs else receipt.prefix_tokens
        made.append(Request(len(turn.prompt), len(turn.output), held, runs, shared, exact))
    return tuple(made)


@dataclass(frozen=True)
class Fleet:
    """replicas: how many. capacity: KV tokens of each. costs, link: as of `place`. decode: seconds for each generated
    token, which occupy nobody else. think: mean seconds of a tool between two turns. rate: sessions that arrive at each
    replica a second, on average. opening: tokens at the beginning that all sessions share. page: tokens of one page of
    the cache.
    """

    replicas: int
    router: Router
    costs: Costs
    capacity: int = 400_000
    link: Link = field(default_factory=Link)
    decode: float = 0.01
    think: float = 2.0
    rate: float = 0.05
    opening: int = 0
    page: int = 1


@dataclass(frozen=True)
class Fared:
    """What a fleet made of the sessions. Shares in percent of the prompts' tokens or of the turns; seconds to the first
    token; wait: mean seconds in the queue. moved_bytes: KV that splices moved, routed_bytes: prompts over the link.
    """

    turns: int
    stayed: float
    hit: float
    spliced: float
    wait: float
    ttft_p50: float
    ttft_p95: float
    moved_bytes: int
    routed_bytes: int


class _Kept(NamedTuple):
    """What a replica holds of a session: its turn, the tokens, and whether some of them were moved there."""

    turn: int
    tokens: int
    approximate: bool


@dataclass
class _Replica:
    free: float = 0.0
    tokens: int = 0
    sessions: OrderedDict[int, _Kept] = field(default_factory=OrderedDict)

    def keep(self, session: int, turn: int, tokens: int, moved: int, capacity: int) -> None:
        """Hold a turn of a session as its last one; the sessions used longest ago make room."""
        before = self.sessions.pop(session, None)
        went_on = before is not None and before.turn == turn - 1
        approximate = moved > 0 or (went_on and before is not None and before.approximate)
        self.sessions[session] = _Kept(turn, tokens, approximate)
        self.tokens += tokens - (before.tokens if before is not None else 0)
        while self.tokens > capacity and len(self.sessions) > 1:
            self.tokens -= self.sessions.popitem(last=False)[1].tokens


def simulate(sessions: Sequence[Sequence[Request]], fleet: Fleet, *, count: int, seed: int = 0) -> Fared:
    """Send `count` sessions, taken from `sessions` in turn, through a fleet."""
    chance = random.Random(seed)
    replicas = [_Replica() for _ in range(fleet.replicas)]
    events: list[tuple[float, int, int]] = []
    at = 0.0
    for number in range(count):
        at += chance.expovariate(fleet.rate * fleet.replicas)
        heapq.heappush(events, (at, number, 0))
    last: dict[int, int] = {}
    order = 0
    waits, firsts, tokens, hit, spliced, stayed, moves, routed = [], list[float](), 0, 0, 0, 0, 0, 0
    while events:
        now, number, turn = heapq.heappop(events)
        request = sessions[number % len(sessions)][turn]
        order += 1
        chosen, carried = _route(fleet, replicas, last.get(number), number, turn, request, now, order, chance)
        replica = replicas[chosen]
        site = _site(fleet, replica, number, turn, request, now)
        decided, moving = choose(fleet.costs, site.held, request.length, site.runs)
        moved = sum(run.end - run.start for run, moves_ in zip(site.runs, moving, strict=True) if moves_)
        seconds = decided.expected[decided.taken] + (fleet.link.carrying(carried) if carried else 0.0)
        begin = max(now, replica.free)
        replica.free = begin + seconds
        replica.keep(number, turn, request.length + request.answer, moved, fleet.capacity)
        if turn:
            stayed += last[number] == chosen
        last[number] = chosen
        waits.append(begin - now)
        firsts.append(replica.free - now)
        tokens, hit, spliced = tokens + request.length, hit + site.held + moved, spliced + moved
        moves, routed = moves + moved * fleet.costs.token_bytes, routed + carried
        if turn + 1 < len(sessions[number % len(sessions)]):
            ready = replica.free + fleet.decode * request.answer + chance.expovariate(1 / fleet.think)
            heapq.heappush(events, (ready, number, turn + 1))
    ranked = sorted(firsts)
    return Fared(
        turns=len(firsts),
        stayed=100 * stayed / max(1, len(firsts) - count),
        hit=100 * hit / tokens,
        spliced=100 * spliced / tokens,
        wait=statistics.fmean(waits),
        ttft_p50=ranked[len(ranked) // 2],
        ttft_p95=ranked[int(0.95 * (len(ranked) - 1))],
        moved_bytes=moves,
        routed_bytes=routed,
    )


def _site(fleet: Fleet, replica: _Replica, session: int, turn: int, request: Request, now: float) -> Site:
    """What a replica has for a turn: all of it where it served the last one, else what an older turn left exact."""
    ahead = max(0.0, replica.free - now)
    pace = fleet.costs.token + fleet.costs.forward / fleet.costs.chunk
    load = Load(waiting_tokens=int(ahead / pace)) if pace else Load()
    kept = replica.sessions.get(session)
    if kept is not None and kept.turn == turn - 1:
        return Site(load, request.held, request.runs)
    known = request.shared[kept.turn] if kept is not None else 0
    limit = request.exact[kept.turn] if kept is not None and kept.approximate else None
    if limit is not None:  # a lineage ends with the turn that the replica did not see
        known = min(known, limit)
    known = known // fleet.page * fleet.page
    warm = min(fleet.opening, request.length - 1) if replica.sessions else 0
    return Site(load, min(max(known, warm), request.length - 1))


def _least(replicas: Sequence[_Replica], chance: random.Random) -> int:
    among = range(len(replicas)) if len(replicas) <= SAMPLE else chance.sample(range(len(replicas)), SAMPLE)
    return min(among, key=lambda index: replicas[index].free)


def _route(
    fleet: Fleet,
    replicas: Sequence[_Replica],
    last: int | None,
    session: int,
    turn: int,
    request: Request,
    now: float,
    order: int,
    chance: random.Random,
) -> tuple[int, int]:
    """The replica that a router takes, and the bytes that go over a link because of it."""
    if fleet.router == "affinity":
        return random.Random(session).randrange(len(replicas)), 0
    if fleet.router == "round_robin":
        return order % len(replicas), 0
    least = _least(replicas, chance)
    if last is None or fleet.router == "least_load" or least == last:
        return least, 0
    if fleet.router == "cache_aware":
        return (last if request.shared[-1] > MATCH * request.length else least), 0
    here = _site(fleet, replicas[least], session, turn, request, now)
    there = _site(fleet, replicas[last], session, turn, request, now)
    size = TOKEN_TEXT * request.length
    routed = place(fleet.costs, request.length, here, there, fleet.link, size=size).way == "route"
    return (last, size) if routed else (least, 0)
