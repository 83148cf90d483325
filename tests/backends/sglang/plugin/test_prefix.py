"""How far a kept prefix reaches in a lineage: as far as the tokens are equal, which may be past the first edit.

Where the tokens behind an edit begin like the ones that it took away, the lineage holds them in place; where an edit is
undone, an earlier turn's path still stands. What is kept there was moved before: a replay that computes it is far off.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from sgl_oracle import Oracle, distance, first_logprobs
from sgl_rig import KINDS, Servers
from sgl_server import Server

from leyline.directives import Directive, EditScript, Mode, Outcome, Receipt, WireRequest

pytestmark = [pytest.mark.sglang, pytest.mark.slow, pytest.mark.timeout(600)]
VOCABULARY = 320
BLOCK = 16
"""Tokens that repeat: a page of the server with the larger pages."""


class Conversation:
    """Turns without tails in one lineage, whose KV is approximate from token 32 on; each answer is replayed.

    prompt: the last one. Its tokens `[160, 160 + BLOCK)` stand again at 200, followed by others.
    """

    def __init__(self, server: Server, oracle: Oracle) -> None:
        rng = random.Random(2)
        tokens = [rng.randrange(5, 250) for _ in range(320)]
        tokens[216 : 216 + BLOCK] = tokens[176 : 176 + BLOCK]
        tokens[216 + BLOCK], tokens[176 + BLOCK] = 3, 4
        server.flush()
        server.generate(tokens)
        self._server, self._oracle = server, oracle
        self.prompt, self.state = tokens, oracle.clean(tokens)[1]
        self.lineage: dict[str, Any] = {}
        self.edit(Directive(32, 48, (), Mode.AMORTIZE))
        assert self.receipt.approximate_from == 32

    def edit(self, directive: Directive, seam: int = 0) -> None:
        script, self._first = EditScript((directive,)), directive.start
        request = WireRequest.build(script, self.prompt, seam=seam, **self.lineage)
        self.prompt, self.before = script.apply(self.prompt), self.state
        answer = self._server.generate(self.prompt, request.to_json())
        receipt = Receipt.from_meta_info(answer["meta_info"])
        assert receipt is not None
        self.receipt, self.got = receipt, first_logprobs(answer, VOCABULARY)
        self.lineage = {"lineage": receipt.lineage, "lineage_start": receipt.approximate_from}
        expected, self.state = self._oracle.replay(self.before, self.prompt, receipt, self._first)
        assert distance(expected, self.got) < 1e-4, receipt

    def error_if_kept(self, tokens: int) -> float:
        """How far the last answer is from what it would be, had only `tokens` been kept and the next ones computed."""
        receipt = replace(
            self.receipt,
            prefix_tokens=tokens,
            prefilled_tokens=self.receipt.prompt_tokens - self.receipt.spliced_tokens - tokens,
        )
        return distance(self._oracle.replay(self.before, self.prompt, receipt, self._first)[0], self.got)


@pytest.mark.parametrize("seam", [0, 2 * BLOCK])
@pytest.mark.parametrize("kind", KINDS)
def test_tokens_that_an_edit_leaves_as_they_were_are_kept(servers: Servers, kind: str, seam: int) -> None:
    turn = Conversation(servers.plugin(kind), Oracle(servers.model(kind)))
    turn.edit(Directive(160, 200, (), Mode.AMORTIZE), seam)
    receipt = turn.receipt
    assert receipt.acknowledged == (Outcome.SPLICED,)
    assert receipt.prefix_tokens == 160 + BLOCK
    assert receipt.splices[0].start == 160 + max(seam, BLOCK)
    assert turn.error_if_kept(160) > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_a_forget_keeps_nothing_of_its_span_even_where_the_tokens_stay(servers: Servers, kind: str) -> None:
    turn = Conversation(servers.plugin(kind), Oracle(servers.model(kind)))
    turn.edit(Directive(160, 200, (), Mode.FORGET))
    assert turn.receipt.approximate_from == 32
    assert (turn.receipt.prefix_tokens, turn.receipt.spliced_tokens) == (160, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_an_edit_that_is_undone_finds_the_earlier_turn(servers: Servers, kind: str) -> None:
    turn = Conversation(servers.plugin(kind), Oracle(servers.model(kind)))
    before, removed = turn.prompt, tuple(turn.prompt[160:176])
    turn.edit(Directive(160, 176, (5,) * 16, Mode.AMORTIZE))
    assert turn.receipt.prefix_tokens == 160
    turn.edit(Directive(160, 176, removed, Mode.AMORTIZE))
    assert turn.prompt == before
    assert turn.receipt.acknowledged == (Outcome.CACHED,)
    assert turn.receipt.prefix_tokens > 280
    assert turn.error_if_kept(160) > 1e-3
