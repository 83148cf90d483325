"""The simulated fleet: what one replica gives, what routing costs, and what the predicate saves."""

from __future__ import annotations

from dataclasses import replace

import pytest

from leyline.directives import Costs, Link, Receipt, Splice
from leyline.evals.replay.fleet import ROUTERS, Fleet, Request, Seen, requests, simulate

COSTS = Costs(forward=0.01, token=1e-5, pair=0.0, hole=0.0, move=1e-3, byte=1e-12, token_bytes=1000)


def session(turns: int = 8, edit: int = 5) -> tuple[Request, ...]:
    """Prompts of 1,000 tokens more each; in turn `edit` 500 of the first 700 go, and the rest is moved."""
    seen: list[Seen] = []
    ids: list[int] = []
    lineage = None
    for turn in range(turns):
        before = len(ids)
        splices: tuple[Splice, ...] = ()
        if turn == edit:
            ids, before = [*ids[:200], *ids[700:]], 200
            splices, lineage = (Splice(200, len(ids), -500),), 200
        ids = [*ids, *range(turn * 10_000, turn * 10_000 + 1000)]
        moved = sum(splice.end - splice.start for splice in splices)
        receipt = Receipt(
            len(ids), before, moved, len(ids) - before - moved, splices=splices,
            approximate_from=lineage, lineage="L" if lineage else None,
        )  # fmt: skip
        seen.append(Seen(tuple(ids), (7,) * 10, receipt))
        ids = [*ids, *(7,) * 10]
    return requests(seen)


def test_one_replica_gives_what_was_recorded() -> None:
    one = session()
    fared = simulate([one], Fleet(1, "round_robin", COSTS), count=3)
    tokens = sum(request.length for request in one)
    moved = sum(run.end - run.start for request in one for run in request.runs)
    held = sum(request.held for request in one)
    assert (fared.turns, fared.stayed) == (24, 100.0)
    assert fared.hit == pytest.approx(100 * (held + moved) / tokens)
    assert fared.spliced == pytest.approx(100 * moved / tokens)
    assert fared.moved_bytes == 3 * 1000 * moved


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("replicas", [2, 16])
def test_only_routers_that_keep_a_session_keep_its_hits(router: str, replicas: int) -> None:
    fleet = Fleet(replicas, router, COSTS)  # type: ignore[arg-type]
    alone = simulate([session()], replace(fleet, replicas=1), count=6)
    fared = simulate([session()], fleet, count=6 * replicas)
    assert fared == simulate([session()], fleet, count=6 * replicas), "the same seed gives the same numbers"
    if router == "affinity":
        assert (fared.stayed, fared.hit, fared.spliced) == (100.0, pytest.approx(alone.hit), alone.spliced)
    if router in ("least_load", "round_robin"):
        assert fared.stayed < 75
        assert fared.hit < alone.hit - 5
    if router == "place":
        assert fared.stayed > 80, "for a short queue it is worth going to the replica that holds the session"


def test_an_early_edit_sends_a_session_away_where_the_router_follows_the_cache() -> None:
    fared = simulate([session()], Fleet(8, "cache_aware", COSTS), count=40)
    assert 75 < fared.stayed < 100, "all turns stay but the edited one, which shares 200 of its tokens"


def test_a_full_replica_forgets_and_a_slow_link_is_not_taken() -> None:
    roomy = simulate([session()], Fleet(1, "affinity", COSTS, rate=5.0), count=20)
    small = simulate([session()], Fleet(1, "affinity", COSTS, capacity=12_000, rate=5.0), count=20)
    assert small.hit < roomy.hit
    busy = Fleet(4, "place", COSTS, rate=20.0)
    assert simulate([session()], busy, count=40).routed_bytes > 0
    assert simulate([session()], replace(busy, link=Link(latency=60.0)), count=40).routed_bytes == 0
