"""Carrying out a plan: take the prefix, move runs, prefill the rest; all or nothing."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from leyline.backends.local.kv import SequenceKV
from leyline.backends.local.prefix_cache import CachedSequence
from leyline.backends.local.reuse import Move, ReusePlan
from leyline.backends.local.runner import Splicer
from leyline.directives import Splice


@dataclass
class Prefilled:
    """A prompt whose KV is complete. logits: behind its last token; None when nothing was computed.

    splice_seconds is part of seconds.
    """

    sequence: CachedSequence
    logits: Tensor | None
    splices: tuple[Splice, ...]
    seconds: float
    splice_seconds: float


def carry_out(
    runner: Splicer, plan: ReusePlan, prompt: Sequence[int], *, tenant: str | None, page: int, room: int
) -> Prefilled:
    """Make the KV of `prompt` as `plan` says, in a sequence that the caller puts into the cache.

    room: tokens that will be decoded behind the prompt. A base that the prompt extends is extended in place; if
    anything fails on the way it is left as it was.
    """
    began = time.perf_counter()
    sequence, undo = _start(runner, plan, tenant, len(prompt) + room)
    logits: Tensor | None = None
    splices: list[Splice] = []
    try:
        for move in plan.moves:
            logits = _prefill(runner, sequence, prompt, move.target, page, logits=False)
            splices.append(_move(runner, sequence, prompt, plan, move))
        logits = _prefill(runner, sequence, prompt, len(prompt), page, logits=True)
    except BaseException:
        sequence.truncate(undo)
        raise
    sequence.lineage, sequence.approximate_from = plan.lineage, plan.approximate_from
    spent = sum(s.seconds for s in splices)
    return Prefilled(sequence, logits, tuple(splices), time.perf_counter() - began, spent)


def _start(runner: Splicer, plan: ReusePlan, tenant: str | None, capacity: int) -> tuple[CachedSequence, int]:
    """The sequence to write into, holding the plan's prefix, and the length to undo to."""
    base, prefix = plan.base, plan.prefix
    if base is not None and prefix == len(base.ids):
        return base, prefix
    kv = runner.new_kv(capacity)
    sequence = CachedSequence(kv, tenant)
    if base is not None:
        kv.append(base.kv, 0, prefix)
        sequence.ids = base.ids[:prefix]
        sequence.move_counts = base.move_counts[:prefix]
        sequence.prefilled = min(base.prefilled, prefix)
        sequence.exact = min(base.exact, prefix)
    return sequence, prefix


def _prefill(
    runner: Splicer, sequence: CachedSequence, prompt: Sequence[int], end: int, page: int, *, logits: bool
) -> Tensor | None:
    """Compute tokens up to `end` in chunks that are cut at absolute multiples of `page`."""
    hidden: Tensor | None = None
    start = len(sequence.ids)
    while start < end:
        stop = min(end, (start // page + 1) * page)
        hidden = runner.forward(sequence.kv, prompt[start:stop])
        sequence.ids.extend(prompt[start:stop])
        sequence.move_counts.extend(bytes(stop - start))
        if sequence.prefilled == start:
            sequence.prefilled = stop
        if sequence.exact == start and stop - start == page:
            sequence.exact = stop
        start = stop
    return runner.logits(hidden) if logits and hidden is not None else None


def _move(runner: Splicer, sequence: CachedSequence, prompt: Sequence[int], plan: ReusePlan, move: Move) -> Splice:
    began = time.perf_counter()
    donor = plan.donor
    assert donor is not None
    kv: SequenceKV = sequence.kv
    end = move.target + move.length
    kv.reserve(end)
    kv.splice(donor.kv, move.source, move.length, runner.layout, runner.table)
    sequence.ids.extend(prompt[move.target : end])
    moved = donor.move_counts[move.source : move.source + move.length]
    sequence.move_counts.extend(min(g + 1, 255) for g in moved)
    return Splice(move.target, end, move.target - move.source, time.perf_counter() - began)
