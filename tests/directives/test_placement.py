"""Splice here, prefill here, or go to the replica that holds the prompt."""

from __future__ import annotations

import pytest

from leyline.directives import Costs, CostsError, Link, Load, Reusable, Site, place

COSTS = Costs(forward=0.02, token=1e-4, pair=0.0, hole=0.0, move=1e-3, byte=1e-12, token_bytes=1000, chunk=8192)
HOLDS = Site(held=200, runs=(Reusable(210, 7900),))


def test_the_ways_cost_what_the_constants_say() -> None:
    found = place(COSTS, 8000, HOLDS, Site(held=7900), Link(0.005, 1e9), size=10**6)
    assert found.expected["prefill"] == pytest.approx(0.02 + 7800e-4)
    assert found.expected["splice"] == pytest.approx(0.02 + 110e-4 + 1e-3 + 7690 * 1e-9)
    assert found.expected["route"] == pytest.approx(0.005 + 1e-3 + 0.02 + 100e-4)
    assert found.way == "splice"


@pytest.mark.parametrize(
    ("here", "there", "link", "way"),
    [
        (Site(), HOLDS, Link(), "route"),  # nothing is held here
        (Site(), HOLDS, Link(latency=2.0), "prefill"),  # but the link is slower than the prefill
        (Site(), HOLDS, Link(bandwidth=10**4), "prefill"),  # or too narrow for the prompt
        (Site(), Site(Load(waiting_tokens=20_000), 200, HOLDS.runs), Link(), "prefill"),  # or the queue is longer
        (Site(Load(waiting_tokens=20_000)), Site(), Link(), "route"),  # nobody holds it, and here is a queue
        (HOLDS, HOLDS, Link(), "splice"),
        (Site(), None, None, "prefill"),
        (Site(held=7999, runs=()), HOLDS, Link(), "prefill"),
    ],
)
def test_where_an_edited_turn_goes(here: Site, there: Site | None, link: Link | None, way: str) -> None:
    found = place(COSTS, 8000, here, there, link)
    assert found.way == way
    assert found.expected[found.way] == min(found.expected.values())


def test_equal_costs_keep_the_turn_here_and_exact() -> None:
    free = Costs(forward=0.02, token=0.0, pair=0.0, hole=0.0, move=0.0, byte=0.0)
    assert place(free, 8000, HOLDS, HOLDS, Link(0.0)).way == "prefill"


@pytest.mark.parametrize("settings", [{"latency": -1.0}, {"bandwidth": 0.0}, {"latency": float("inf")}])
def test_a_link_that_cannot_be_is_refused(settings: dict[str, float]) -> None:
    with pytest.raises(CostsError, match="link: latency"):
        Link(**settings)
