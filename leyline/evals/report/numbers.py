"""The numbers of one arm."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from leyline.evals.report.sources import ArmTrials, Trial
from leyline.evals.stats.clustered import Interval, Ratio, cluster_ratio, percentile, solve_rate
from leyline.evals.trials.record import TrialOutcome, TurnRecord

TOKENS = ("prompt", "prefix", "spliced", "prefilled", "completion")


@dataclass(frozen=True)
class Tokens:
    """Sums over all turns of all trials. `prompt = prefix + spliced + prefilled` but in `unbalanced` turns.

    shed: tokens the policy kept out of prompts, over the `shed_turns` turns whose unedited length is known.
    """

    prompt: int
    prefix: int
    spliced: int
    prefilled: int
    completion: int
    shed: int
    shed_turns: int
    unbalanced: int


@dataclass(frozen=True)
class Timing:
    """Seconds; a value is None where no record has it, and each count says how many do."""

    ttft_p50: float | None
    ttft_p95: float | None
    ttft_turns: int
    wall_total: float
    wall_p50: float | None
    wall_trials: int
    energy_j: float | None
    energy_trials: int


@dataclass(frozen=True)
class Cost:
    """What a solved task costs: sums over scored trials, failed ones included, over the solved ones among them.

    prefilled: tokens. compute_s: seconds in which a model in the trial's process prefilled, spliced and decoded, over
    the `compute_trials` whose turns all say so. energy_j: joules, over the `energy_trials` that were metered. Each is
    None where no such trial is solved. Without intervals: a resample that solves nothing has no such ratio.
    """

    prefilled: float | None
    compute_s: float | None
    compute_trials: int
    energy_j: float | None
    energy_trials: int


@dataclass(frozen=True)
class ArmNumbers:
    """One arm. `trials = solved + failed + limit + error + unscored`; rates are shares, intervals are two-sided.

    Unscored trials wait for a verdict: they are no part of the solve rate, whose denominator is `scored`.
    """

    label: str
    control: bool
    facts: dict[str, str]
    group: str
    trials: int
    tasks: int
    seeds: int
    solved: int
    failed: int
    limit: int
    error: int
    unscored: int
    scored: int
    solve_rate: Interval | None
    solve_method: str | None
    hit_rate: Interval | None
    turns: int
    tokens: Tokens
    prefilled_per_trial: Interval | None
    per_solved: Cost
    edits: int
    directives: int
    fallbacks: dict[str, int]
    approximate: int
    timing: Timing


def arm_numbers(arm: ArmTrials, confidence: float = 0.95) -> ArmNumbers:
    """Count one arm. The arm has at least one trial."""
    trials = arm.trials
    turns = [turn for trial in trials for turn in trial.record.turns]
    outcomes = Counter(trial.record.outcome for trial in trials)
    scored = [trial for trial in trials if is_scored(trial)]
    rate, method = solve_rate(by_task(scored, solved_ratio), confidence) if scored else (None, None)
    return ArmNumbers(
        label=arm.label,
        control=arm.control,
        facts=arm.facts,
        group=" · ".join(part for part in arm.group if part),
        trials=len(trials),
        tasks=len({trial.task for trial in trials}),
        seeds=len({trial.record.seed for trial in trials}),
        solved=outcomes[TrialOutcome.SOLVED],
        failed=outcomes[TrialOutcome.FAILED],
        limit=outcomes[TrialOutcome.LIMIT],
        error=outcomes[TrialOutcome.ERROR],
        unscored=outcomes[TrialOutcome.UNSCORED],
        scored=len(scored),
        solve_rate=rate,
        solve_method=method,
        hit_rate=_ratio_or_none(by_task(trials, hit_ratio), confidence),
        turns=len(turns),
        tokens=_tokens(turns),
        prefilled_per_trial=_ratio_or_none(by_task(trials, prefilled_ratio), confidence),
        per_solved=_cost(scored),
        edits=sum(turn.edits for turn in turns),
        directives=sum(turn.directives for turn in turns),
        fallbacks=dict(sorted(Counter(turn.fallback for turn in turns if turn.fallback).items())),
        approximate=sum(trial.record.approximate for trial in trials),
        timing=_timing(trials, turns),
    )


def is_scored(trial: Trial) -> bool:
    return trial.record.outcome is not TrialOutcome.UNSCORED


def solved_ratio(trial: Trial) -> Ratio:
    return Ratio(trial.record.solved, 1)


def hit_ratio(trial: Trial) -> Ratio:
    record = trial.record
    return Ratio(record.total("prefix") + record.total("spliced"), record.total("prompt"))


def prefilled_ratio(trial: Trial) -> Ratio:
    return Ratio(trial.record.total("prefilled"), 1)


def by_task(trials: Iterable[Trial], of: Callable[[Trial], Ratio]) -> dict[str, Ratio]:
    """The ratio of each task, summed over its trials; in order of the task's name."""
    sums: dict[str, list[float]] = {}
    for trial in trials:
        ratio = of(trial)
        held = sums.setdefault(trial.task, [0, 0])
        held[0] += ratio.numerator
        held[1] += ratio.denominator
    return {task: Ratio(*sums[task]) for task in sorted(sums)}


def _ratio_or_none(values: dict[str, Ratio], confidence: float) -> Interval | None:
    if not sum(value.denominator for value in values.values()):
        return None
    return told(cluster_ratio(values, confidence))


def told(value: Interval) -> Interval:
    """Without its ends where it has no width: tasks that are all alike do not tell how far others differ."""
    if value.high - value.low > 1e-12 * max(1.0, abs(value.estimate)):  # as wide as rounding makes it
        return value
    return Interval(value.estimate, math.nan, math.nan)


def _cost(scored: Sequence[Trial]) -> Cost:
    def over_solved(spent: Sequence[tuple[Trial, float]]) -> float | None:
        solved = sum(trial.record.solved for trial, _ in spent)
        return sum(value for _, value in spent) / solved if solved else None

    computed = [(trial, seconds) for trial in scored if (seconds := _compute(trial)) is not None]
    metered = [(trial, trial.record.energy_j) for trial in scored if trial.record.energy_j is not None]
    return Cost(
        prefilled=over_solved([(trial, trial.record.total("prefilled")) for trial in scored]),
        compute_s=over_solved(computed),
        compute_trials=len(computed),
        energy_j=over_solved(metered),
        energy_trials=len(metered),
    )


def _compute(trial: Trial) -> float | None:
    """Seconds of prefill, splice and decode; None where a turn does not say."""
    total = 0.0
    for turn in trial.record.turns:
        if turn.prefill_s is None or turn.decode_s is None:
            return None
        total += turn.prefill_s + turn.decode_s + (turn.splice_s or 0.0)
    return total if trial.record.turns else None


def _tokens(turns: Sequence[TurnRecord]) -> Tokens:
    known = [turn for turn in turns if turn.full is not None]
    return Tokens(
        **{name: sum(getattr(turn, name) for turn in turns) for name in TOKENS},
        shed=sum(turn.shed for turn in known),
        shed_turns=len(known),
        unbalanced=sum(not turn.balanced for turn in turns),
    )


def _timing(trials: Sequence[Trial], turns: Sequence[TurnRecord]) -> Timing:
    ttft = [turn.ttft for turn in turns if turn.ttft is not None]
    wall = [trial.record.wall_s for trial in trials if trial.record.wall_s > 0]
    energy = [trial.record.energy_j for trial in trials if trial.record.energy_j is not None]
    return Timing(
        ttft_p50=percentile(ttft, 50) if ttft else None,
        ttft_p95=percentile(ttft, 95) if ttft else None,
        ttft_turns=len(ttft),
        wall_total=sum(wall),
        wall_p50=percentile(wall, 50) if wall else None,
        wall_trials=len(wall),
        energy_j=sum(energy) if energy else None,
        energy_trials=len(energy),
    )
