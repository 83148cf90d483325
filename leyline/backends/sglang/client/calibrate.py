"""Measures a server's costs with half a minute of requests: what AUTO and `cost_aware` reckon with."""

from __future__ import annotations

import random
import statistics
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from leyline.backends.contract import BackendError
from leyline.backends.sglang.client.facts import ServerFacts
from leyline.backends.sglang.client.fit import Block, Sample, fit
from leyline.backends.sglang.client.server import Transport
from leyline.directives import Costs, Directive, EditScript, Receipt, WireRequest

SHORTEST, LONGEST = 512, 65_536
CROWD = 8
_HOLES = 4
_LOW, _HIGH = 100, 250
"""Token ids of the prompts; every vocabulary has them."""


@dataclass(frozen=True)
class Calibration:
    """What was found. moves: whether the server moved KV; if not, those constants are guesses."""

    costs: Costs
    samples: tuple[Sample, ...]
    server: ServerFacts
    seconds: float

    @property
    def moves(self) -> bool:
        return any(sample.kind == "edit" for sample in self.samples)


def calibrate(
    transport: Transport, seconds: float = 30.0, progress: Callable[[int], None] = lambda _: None
) -> Calibration:
    """Send requests of growing length for about so many seconds, alone on the server. Raises `BackendError`.

    progress: is told each length before it is measured. Prompts are random, in a cache namespace of their own.
    """
    began = time.monotonic()
    info = transport.get("/server_info")
    facts = ServerFacts.read(info)
    probe = _Probe(transport, f"leyline-calibrate-{uuid.uuid4().hex}")
    longest = min(LONGEST, (facts.max_request or LONGEST) - 64, _pool(info) // 4)
    samples: list[Sample] = []
    probe.round(min(SHORTEST, longest), [])  # the first requests of a server compile and allocate
    length, slowest = min(SHORTEST, longest), 0.0
    while length >= 64:
        progress(length)
        for _ in range(3):
            started = time.monotonic()
            probe.round(length, samples)
            slowest = time.monotonic() - started
            # The next round of this length, or one of twice the length, has to fit as well.
            if time.monotonic() - began + slowest > seconds * 0.8:
                break
        if 2 * length > longest or time.monotonic() - began + 3 * slowest > seconds * 0.8:
            break
        length *= 2
    if not samples:
        raise BackendError(f"the server takes prompts of {longest} tokens only: too short to measure costs by")
    start = Costs(token_bytes=_token_bytes(info), chunk=_chunk(info, longest))
    return Calibration(
        replace(fit(samples, start), queue=probe.queue(min(SHORTEST, longest))),
        tuple(samples),
        facts,
        time.monotonic() - began,
    )


class _Probe:
    """Requests of one calibration."""

    def __init__(self, transport: Transport, namespace: str) -> None:
        self._transport, self._namespace = transport, namespace
        self._random = random.Random(0)

    def round(self, length: int, samples: list[Sample]) -> None:
        """A cold prompt, a full hit, a deletion and several replacements of one length."""
        prompt = self._tokens(length)
        for _ in range(2):
            seconds, cached, _ = self._ask(prompt)
            samples.append(Sample("prefill", seconds, length, ((cached, length),)))
        step = length // (_HOLES + 2)
        for count, put in ((1, 0), (_HOLES, 8)):
            spots = [(step * (i + 1), step * (i + 1) + step // 2) for i in range(count)]
            script = EditScript(tuple(Directive(a, b, tuple(self._tokens(put))) for a, b in spots))
            target = script.apply(prompt)
            seconds, cached, receipt = self._ask(target, WireRequest.build(script, prompt))
            if receipt is None or receipt.fallback is not None or not receipt.spliced_tokens:
                continue
            samples.append(Sample("edit", seconds, len(target), _computed(receipt), receipt.spliced_tokens))

    def queue(self, length: int) -> float:
        """Seconds that each further request of a crowd adds to the others' waiting, from prompts that hit in full."""
        prompt = self._tokens(length)
        self._ask(prompt)
        alone = statistics.median(self._ask(prompt)[0] for _ in range(5))
        with ThreadPoolExecutor(CROWD) as pool:
            crowd = [seconds for _ in range(3) for seconds, _, _ in pool.map(self._ask, [prompt] * CROWD)]
        return max(0.0, (statistics.fmean(crowd) - alone) / (CROWD - 1))

    def _tokens(self, count: int) -> list[int]:
        return self._random.choices(range(_LOW, _HIGH), k=count)

    def _ask(self, ids: Sequence[int], request: WireRequest | None = None) -> tuple[float, int, Receipt | None]:
        """Seconds to the first token, cached tokens, receipt."""
        params: dict[str, object] = {"max_new_tokens": 1, "temperature": 0.0, "ignore_eos": True}
        if request is not None:
            params["custom_params"] = {"leyline": request.to_json()}
        body = {"input_ids": list(ids), "sampling_params": params, "extra_key": self._namespace}
        began = time.perf_counter()
        answer = self._transport.post("/generate", body)
        seconds = time.perf_counter() - began
        meta = answer.get("meta_info")
        cached = meta.get("cached_tokens") if isinstance(meta, Mapping) else None
        if type(cached) is not int or not 0 <= cached < len(ids):
            raise BackendError("the server does not say how many tokens were cached; is it an SGLang server?")
        return seconds, cached, Receipt.from_meta_info(meta)


def _computed(receipt: Receipt) -> tuple[Block, ...]:
    """What was computed, from the splices: everything that is not at the prompt's start or moved."""
    edges = [e for s in receipt.splices for e in (s.start, s.end)]
    edges = [receipt.prefix_tokens, *edges, receipt.prompt_tokens]
    return tuple((a, b) for a, b in zip(edges[::2], edges[1::2], strict=True) if a < b)


def _pool(info: Mapping[str, object]) -> int:
    """KV slots of the server: prompts are kept far below, so that nothing is evicted while it is measured."""
    found = info.get("max_total_num_tokens")
    return found if isinstance(found, int) and found > 0 else 4 * LONGEST


def _chunk(info: Mapping[str, object], longest: int) -> int:
    found = info.get("chunked_prefill_size")
    return found if isinstance(found, int) and found > 0 else max(longest, LONGEST)


def _token_bytes(info: Mapping[str, object]) -> int:
    """KV bytes of a token: the pool's gigabytes over its slots; 1 where the server does not say."""
    states = info.get("internal_states")
    usage = states[0].get("memory_usage") if isinstance(states, list) and states and isinstance(states[0], dict) else {}
    gigabytes = usage.get("kvcache") if isinstance(usage, dict) else None
    if not isinstance(gigabytes, int | float) or not gigabytes > 0:
        return 1
    return max(1, round(gigabytes * 2**30 / _pool(info)))
