"""However many edits a prompt has, it costs one forward pass: counted in the server's log, held to the oracle."""

from __future__ import annotations

import random
import time
from typing import Any

import pytest
from sgl_oracle import Oracle, State, distance, first_logprobs
from sgl_rig import KINDS, PAGES, Servers
from sgl_server import Server

from leyline.directives import Directive, EditScript, Mode, Receipt, WireRequest

pytestmark = [pytest.mark.sglang, pytest.mark.slow, pytest.mark.timeout(600)]
VOCABULARY = 320


def tokens(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(5, 250) for _ in range(count)]


def prefills(server: Server) -> int:
    """Prefill passes so far. The log of a pass may be written after its answer was sent: wait until it stands still."""
    seen: list[int] = []
    while len(seen) < 4 or len(set(seen[-4:])) > 1:
        time.sleep(0.15)
        seen.append(server.log.read_text(errors="replace").count("Prefill batch"))
    return seen[-1]


def replacements(rng: random.Random, source: list[int], count: int, longest: int = 25, cut: int = 60) -> EditScript:
    step = (len(source) - cut) // count
    starts = range(30, 30 + count * step, step)
    return EditScript(
        tuple(Directive(a, a + cut, tuple(tokens(rng, rng.randint(3, longest))), Mode.AMORTIZE) for a in starts)
    )


def receipt_of(answer: dict[str, Any]) -> Receipt:
    receipt = Receipt.from_meta_info(answer["meta_info"])
    assert receipt is not None
    return receipt


class Bench:
    """A server whose log tells of each pass, and the oracle for its model."""

    def __init__(self, servers: Servers, kind: str, *, chunked: bool = True) -> None:
        self.server = servers.talking(kind) if chunked else servers.unchunked(kind)
        self.oracle = Oracle(servers.model(kind))
        self.server.flush()
        self.rng = random.Random(7)

    def turn(
        self, script: EditScript, source: list[int], *, tail: int = 13, count: int = 1, **extra: Any
    ) -> tuple[dict[str, Any], Receipt, State, int]:
        """Serve the source, then its edit. Returns the answer, its receipt, the state, and the passes it took."""
        self.server.flush()
        self.server.generate(source)
        prompt = script.apply(source) + tokens(self.rng, tail)
        before = prefills(self.server)
        answer = self.server.generate(prompt, WireRequest.build(script, source).to_json(), tokens=count, **extra)
        passes = prefills(self.server) - before
        receipt = receipt_of(answer)
        wanted, state = self.oracle.replay(self.oracle.clean(source)[1], prompt, receipt, script.directives[0].start)
        assert distance(first_logprobs(answer, VOCABULARY), wanted) < 1e-4, receipt
        hits = receipt.prefix_tokens + receipt.spliced_tokens
        assert hits == answer["meta_info"]["cached_tokens"], receipt
        return answer, receipt, state, passes


@pytest.mark.parametrize("edits", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_an_edited_prompt_costs_one_forward(servers: Servers, kind: str, edits: int) -> None:
    bench = Bench(servers, kind)
    source = tokens(bench.rng, 900)
    answer, receipt, state, passes = bench.turn(replacements(bench.rng, source, edits), source, count=6)
    assert passes == 1
    assert receipt.fallback is None
    assert len(receipt.splices) == edits
    assert distance(first_logprobs(answer, VOCABULARY), bench.oracle.clean(state.tokens)[0]) > 0.01
    # The next turn finds all of it in the cache.
    said = [entry[1] for entry in answer["meta_info"]["output_token_logprobs"]]
    following = state.tokens + said + tokens(bench.rng, 11)
    request = WireRequest(EditScript(), lineage=receipt.lineage, lineage_start=receipt.approximate_from)
    after = bench.server.generate(following, request.to_json())
    held = after["meta_info"]["cached_tokens"]
    assert held == (len(state.tokens) + len(said) - 1) // PAGES[kind] * PAGES[kind]
    state = bench.oracle.extend(state, said[:-1])
    known = State(state.tokens[:held], [(a[:, :, :held], b[:, :, :held]) for a, b in state.layers])
    wanted, _ = bench.oracle._compute(known, following[held:])
    assert distance(first_logprobs(after, VOCABULARY), wanted) < 1e-4
    assert bench.server.accounting()["ok"]


@pytest.mark.parametrize("kind", KINDS)
def test_edited_and_ordinary_requests_share_a_forward(servers: Servers, kind: str) -> None:
    bench = Bench(servers, kind)
    sources = [tokens(bench.rng, bench.rng.randint(300, 500)) for _ in range(4)]
    states = []
    for source in sources:
        bench.server.generate(source)
        states.append(bench.oracle.clean(source)[1])
    scripts = [replacements(bench.rng, s, k, 9, 24) for s, k in zip(sources, (1, 2, 3, 4), strict=True)]
    edited = [sc.apply(s) + tokens(bench.rng, 9) for s, sc in zip(sources, scripts, strict=True)]
    plain = [tokens(bench.rng, 20), sources[0] + tokens(bench.rng, 5)]
    wires = [WireRequest.build(script, source).to_json() for script, source in zip(scripts, sources, strict=True)]
    requests: list[tuple[list[int], Any, int]] = [(ids, wire, 5) for ids, wire in zip(edited, wires, strict=True)]
    requests[1:1] = [(ids, None, 5) for ids in plain]
    before = prefills(bench.server)
    answers = bench.server.generate_all(requests)
    # Whole pages of holes may not fit one chunk of 256 tokens.
    assert prefills(bench.server) - before <= 2
    for answer, (ids, wire, _) in zip(answers, requests, strict=True):
        if wire is None:
            wanted, _ = bench.oracle.clean(ids)
        else:
            index = edited.index(ids)
            first = scripts[index].directives[0].start
            wanted, _ = bench.oracle.replay(states[index], ids, receipt_of(answer), first)
            assert len(receipt_of(answer).splices) == len(scripts[index].directives)
        assert distance(first_logprobs(answer, VOCABULARY), wanted) < 1e-4
    assert bench.server.accounting()["ok"]


def script(*edits: tuple[int, int, int], rng: random.Random) -> EditScript:
    return EditScript(tuple(Directive(a, b, tuple(tokens(rng, n)), Mode.AMORTIZE) for a, b, n in edits))


@pytest.mark.parametrize("kind", KINDS)
def test_corners(servers: Servers, kind: str) -> None:
    """Chunks are 256 tokens here. What does not fit one forward goes on in the next one."""
    bench = Bench(servers, kind)
    rng, source = bench.rng, tokens(bench.rng, 900)
    cases = {
        "holes beyond the budget of a chunk": (((50, 120, 150), (300, 350, 150), (600, 640, 150)), 13, None, 3),
        "a hole longer than a chunk": (((50, 120, 400), (500, 550, 9)), 13, None, 2),
        "deletions among replacements": (((50, 90, 0), (200, 260, 7), (400, 430, 0), (700, 720, 5)), 13, 1, 4),
        "an edit at the start, and an insertion": (((0, 30, 6), (300, 300, 8)), 13, 1, 2),
        "a tail of several chunks": (((60, 90, 7), (300, 330, 8)), 600, None, 2),
        "ten holes": (tuple((40 + 80 * i, 70 + 80 * i, 4) for i in range(10)), 13, None, 10),
    }
    for name, (edits, tail, wanted, splices) in cases.items():
        _, receipt, _, passes = bench.turn(script(*edits, rng=rng), source, tail=tail)
        assert wanted is None or passes == wanted, name
        assert len(receipt.splices) >= splices, (name, receipt)
        assert receipt.fallback is None, (name, receipt)
    assert bench.server.accounting()["ok"]


@pytest.mark.parametrize("kind", KINDS[:1])
def test_a_server_without_chunks_computes_holes_too(servers: Servers, kind: str) -> None:
    bench = Bench(servers, kind, chunked=False)
    source = tokens(bench.rng, 900)
    edits = script((50, 120, 150), (300, 350, 150), (600, 640, 150), rng=bench.rng)
    _, receipt, _, passes = bench.turn(edits, source, tail=300)
    assert passes == 1
    assert receipt.fallback is None
    assert len(receipt.splices) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_logprobs_of_the_prompt_behind_holes(servers: Servers, kind: str) -> None:
    bench = Bench(servers, kind)
    source = tokens(bench.rng, 900)
    edits = script((60, 100, 5), (400, 420, 6), rng=bench.rng)
    answer, receipt, state, _ = bench.turn(edits, source, logprob_start_len=700)
    got = answer["meta_info"]["input_token_logprobs"]
    assert len(got) == len(state.tokens) - 700
    assert receipt.splices[-1].end <= 700
    known = State(state.tokens[:700], [(a[:, :, :700], b[:, :, :700]) for a, b in state.layers])
    for place in range(701, len(state.tokens), 37):
        logprobs, _ = bench.oracle._compute(known, state.tokens[700:place])
        assert abs(float(logprobs[state.tokens[place]]) - got[place - 700][0]) < 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_equal_requests_at_once(servers: Servers, kind: str) -> None:
    bench = Bench(servers, kind)
    source = tokens(bench.rng, 700)
    edits = script((60, 100, 5), (400, 420, 6), rng=bench.rng)
    bench.server.generate(source)
    prompt = edits.apply(source) + tokens(bench.rng, 13)
    answers = bench.server.generate_all([(prompt, WireRequest.build(edits, source).to_json(), 4)] * 3)
    moved = next(receipt for answer in answers if (receipt := receipt_of(answer)).splices)
    wanted, _ = bench.oracle.replay(bench.oracle.clean(source)[1], prompt, moved, 60)
    for answer in answers:
        assert distance(first_logprobs(answer, VOCABULARY), wanted) < 1e-4
    facts = bench.server.accounting()
    assert facts["ok"], facts
    bench.server.flush()
    assert bench.server.accounting()["available"] == facts["size"]
