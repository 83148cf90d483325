"""Two replicas behind a router: sessions stay by affinity, a miss is told, and a killed replica costs no answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from fleet import ROUTERS, Recorder, Routes, Served, again, connected, talk
from sgl_rig import PAGES, Servers

from leyline.backends.http.affinity import SECRET_VARIABLE
from leyline.directives import Costs, Receipt
from leyline.directives.common import common_prefix
from leyline.evals.replay.fleet import Fleet, Seen, requests, simulate

KIND = "gqa"
NAMES = ["a", "b", "c", "d"]
TURNS = 7
pytestmark = [pytest.mark.sglang, pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.xdist_group("sglang-gqa")]


@pytest.fixture(scope="module", params=list(ROUTERS))
def routes(
    request: pytest.FixtureRequest, servers: Servers, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Routes]:
    folder = tmp_path_factory.mktemp(request.param)
    replicas = [servers.talking(KIND).url, servers.plugin(KIND).url]
    with ROUTERS[request.param](folder, replicas) as found:
        yield found


@pytest.fixture(autouse=True)
def empty(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    """Empty caches, and the same keys in every run: by them half of the sessions go to each replica."""
    monkeypatch.delenv(SECRET_VARIABLE, raising=False)
    for server in (servers.talking(KIND), servers.plugin(KIND)):
        server.flush()


def shares(recorder: Recorder) -> tuple[float, float]:
    """Hit rate and spliced share over all turns, in percent of the prompts' tokens."""
    receipts = [one.turn.receipt for served in recorder.served.values() for one in served]
    tokens = sum(receipt.prompt_tokens for receipt in receipts)
    spliced = sum(receipt.spliced_tokens for receipt in receipts)
    return 100 * (sum(receipt.prefix_tokens for receipt in receipts) + spliced) / tokens, 100 * spliced / tokens


def prompt_of(one: Served) -> tuple[int, ...]:
    return one.asked.prompt.ids if one.asked.prompt is not None else ()


def missed(one: Served) -> int:
    """How many tokens of what the session sent before were not found, where its edits leave them."""
    receipt, script = one.turn.receipt, one.asked.script
    kept = script.directives[0].start if script else common_prefix(one.asked.source or (), prompt_of(one))
    return kept - receipt.prefix_tokens - receipt.spliced_tokens


def is_told(receipt: Receipt) -> bool:
    return receipt.fallback is not None or receipt.detail is not None


def test_sessions_stay_and_hit_as_on_one_server(servers: Servers, routes: Routes) -> None:
    with connected(servers.talking(KIND).url) as one:
        talk(one, NAMES, TURNS)
    servers.talking(KIND).flush()
    with connected(routes.sticky) as fleet:
        assert fleet.inner.capabilities().splice
        talk(fleet, NAMES, TURNS)
    asked = [turn.asked for served in fleet.served.values() for turn in served if turn.asked.script]
    edits = [turn.script.directives[0].start / len(turn.source or ()) for turn in asked]
    assert min(edits) < 0.2, "an edit that leaves cache_aware routing too little to match"
    replicas = [{one.replica for one in served} for served in fleet.served.values()]
    assert all(len(found) == 1 for found in replicas)
    assert not [one for served in fleet.served.values() for one in served if is_told(one.turn.receipt)]
    print(f"hit, spliced: one server {shares(one)}, two by affinity {shares(fleet)}; edits from {min(edits):.0%} on")
    assert shares(one)[1] > 10
    assert shares(fleet) == pytest.approx(shares(one), abs=0.2)
    for name in NAMES:
        assert [t.turn.output_ids for t in fleet.served[name]] == [t.turn.output_ids for t in one.served[name]]


def test_without_affinity_every_miss_is_told_and_costs_what_is_simulated(servers: Servers, routes: Routes) -> None:
    with connected(servers.talking(KIND).url) as one:
        talk(one, NAMES[:3], TURNS)
    servers.talking(KIND).flush()
    with connected(routes.scattered) as fleet:
        talk(fleet, NAMES[:3], TURNS)
    strayed = [t for served in fleet.served.values() for t in served if missed(t) > PAGES[KIND] + 1]
    assert len(strayed) > len(NAMES)
    assert all(is_told(stray.turn.receipt) for stray in strayed)
    assert shares(fleet)[0] < shares(one)[0] - 10
    paths = [[turn.replica for turn in served] for served in fleet.served.values()]
    if None in paths[0]:
        return  # smg does not tell the replica, and its turns do not strictly alternate
    # Three sessions in turn over two replicas: each alternates between them, as one session alone would.
    assert all(a != b for path in paths for a, b in itertools.pairwise(path))
    simulated = []
    for served in one.served.values():
        seen = [Seen(prompt_of(turn), turn.turn.output_ids or (), turn.turn.receipt) for turn in served]
        fared = simulate([requests(seen)], Fleet(2, "round_robin", Costs(), page=PAGES[KIND]), count=1)
        simulated.append((fared.hit, sum(t.turn.receipt.prompt_tokens for t in served)))
    expected = sum(hit * tokens for hit, tokens in simulated) / sum(tokens for _, tokens in simulated)
    print(f"one server {shares(one)}, in turn over two {shares(fleet)}, simulated {expected}")
    assert shares(fleet)[0] == pytest.approx(expected, abs=1.0)


def test_a_killed_and_restarted_replica_costs_no_answer(servers: Servers, routes: Routes) -> None:
    def accident(turn: int) -> None:
        if turn == 3:
            servers.kill(KIND, "talking")
        elif turn == 5:
            servers.talking(KIND)

    with connected(routes.sticky) as fleet:
        talk(fleet, NAMES, TURNS, accident)
    assert [len(served) for served in fleet.served.values()] == [TURNS] * len(NAMES), "no error reached an agent"
    strays = 0
    with connected(servers.plugin(KIND).url) as one:
        for served in fleet.served.values():
            lost = {index for index, turn in enumerate(served) if missed(turn) > PAGES[KIND] + 1}
            strays += len(lost)
            assert all(is_told(served[index].turn.receipt) for index in lost)
            reference = again(one.inner, served, lost)
            for got, wanted in zip(served, reference, strict=True):
                assert got.turn.output_ids == wanted.output_ids
                assert got.turn.receipt.spliced_tokens == wanted.receipt.spliced_tokens
    assert strays >= 2, "the killed replica held sessions, and got them back"
