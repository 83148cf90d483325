"""Random conversations against the independent oracle: twelve at a time, in a pool that evicts, pages of 1 and 16."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sgl_oracle import Oracle, distance, first_logprobs
from sgl_rig import KINDS, PRESSED_POOL, Servers
from sgl_traffic import BEGINNING, run_conversations, run_in_step, verify

from leyline.directives import Directive, EditScript, Mode, Receipt, WireRequest

pytestmark = [pytest.mark.sglang, pytest.mark.slow, pytest.mark.timeout(900)]
VOCABULARY = 320


@pytest.mark.parametrize("kind", KINDS)
def test_every_answer_is_what_its_receipt_says(servers: Servers, kind: str) -> None:
    server = servers.plugin(kind)
    server.flush()
    conversations = run_conversations(server, range(22), turns=10)
    tally = verify(Oracle(servers.model(kind)), conversations)
    assert tally.failures == []
    directed = sum(bool(e.script) for exchanges in conversations for e in exchanges)
    assert directed >= 150
    assert tally.spliced_requests >= 60
    assert tally.unverified == 0
    assert set(tally.fallbacks) <= {
        "source_mismatch",
        "donor_missing",
        "generation_limit",
        "no_slots",
        "page_alignment",
    }
    facts = server.accounting()
    assert facts["ok"], facts
    server.flush()
    facts = server.accounting()
    assert facts["ok"], facts
    assert facts["available"] == facts["size"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_controls_fail(servers: Servers, kind: str) -> None:
    """A splice whose keys were not rotated, and a clean prefill, are both far from a spliced answer."""
    server, oracle, rng = servers.plugin(kind), Oracle(servers.model(kind)), random.Random(3)
    server.flush()
    source = [rng.randrange(5, 250) for _ in range(300)]
    server.generate(source)
    script = EditScript((Directive(96, 160, (), Mode.AMORTIZE),))
    prompt = [*script.apply(source), 7, 8]
    answer = server.generate(prompt, WireRequest.build(script, source).to_json())
    receipt = Receipt.from_meta_info(answer["meta_info"])
    assert receipt is not None
    assert receipt.spliced_tokens >= 120
    got = first_logprobs(answer, VOCABULARY)
    _, state = oracle.clean(source)
    assert distance(oracle.replay(state, prompt, receipt, 96)[0], got) < 1e-4
    assert distance(oracle.replay(state, prompt, receipt, 96, rotate=False)[0], got) > 0.05
    assert distance(oracle.clean(prompt)[0], got) > 0.05


@pytest.mark.parametrize("kind", KINDS)
def test_many_share_a_donor(servers: Servers, kind: str) -> None:
    """Twelve different edits of one source at the same time: each is moved from it, and none disturbs another."""
    server, oracle, rng = servers.plugin(kind), Oracle(servers.model(kind)), random.Random(9)
    server.flush()
    source = [rng.randrange(5, 250) for _ in range(300)]
    server.generate(source)
    _, state = oracle.clean(source)

    def edit(start: int) -> tuple[int, list[int], dict[str, Any]]:
        script = EditScript((Directive(start, start + 20, (start % 250,), Mode.AMORTIZE),))
        prompt = [*script.apply(source), 7]
        return start, prompt, server.generate(prompt, WireRequest.build(script, source).to_json())

    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(edit, range(20, 140, 10)))
    for start, prompt, answer in answers:
        receipt = Receipt.from_meta_info(answer["meta_info"])
        assert receipt is not None
        assert receipt.spliced_tokens >= 100, receipt
        wanted, _ = oracle.replay(state, prompt, receipt, start)
        assert distance(wanted, first_logprobs(answer, VOCABULARY)) < 1e-4
    assert server.accounting()["ok"]


@pytest.mark.parametrize("kind", KINDS)
def test_under_pressure_requests_are_retracted_and_the_scheduler_lives(servers: Servers, kind: str) -> None:
    """Long answers that the scheduler did not reserve for: running requests are thrown out and come back.

    Retraction is certain: sixteen first prompts arrive in one message, and with their answers they need about twice the
    pool. Nothing is reserved for running requests, so that they are admitted until the pool has one answer left, which
    they share.

    A chunk that was cut for a splice leaves budget over, on which stock admits others; without setting aside what the
    cut request will still take, such traffic ends the scheduler in `alloc_for_extend`, where stock, under the same
    prompts, lives. See `leyline.backends.sglang.plugin.admission`.
    """
    server = servers.pressed(kind)
    server.flush()
    conversations = run_in_step(server, range(100, 116), turns=3, answers=(150, 250))
    first = [exchanges[0] for exchanges in conversations]
    own = sum(len(exchange.prompt) - len(BEGINNING) + len(exchange.output) for exchange in first)
    assert own > 1.5 * PRESSED_POOL
    tally = verify(Oracle(servers.model(kind)), conversations)
    assert tally.failures == []
    retractions = sum(exchange.meta["num_retractions"] for exchange in first)
    assert retractions > 0
    assert tally.spliced_requests > 0
    assert tally.unverified < tally.kinds["turn"] / 2
    assert server.alive(), server.tail()
    facts = server.accounting()
    assert facts["ok"], facts
    server.flush()
    assert server.accounting()["available"] == facts["size"]
