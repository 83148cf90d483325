"""Bit for bit: what must not see approximate KV is answered as by a server without the plugin.

Equal bits need equal prefill shapes, so the control computes the same honest prefix first.
"""

from __future__ import annotations

import random
from typing import Any

import pytest
from sgl_rig import GENERATIONS, KINDS, PAGES, Servers
from sgl_server import Server

from leyline.directives import Directive, EditScript, Fallback, Mode, Outcome, Receipt, WireRequest

pytestmark = [pytest.mark.sglang, pytest.mark.slow, pytest.mark.timeout(600)]


def bits(answer: dict[str, Any]) -> list[Any]:
    """Every number that the answer carries."""
    meta = answer["meta_info"]
    return [meta["output_token_logprobs"], meta["output_top_logprobs"]]


def cached(answer: dict[str, Any]) -> int:
    return int(answer["meta_info"]["cached_tokens"])


def receipt(answer: dict[str, Any]) -> Receipt:
    found = Receipt.from_meta_info(answer["meta_info"])
    assert found is not None
    return found


def tokens(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(5, 250) for _ in range(count)]


class Turn:
    """A source, an edit of it and the prompt, and how both modes ask for it."""

    def __init__(self, kind: str, replacement: int = 9, seed: int = 0) -> None:
        rng = random.Random(f"{kind} {replacement} {seed}")
        self.source = tokens(rng, 450)
        directive = (150, 210, tuple(tokens(rng, replacement)))
        self.script = EditScript((Directive(*directive, Mode.AMORTIZE),))
        self.prompt = self.script.apply(self.source) + tokens(rng, 10)
        self.amortize = WireRequest.build(self.script, self.source).to_json()
        self.forget = WireRequest.build(EditScript((Directive(*directive, Mode.FORGET),)), self.source).to_json()
        self.honest = -(-(150 + replacement) // PAGES[kind]) * PAGES[kind]
        """Up to here the prompt's KV is honest after the AMORTIZE: the first moved token."""


@pytest.mark.parametrize("replacement", [0, 9])
@pytest.mark.parametrize("kind", KINDS)
def test_honest_twins_of_a_spliced_prompt(servers: Servers, kind: str, replacement: int) -> None:
    turn, plugin, stock = Turn(kind, replacement), servers.plugin(kind), servers.stock(kind)
    stock.flush()
    plain_source = stock.generate(turn.source)
    stock.generate(turn.prompt[: turn.honest])
    control = stock.generate(turn.prompt)
    salted_control = stock.generate(turn.prompt, cache_salt="another tenant")
    assert cached(control) == turn.honest

    twins: dict[str, dict[str, Any]] = {
        "undirected": {},
        "forget": {"leyline": turn.forget},
        "honest": {"leyline": WireRequest.build(turn.script, turn.source, honest=True).to_json()},
    }
    for name, twin in twins.items():
        plugin.flush()
        assert bits(plugin.generate(turn.source)) == bits(plain_source), name
        spliced = plugin.generate(turn.prompt, turn.amortize, tokens=24)
        assert receipt(spliced).spliced_tokens >= 200
        assert receipt(spliced).approximate_from == turn.honest
        assert bits(spliced)[1][0] != bits(control)[1][0], "a splice that cannot be told from a prefill proves nothing"
        answer = plugin.generate(turn.prompt, **twin)
        assert cached(answer) == turn.honest, name
        assert bits(answer) == bits(control), name
        assert bits(plugin.generate(turn.prompt, cache_salt="another tenant")) == bits(salted_control), name
    forgotten = plugin.generate(turn.prompt, turn.forget)
    assert receipt(forgotten).acknowledged == (Outcome.FORGOTTEN,)
    assert receipt(forgotten).approximate_from is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_lineage_is_found_by_who_carries_it_and_nobody_else(servers: Servers, kind: str) -> None:
    turn, plugin, rng = Turn(kind), servers.plugin(kind), random.Random(1)
    page = PAGES[kind]
    plugin.flush()
    plugin.generate(turn.source)
    spliced = plugin.generate(turn.prompt, turn.amortize, tokens=40)
    first = receipt(spliced)
    said = [entry[1] for entry in spliced["meta_info"]["output_token_logprobs"]]
    following = turn.prompt + said + tokens(rng, 20)

    def ask(lineage: str | None, start: int | None, **extra: Any) -> dict[str, Any]:
        request = WireRequest(EditScript(), lineage=lineage, lineage_start=start)
        return plugin.generate(following, request.to_json(), **extra)

    assert first.lineage is not None
    assert first.approximate_from == turn.honest
    others: dict[str, tuple[str, int, dict[str, Any]]] = {
        "nobody's": ("L1", 7, {}),
        "shifted": (first.lineage, turn.honest + 1, {}),
        "another tenant's": (first.lineage, turn.honest, {"cache_salt": "other"}),
    }
    for name, (lineage, start, extra) in others.items():
        answer = ask(lineage, start, **extra)
        assert receipt(answer).fallback is Fallback.LINEAGE_MISMATCH, name
        assert cached(answer) <= turn.honest, name
        assert receipt(answer).lineage is None, name
        plugin.flush()
        plugin.generate(turn.source)
        plugin.generate(turn.prompt, turn.amortize, tokens=40)
    own = ask(first.lineage, turn.honest)
    assert cached(own) == (len(turn.prompt) + len(said) - 1) // page * page
    assert receipt(own).lineage == first.lineage
    assert receipt(own).approximate_from == turn.honest
    assert receipt(own).spliced_tokens == 0
    assert cached(plugin.generate(following)) <= turn.honest


def _spliced(plugin: Server, turn: Turn) -> Receipt:
    """Start from an empty cache and amortise `turn`."""
    plugin.flush()
    plugin.generate(turn.source)
    return receipt(plugin.generate(turn.prompt, turn.amortize))


@pytest.mark.parametrize("kind", KINDS)
def test_a_later_directive_finds_its_donor_in_the_lineage_only(servers: Servers, kind: str) -> None:
    turn, plugin = Turn(kind), servers.plugin(kind)
    script = EditScript((Directive(250, 270, (), Mode.AMORTIZE),))
    prompt = [*script.apply(turn.prompt), 9, 9, 9]
    _spliced(plugin, turn)
    without = receipt(plugin.generate(prompt, WireRequest.build(script, turn.prompt).to_json()))
    assert without.spliced_tokens == 0
    assert without.fallback is Fallback.SOURCE_MISMATCH
    first = _spliced(plugin, turn)
    known = {"lineage": first.lineage, "lineage_start": first.approximate_from}
    request = WireRequest.build(script, turn.prompt, **known).to_json()
    within = receipt(plugin.generate(prompt, request))
    assert within.spliced_tokens >= 100
    assert within.lineage == first.lineage
    # The same request again finds all of it in place.
    again = receipt(plugin.generate(prompt, request))
    assert again.spliced_tokens == 0
    assert again.prefix_tokens >= within.prefix_tokens + within.spliced_tokens
    assert again.acknowledged == (Outcome.CACHED,)


@pytest.mark.parametrize("kind", KINDS)
def test_an_empty_forget_heals_what_stands_behind_it(servers: Servers, kind: str) -> None:
    turn, plugin, stock = Turn(kind), servers.plugin(kind), servers.stock(kind)
    stock.flush()
    stock.generate(turn.source)
    stock.generate(turn.prompt[: turn.honest])
    control = stock.generate(turn.prompt)
    first = _spliced(plugin, turn)
    known = {"lineage": first.lineage, "lineage_start": first.approximate_from}
    heal = EditScript((Directive(turn.honest, turn.honest, (), Mode.FORGET),))
    healed = plugin.generate(turn.prompt, WireRequest.build(heal, turn.prompt, **known).to_json())
    assert receipt(healed).approximate_from is None
    assert receipt(healed).acknowledged == (Outcome.FORGOTTEN,)
    assert bits(healed) == bits(control)


@pytest.mark.parametrize("kind", KINDS)
def test_purge_evicts_the_forgotten_branch(servers: Servers, kind: str) -> None:
    turn, plugin = Turn(kind), servers.plugin(kind)
    plugin.flush()
    plugin.generate(turn.source)
    assert cached(plugin.generate(turn.source)) >= 400
    request = WireRequest.build(
        EditScript((Directive(150, 210, turn.script.directives[0].replacement, Mode.FORGET),)), turn.source, purge=True
    )
    plugin.generate(turn.prompt, request.to_json())
    assert plugin.accounting()["ok"]
    assert cached(plugin.generate(turn.source)) == 150 // PAGES[kind] * PAGES[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_is_moved_a_limited_number_of_times(servers: Servers, kind: str) -> None:
    plugin, rng = servers.plugin(kind), random.Random(5)
    plugin.flush()
    source = tokens(rng, 500)
    plugin.generate(source)
    known: dict[str, Any] = {}
    for turn in range(GENERATIONS + 1):
        script = EditScript((Directive(20, 36, (), Mode.AMORTIZE),))
        prompt = script.apply(source)
        got = receipt(plugin.generate(prompt, WireRequest.build(script, source, **known).to_json()))
        if turn == GENERATIONS:
            assert got.spliced_tokens < 60
            assert got.fallback is Fallback.GENERATION_LIMIT
        else:
            assert got.fallback is None
            assert got.spliced_tokens > 300
        known = {"lineage": got.lineage, "lineage_start": got.approximate_from}
        source = prompt


@pytest.mark.parametrize("kind", KINDS)
def test_without_directives_the_plugin_changes_nothing(servers: Servers, kind: str) -> None:
    """Equal hits and equal bits for the same requests in turn, in a pool that evicts all the time."""
    rng = random.Random(11)
    prompts = [tokens(rng, rng.randint(50, 400)) for _ in range(12)]
    workload = []
    for _ in range(45):
        prompt = rng.choice(prompts)
        cut = rng.randint(20, len(prompt))
        workload.append((prompt[:cut] + tokens(rng, rng.randint(0, 120)), rng.randint(1, 6)))
    seen = []
    for server in (servers.plugin(kind), servers.stock(kind)):
        server.flush()
        answers = [server.generate(prompt, tokens=count) for prompt, count in workload]
        seen.append([(cached(answer), bits(answer)) for answer in answers])
        assert all("leyline" not in answer["meta_info"] for answer in answers)
    assert [hits for hits, _ in seen[0]] == [hits for hits, _ in seen[1]]
    assert seen[0] == seen[1]
    assert 0 < sum(hits for hits, _ in seen[0]) < sum(len(prompt) for prompt, _ in workload)
