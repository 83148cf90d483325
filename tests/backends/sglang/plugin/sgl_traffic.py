"""Random conversations with directives, sent to a server, and their check against the oracle.

A conversation is a chain of turns: a first prompt, then edits of what the server holds, each with a new tail. It ends
with twins of its last prompt that must not see anything approximate. Every token is random, so that a prompt shares
with another conversation no more than the common beginning.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from sgl_oracle import Oracle, State, distance, first_logprobs
from sgl_server import Server

from leyline.directives import Directive, EditScript, Mode, Receipt, WireRequest

LOW, HIGH = 5, 250
SHARED = random.Random(5)
BEGINNING = [SHARED.randrange(LOW, HIGH) for _ in range(64)]


@dataclass(frozen=True)
class Ask:
    """What a conversation sends next. directives: the request's, as JSON; tokens: to generate."""

    prompt: list[int]
    directives: str | None
    tokens: int


@dataclass
class Exchange:
    """One request. kind: `first`, `turn`, or a twin. source: the tokens that the directives refer to."""

    kind: str
    prompt: list[int]
    answer: dict[str, Any]
    source: list[int] = field(default_factory=list)
    script: EditScript = field(default_factory=EditScript)
    request: WireRequest | None = None

    @property
    def meta(self) -> dict[str, Any]:
        meta: dict[str, Any] = self.answer["meta_info"]
        return meta

    @property
    def receipt(self) -> Receipt | None:
        return Receipt.from_meta_info(self.meta)

    @property
    def output(self) -> list[int]:
        return [entry[1] for entry in self.meta["output_token_logprobs"]]


Conversation = Generator[Ask, dict[str, Any], list[Exchange]]
"""Yields requests, is sent their answers, and returns what was exchanged."""


@dataclass
class Tally:
    """What a run showed. worst: the largest logprob difference by kind of request."""

    worst: dict[str, float] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    fallbacks: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)
    spliced: int = 0
    prompt: int = 0
    spliced_requests: int = 0
    retractions: int = 0
    unverified: int = 0
    failures: list[str] = field(default_factory=list)


def run_conversations(
    server: Server, seeds: Iterable[int], *, turns: int = 5, parallel: int = 12, answer: int = 8, length: int = 260
) -> list[list[Exchange]]:
    """Run conversations, `parallel` at a time, each at its own pace.

    answer: at most so many generated tokens a turn; length: about so many tokens a prompt.
    """

    def run(seed: int) -> list[Exchange]:
        conversation = _converse(random.Random(seed), turns, (1, answer), length)
        ask = next(conversation)
        while True:
            try:
                ask = conversation.send(server.generate(ask.prompt, ask.directives, tokens=ask.tokens))
            except StopIteration as end:
                return end.value

    with ThreadPoolExecutor(parallel) as pool:
        return list(pool.map(run, seeds))


def run_in_step(
    server: Server, seeds: Iterable[int], *, turns: int, answers: tuple[int, int], length: int = 260
) -> list[list[Exchange]]:
    """Run conversations turn by turn: the same turn of all of them reaches the scheduler in one message.

    Which requests meet in the scheduler depends on no timing then. answers: least and most generated tokens a turn.
    They may end earlier, so the scheduler reserves less than all of an answer.
    """
    conversations = [_converse(random.Random(seed), turns, answers, length) for seed in seeds]
    asks = [next(conversation) for conversation in conversations]
    done: list[list[Exchange]] = []
    while asks:
        replies = server.generate_all([(ask.prompt, ask.directives, ask.tokens) for ask in asks])
        asks = []
        for conversation, reply in zip(conversations, replies, strict=True):
            try:
                asks.append(conversation.send(reply))
            except StopIteration as end:  # all have the same number of turns, and end together
                done.append(end.value)
    return done


def _converse(rng: random.Random, turns: int, answers: tuple[int, int], length: int) -> Conversation:
    prompt = BEGINNING + _tokens(rng, rng.randint(length // 3, length))
    exchanges = [Exchange("first", prompt, (yield Ask(prompt, None, rng.randint(*answers))))]
    lineage: str | None = None
    start: int | None = None
    for _ in range(turns - 1):
        source = exchanges[-1].prompt + exchanges[-1].output
        script = random_script(rng, len(source), length)
        request = WireRequest.build(
            script,
            source,
            lineage=lineage,
            lineage_start=start,
            seam=rng.choice([0, 0, 0, 3, 17]),
            honest=rng.random() < 0.03,
        )
        prompt = script.apply(source) + _tokens(rng, rng.randint(1, 20))
        reply = yield Ask(prompt, request.to_json(), rng.randint(*answers))
        exchange = Exchange("turn", prompt, reply, source, script, request)
        exchanges.append(exchange)
        receipt = exchange.receipt
        if receipt is not None:
            lineage, start = receipt.lineage, receipt.approximate_from
    # Twins of the last prompt: they must be answered from honest KV alone.
    forged = WireRequest(EditScript(), lineage=f"L{rng.getrandbits(40):x}", lineage_start=3)
    exchanges.append(Exchange("forged", prompt, (yield Ask(prompt, forged.to_json(), 1))))
    exchanges.append(Exchange("plain", prompt, (yield Ask(prompt, None, 1))))
    return exchanges


def random_script(rng: random.Random, source: int, length: int) -> EditScript:
    """0 to 5 directives; long sources are shortened more than they grow."""
    count = rng.choice([0, 1, 1, 1, 2, 2, 3, 4, 5])
    longest = 60 if source > length else 25
    points = sorted(rng.sample(range(1, source), min(2 * count, source - 1)))
    directives = []
    for start, following in zip(points[::2], points[1::2], strict=False):
        end = min(following, start + rng.choice([0, rng.randint(1, longest), rng.randint(1, longest)]))
        replacement = _tokens(rng, rng.choice([0, 0, rng.randint(1, 30)]))
        mode = Mode.FORGET if rng.random() < 0.08 else Mode.AMORTIZE
        if end == start and not replacement:
            replacement = _tokens(rng, 3)
        directives.append(Directive(start, end, tuple(replacement), mode))
    return EditScript(tuple(directives))


def _tokens(rng: random.Random, count: int) -> list[int]:
    return [rng.randrange(LOW, HIGH) for _ in range(count)]


def verify(oracle: Oracle, conversations: Iterable[list[Exchange]], tolerance: float = 1e-4) -> Tally:
    """Replay every receipt. Turns behind a retracted turn are counted as unverified: the receipt describes the prefill
    before it, and what the tree holds afterwards may have been computed again. So are those whose receipt is of the
    second prefill, which found its own KV again. A first prompt is honest both times."""
    tally = Tally()
    for exchanges in conversations:
        state = State([])
        lost = False
        for exchange in exchanges:
            retracted = int(exchange.meta.get("num_retractions") or 0)
            tally.retractions += retracted
            tally.kinds[exchange.kind] += 1
            tally.prompt += len(exchange.prompt)
            lost = lost or (exchange.kind == "turn" and _prefilled_twice(exchange))
            if exchange.kind == "turn" and lost:
                tally.unverified += 1
                _count(tally, exchange)
                continue
            expected, after = _expected(oracle, state, exchange)
            got = first_logprobs(exchange.answer, len(expected))
            error = distance(expected, got)
            tally.worst[exchange.kind] = max(tally.worst.get(exchange.kind, 0.0), error)
            problem = _problem(exchange)
            if error > tolerance or problem:
                tally.failures.append(f"{exchange.kind}: {error:.1e} {problem or ''} {exchange.receipt}")
            _count(tally, exchange)
            if exchange.kind in ("first", "turn"):
                state = oracle.extend(after, exchange.output)
                lost = lost or (exchange.kind == "turn" and retracted > 0)
    return tally


def _prefilled_twice(exchange: Exchange) -> bool:
    """Whether a request was retracted before its first token, which the receipt's prefill then gave: the server counts
    as cached what the first prefill found."""
    receipt = exchange.receipt
    if receipt is None or not exchange.meta.get("num_retractions"):
        return False
    return bool(receipt.prefix_tokens + receipt.spliced_tokens != exchange.meta["cached_tokens"])


def _expected(oracle: Oracle, state: State, exchange: Exchange) -> tuple[Any, State]:
    receipt = exchange.receipt
    if exchange.kind != "turn" or receipt is None:
        return oracle.clean(exchange.prompt)
    first = exchange.script.directives[0].start if exchange.script else len(exchange.source)
    return oracle.replay(state, exchange.prompt, receipt, first)


def _problem(exchange: Exchange) -> str | None:
    """What in a receipt contradicts the request or the server's own counters."""
    receipt = exchange.receipt
    if exchange.request is None:
        return None if receipt is None or exchange.kind == "forged" else "a receipt for a request without directives"
    if receipt is None:
        return "no receipt"
    if receipt.prompt_tokens != len(exchange.prompt) or receipt.directives != len(exchange.script):
        return "the receipt is of another request"
    if exchange.meta.get("num_retractions"):
        return None
    if receipt.prefix_tokens + receipt.spliced_tokens != exchange.meta["cached_tokens"]:
        return f"cached_tokens is {exchange.meta['cached_tokens']}"
    if exchange.request.honest and receipt.approximate_from is not None:
        return "honest, but approximate"
    forget = next((i for i, d in enumerate(exchange.script) if d.mode is Mode.FORGET), None)
    if forget is not None:
        shift = sum(d.delta for d in exchange.script.directives[:forget])
        behind = exchange.script.directives[forget].start + shift
        if any(splice.end > behind for splice in receipt.splices):
            return "moved KV behind a FORGET"
    return None


def _count(tally: Tally, exchange: Exchange) -> None:
    receipt = exchange.receipt
    if exchange.kind != "turn" or receipt is None:
        return
    tally.spliced += receipt.spliced_tokens
    tally.spliced_requests += bool(receipt.splices)
    tally.outcomes.update(str(outcome) for outcome in receipt.acknowledged)
    if receipt.fallback is not None:
        tally.fallbacks[str(receipt.fallback)] += 1
