"""What to reuse for a turn: decided from token ids alone, before anything is computed or moved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from leyline.backends.acknowledge import forget_point, outcomes, refusal, unspliced
from leyline.backends.contract import TurnInput
from leyline.backends.local.prefix_cache import CachedSequence, PrefixCache
from leyline.directives import (
    Choice,
    Costs,
    Fallback,
    Outcome,
    Segment,
    choose,
    reusable,
)

DEFAULT_COSTS = Costs()


@dataclass(frozen=True, slots=True)
class Rules:
    """How the cache may be used.

    page: chunks of prefill are cut at multiples of it, and prefill-made KV is reused in whole pages.
    generation_limit: a token's KV is moved at most so often.
    reuse_generated: whether decoded tokens are reused too (as servers do) or prefilled again.
    costs: of this model on this machine, for AUTO.
    """

    page: int
    generation_limit: int
    reuse_generated: bool
    secret: bytes
    costs: Costs = DEFAULT_COSTS


@dataclass(frozen=True, slots=True)
class Move:
    """Tokens `[source, source + length)` of the donor become tokens `[target, target + length)` of the prompt."""

    source: int
    target: int
    length: int


@dataclass(frozen=True, slots=True)
class ReusePlan:
    """Take `prefix` tokens of `base`, then move and prefill from left to right.

    approximate_from: tokens before it are honest, None when all are; lineage owns the rest. choice: what AUTO took.
    purged: tokens that a purge evicted.
    """

    base: CachedSequence | None = None
    prefix: int = 0
    donor: CachedSequence | None = None
    moves: tuple[Move, ...] = ()
    lineage: str | None = None
    approximate_from: int | None = None
    fallback: Fallback | None = None
    detail: str | None = None
    outcomes: tuple[Outcome, ...] = ()
    choice: Choice | None = None
    purged: int | None = None

    def computed(self, length: int) -> list[tuple[int, int]]:
        """What a prompt of `length` tokens has computed, as `(start, end)`."""
        edges = [self.prefix, *(edge for m in self.moves for edge in (m.target, m.target + m.length)), length]
        return list(zip(edges[::2], edges[1::2], strict=True))


def plan_turn(cache: PrefixCache, prompt: Sequence[int], turn: TurnInput, rules: Rules) -> ReusePlan:
    """The plan of a turn. Never raises for a bad script: the plan is then the honest one, with the reason."""
    script, count = turn.script, len(turn.script)
    if turn.honest:
        plan = _prefix_plan(cache, prompt, turn, rules, lineages=(), strict=True)
        return replace(plan, outcomes=tuple(unspliced(d) for d in script))
    if not script:
        return _prefix_plan(cache, prompt, turn, rules, lineages=(turn.lineage,))
    refused = refusal(prompt, turn)
    if refused is not None:
        reason, detail = refused
        plan = _prefix_plan(cache, prompt, turn, rules, lineages=())
        return replace(plan, fallback=reason, detail=detail, outcomes=(Outcome.PREFILLED,) * count)
    return _script_plan(cache, prompt, turn, rules)


def honest_plan(
    cache: PrefixCache, prompt: Sequence[int], turn: TurnInput, rules: Rules, reason: Fallback, detail: str
) -> ReusePlan:
    """The plan that ignores directives and lineage, for a turn whose first plan failed."""
    plan = _prefix_plan(cache, prompt, turn, rules, lineages=())
    return replace(plan, fallback=reason, detail=detail, outcomes=(Outcome.PREFILLED,) * len(turn.script))


def derive_lineage(secret: bytes, source: Sequence[int], turn: TurnInput) -> str:
    """The name of what `turn` makes of `source`: the same request again finds it, nobody else does."""
    edits = [[d.start, d.end, d.replacement, str(d.mode)] for d in turn.script]
    content = json.dumps([turn.tenant, turn.lineage, list(source), edits, turn.seam], separators=(",", ":"))
    return blake2b(content.encode(), digest_size=12, key=secret[:64]).hexdigest()


def _prefix_plan(
    cache: PrefixCache,
    prompt: Sequence[int],
    turn: TurnInput,
    rules: Rules,
    *,
    lineages: Sequence[str | None],
    forget: int | None = None,
    derived: str | None = None,
    strict: bool = False,
) -> ReusePlan:
    """The longest reusable prefix. Under `lineages` approximate KV counts, but only before `forget`.

    strict: of honest KV only whole pages of prefill, no decoded tokens.
    """
    limit = len(prompt) - 1

    def reach(sequence: CachedSequence, common: int) -> int:
        length = min(common, sequence.honest_length)
        if sequence.lineage is not None:
            if sequence.lineage == derived:
                length = common
            elif sequence.lineage in lineages:
                length = max(length, common if forget is None else min(common, forget))
        return _whole(sequence, min(length, limit), rules, strict)

    base, prefix = cache.match(prompt, turn.tenant, reach)
    if base is None or base.approximate_from is None or base.approximate_from >= prefix:
        return ReusePlan(base, prefix)
    return ReusePlan(base, prefix, lineage=base.lineage, approximate_from=base.approximate_from)


def _whole(sequence: CachedSequence, length: int, rules: Rules, strict: bool) -> int:
    """How much of a usable prefix is reused.

    Prefill-made KV is reused up to a page bound, so that the rest is computed in the shapes of a cold prefill. Behind
    the first decoded or moved token there are no such bits to agree with, and every token is reused.
    """
    if length > sequence.honest_length:
        return length
    if strict or not rules.reuse_generated or length <= sequence.prefilled:
        return min(length, sequence.exact) // rules.page * rules.page
    return length


def _script_plan(cache: PrefixCache, prompt: Sequence[int], turn: TurnInput, rules: Rules) -> ReusePlan:
    assert turn.source is not None
    source, script = turn.source, turn.script
    derived, forget = derive_lineage(rules.secret, source, turn), forget_point(script)
    plan = _prefix_plan(
        cache,
        prompt,
        turn,
        rules,
        lineages=(turn.lineage,),
        forget=forget,
        derived=derived,
        strict=forget is not None,  # what FORGET answers is the clean prefill's, to the bit
    )
    if plan.lineage is not None:  # a new name, so that the branch from before the edit is out of reach
        plan = replace(plan, lineage=derived)
    wanted = _wanted(script.segments(len(source), seam=turn.seam), plan.prefix, len(prompt) - 1)
    if not wanted:
        return replace(plan, outcomes=_outcomes(turn, plan, wanted))
    donor, held = cache.match(source, turn.tenant, lambda s, common: min(common, s.usable(turn.lineage)))
    available = [_clip(m, held) for m in wanted]
    moves: list[Move] = []
    if donor is not None:
        for move in available:
            moves.extend(_within_limit(move, donor.move_counts, rules.generation_limit))
    covered, moved = sum(m.length for m in available), sum(m.length for m in moves)
    if covered < sum(m.length for m in wanted):
        reason, detail = _missing(cache, turn, wanted, held)
        plan = replace(plan, fallback=reason, detail=detail)
    elif moved < covered:
        detail = f"{covered - moved} tokens were moved {rules.generation_limit} times already and were prefilled"
        plan = replace(plan, fallback=Fallback.GENERATION_LIMIT, detail=detail)
    if script.chooses:
        runs = reusable(script, [(m.target, m.target + m.length, m.target - m.source) for m in moves])
        choice, taken = choose(rules.costs, plan.prefix, len(prompt), runs)
        plan = replace(plan, choice=choice)
        moves = [move for move, moved in zip(moves, taken, strict=True) if moved]
    if moves:
        approximate = moves[0].target if plan.approximate_from is None else min(plan.approximate_from, moves[0].target)
        plan = replace(plan, donor=donor, moves=tuple(moves), lineage=derived, approximate_from=approximate)
    return replace(plan, outcomes=_outcomes(turn, plan, wanted))


def _wanted(segments: Sequence[Segment], prefix: int, limit: int) -> list[Move]:
    """The runs to move, without what the prefix gives already and without the prompt's last token."""
    wanted = []
    for s in segments:
        if s.kind == "reuse" and s.source_start is not None:
            start, end = max(s.target_start, prefix), min(s.target_end, limit)
            if start < end:
                wanted.append(Move(start - s.delta, start, end - start))
    return wanted


def _clip(move: Move, held: int) -> Move:
    return Move(move.source, move.target, max(0, min(move.length, held - move.source)))


def _within_limit(move: Move, move_counts: bytearray, limit: int) -> list[Move]:
    """The sub-runs of a move whose tokens may be moved once more."""
    runs: list[Move] = []
    start: int | None = None
    for k in range(move.length + 1):
        allowed = k < move.length and move_counts[move.source + k] < limit
        if allowed and start is None:
            start = k
        elif not allowed and start is not None:
            runs.append(Move(move.source + start, move.target + start, k - start))
            start = None
    return runs


def _missing(cache: PrefixCache, turn: TurnInput, wanted: Sequence[Move], held: int) -> tuple[Fallback, str]:
    """Why the donor does not cover every run."""
    assert turn.source is not None
    there = cache.match(turn.source, turn.tenant, lambda _, common: common)[1]
    needed = next(m for m in wanted if m.source + m.length > held)
    if there > max(held, needed.source):
        return (
            Fallback.LINEAGE_MISMATCH,
            f"the source is cached, but from token {held} on it belongs to another lineage than the turn's",
        )
    edited = [d for d in turn.script if d.end <= needed.source]
    if held < edited[-1].end:
        return (
            Fallback.SOURCE_MISMATCH,
            f"the source is cached up to token {held} of {len(turn.source)}; the removed span ends at {edited[-1].end}",
        )
    return (
        Fallback.DONOR_MISSING,
        f"the source is cached up to token {held}; the run to move ends at {needed.source + needed.length}",
    )


def _outcomes(turn: TurnInput, plan: ReusePlan, wanted: Sequence[Move]) -> tuple[Outcome, ...]:
    assert turn.source is not None
    return outcomes(turn.script, len(turn.source), [m.source for m in wanted], [m.source for m in plan.moves])
