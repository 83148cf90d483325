"""From logits to an answer: decode until a stop, read the text, and say what was done."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, replace

from torch import Tensor

from leyline.backends.contract import Turn, TurnInput, Usage
from leyline.backends.local.execution import Prefilled
from leyline.backends.local.families import Refusal
from leyline.backends.local.reuse import ReusePlan
from leyline.backends.local.runner import Decoder
from leyline.backends.local.sampling import Sampler
from leyline.directives import Outcome, Receipt
from leyline.rendering.textstream import TextStream
from leyline.rendering.toolcalls import parse_output


@dataclass
class Generated:
    """What was decoded. first, seconds: until the first token was picked, and in all."""

    text: str
    ids: list[int]
    finish_reason: str
    first: float
    seconds: float


def generate(
    decoder: Decoder,
    logits: Tensor,
    sampler: Sampler,
    stream: TextStream,
    stops: Collection[int],
    room: int,
    fed: list[int],
) -> Generated:
    """Decode until a stop, at most `room` tokens. `fed` receives every token whose KV was made."""
    began, first, reason = time.perf_counter(), 0.0, "length"
    for count in range(max(room, 0)):
        token = sampler.pick(logits)
        if not count:
            first = time.perf_counter() - began
        if token in stops:
            reason = "stop"
            break
        stopped = stream.push(token)
        logits = decoder.feed(token)
        fed.append(token)
        if stopped:
            reason = "stop"
            break
    text, ids = stream.finish()
    return Generated(text, ids, reason, first, time.perf_counter() - began)


def answered(
    out: Generated, receipt: Receipt, timings: dict[str, float], prefill: float, prompt: tuple[int, ...]
) -> Turn:
    """The turn of a generated text. timings: seconds of the prefill and the splice; prefill: of both together."""
    parsed = parse_output(out.text, seed=f"{len(prompt)}:{hash(prompt)}")
    cached = receipt.prefix_tokens + receipt.spliced_tokens
    return Turn(
        message=parsed.message(),
        usage=Usage(receipt.prompt_tokens, cached, len(out.ids)),
        receipt=receipt,
        output_ids=tuple(out.ids),
        finish_reason="tool_calls" if parsed.tool_calls else out.finish_reason,
        timings={**timings, "decode": out.seconds, "ttft": prefill + out.first},
    )


def spliced_receipt(plan: ReusePlan, done: Prefilled, count: int, session: TurnInput) -> Receipt:
    """What was done for a prompt of `count` tokens."""
    spliced = sum(m.length for m in plan.moves)
    return Receipt(
        prompt_tokens=count,
        prefix_tokens=plan.prefix,
        spliced_tokens=spliced,
        prefilled_tokens=count - plan.prefix - spliced,
        splices=done.splices,
        approximate_from=plan.approximate_from,
        lineage=plan.lineage,
        fallback=plan.fallback,
        detail=plan.detail,
        directives=len(session.script),
        acknowledged=plan.outcomes,
        choice=None if plan.choice is None else replace(plan.choice, seconds=done.seconds),
        purged_tokens=plan.purged,
    )


def unspliced_receipt(refusal: Refusal, count: int, session: TurnInput) -> Receipt:
    """The receipt of a model that is refused: everything was prefilled."""
    asked = len(session.script)
    return Receipt(
        prompt_tokens=count,
        prefix_tokens=0,
        spliced_tokens=0,
        prefilled_tokens=count,
        fallback=refusal.reason if asked else None,
        detail=refusal.detail if asked else None,
        directives=asked,
        acknowledged=(Outcome.PREFILLED,) * asked,
    )
