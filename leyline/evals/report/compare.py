"""Pairs of arms on the same tasks and seeds: who won where, by how much, and what the run could have seen."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

from leyline.evals.report.numbers import by_task, hit_ratio, is_scored, prefilled_ratio, solved_ratio, told
from leyline.evals.report.sources import ArmTrials, ReportError, Trial
from leyline.evals.stats.clustered import ClusterBootstrap, Interval, Ratio, holm, mcnemar, sign_flip
from leyline.evals.stats.power import design_effect, detectable_effect, paired_power, paired_trials

EFFECT = 0.05
POWER = 0.8
_ALL_PAIRS = 6  # arms of which every pair is compared


@dataclass(frozen=True)
class Comparison:
    """`second` against `first` over the pairs that both have; differences are second minus first.

    wins: pairs only `second` solved. losses: pairs only `first` solved. unscored: pairs where a verdict is missing.
    `pairs = both + wins + losses + neither + unscored`.
    unpaired_first, unpaired_second: trials that the other arm lacks, left out here.
    p_value: exact McNemar where every task has one pair, else the sign-flip test on the tasks' mean differences.
    p_holm: adjusted for the number of comparisons in the report.
    prefilled: difference of prefilled tokens a trial.
    equal: the differences whose pairs are all equal, by name; nothing can be told of them, and they have no interval.
    """

    first: str
    second: str
    pairs: int
    tasks: int
    unpaired_first: int
    unpaired_second: int
    both: int
    wins: int
    losses: int
    neither: int
    unscored: int
    test: str
    p_value: float
    p_holm: float
    solve_rate: Interval | None
    hit_rate: Interval | None
    prefilled: Interval | None
    equal: tuple[str, ...] = ()


@dataclass(frozen=True)
class Need:
    """What it takes to see a difference of EFFECT in solve rate between two arms, at 5 % two-sided and POWER.

    discordant: share of pairs that exactly one arm solved, at least EFFECT. design_effect: how many times more pairs
    clustered trials need; pairs_needed includes it. power_now: of the exact McNemar test for EFFECT with the pairs
    there are. detectable: the smallest difference they would show, None where no difference would be.
    """

    first: str
    second: str
    pairs: int
    discordant: float
    design_effect: float
    pairs_needed: int
    power_now: float | None
    detectable: float | None


def select_pairs(arms: Sequence[ArmTrials], baseline: str | None = None) -> list[tuple[ArmTrials, ArmTrials]]:
    """Which arms are compared: with `baseline` each against it; else all of a few, or within groups of many.

    Arms of one name in several runs are always compared. Raises ReportError for an unknown baseline.
    """
    if baseline is not None:
        base = next((arm for arm in arms if arm.label == baseline), None)
        if base is None:
            raise ReportError(f"no arm is called {baseline!r}; there are: {', '.join(arm.label for arm in arms)}")
        return [(base, arm) for arm in arms if arm is not base]
    if len(arms) <= _ALL_PAIRS:
        return list(combinations(arms, 2))
    chosen = []
    firsts: dict[tuple[str, ...], ArmTrials] = {}
    sizes: dict[tuple[str, ...], int] = {}
    for arm in arms:
        firsts.setdefault(arm.group, arm)
        sizes[arm.group] = sizes.get(arm.group, 0) + 1
    for a, b in combinations(arms, 2):
        close = a.group == b.group and (sizes[a.group] <= _ALL_PAIRS or a is firsts[a.group])
        if close or (a.name == b.name and a.group[0] == b.group[0]):
            chosen.append((a, b))
    return chosen


def compare(pairs: Sequence[tuple[ArmTrials, ArmTrials]], confidence: float = 0.95) -> list[Comparison]:
    """One comparison for each pair of arms, in order, with p values adjusted for their number."""
    found = [_one(first, second, confidence) for first, second in pairs]
    tested = [c for c in found if c.pairs > c.unscored]
    adjusted = dict(zip(map(id, tested), holm([c.p_value for c in tested]), strict=True))
    return [replace(c, p_holm=adjusted.get(id(c), 1.0)) for c in found]


def paired(first: ArmTrials, second: ArmTrials) -> list[tuple[Trial, Trial]]:
    """The trials that both arms have, in order of task and seed."""
    left, right = ({trial.pair: trial for trial in arm.trials} for arm in (first, second))
    return [(left[key], right[key]) for key in sorted(left.keys() & right.keys())]


def needs(pairs: Sequence[tuple[ArmTrials, ArmTrials]]) -> list[Need]:
    """The power of each comparison that has pairs with a verdict."""
    found = []
    for first, second in pairs:
        scored = [pair for pair in paired(first, second) if is_scored(pair[0]) and is_scored(pair[1])]
        if scored:
            found.append(_need(first, second, scored))
    return found


def _one(first: ArmTrials, second: ArmTrials, confidence: float) -> Comparison:
    matched = paired(first, second)
    scored = [pair for pair in matched if is_scored(pair[0]) and is_scored(pair[1])]
    counts = mcnemar((a.record.solved, b.record.solved) for a, b in scored)
    tasks = {a.task for a, _ in scored}
    if len(tasks) == len(scored):
        test, p_value = "McNemar, exact", counts.p_value
    else:
        test, p_value = "sign flip by task", sign_flip(_means(scored))
    measures = {
        "solve_rate": (scored, solved_ratio),
        "hit_rate": (matched, hit_ratio),
        "prefilled": (matched, prefilled_ratio),
    }

    return Comparison(
        first=first.label,
        second=second.label,
        pairs=len(matched),
        tasks=len({a.task for a, _ in matched}),
        unpaired_first=len(first.trials) - len(matched),
        unpaired_second=len(second.trials) - len(matched),
        both=counts.both,
        wins=counts.only_second,
        losses=counts.only_first,
        neither=counts.neither,
        unscored=len(matched) - len(scored),
        test=test,
        p_value=p_value,
        p_holm=1.0,
        solve_rate=_difference(*measures["solve_rate"], confidence),
        hit_rate=_difference(*measures["hit_rate"], confidence),
        prefilled=_difference(*measures["prefilled"], confidence),
        equal=tuple(name for name, (pairs, of) in measures.items() if pairs and all(of(a) == of(b) for a, b in pairs)),
    )


def _difference(
    pairs: Sequence[tuple[Trial, Trial]], of: Callable[[Trial], Ratio], confidence: float
) -> Interval | None:
    first, second = by_task((a for a, _ in pairs), of), by_task((b for _, b in pairs), of)
    if not _weight(first) or not _weight(second):
        return None
    return told(ClusterBootstrap(len(first)).difference(list(first.values()), list(second.values()), confidence))


def _weight(values: Mapping[str, Ratio]) -> float:
    return sum(ratio.denominator for ratio in values.values())


def _means(pairs: Sequence[tuple[Trial, Trial]]) -> list[float]:
    """One difference of solve rates a task."""
    first, second = by_task((a for a, _ in pairs), solved_ratio), by_task((b for _, b in pairs), solved_ratio)
    return [
        second[task].numerator / second[task].denominator - ratio.numerator / ratio.denominator
        for task, ratio in first.items()
    ]


def _need(first: ArmTrials, second: ArmTrials, matched: Sequence[tuple[Trial, Trial]]) -> Need:
    differ = [(a.record.solved != b.record.solved) for a, b in matched]
    discordant = max(EFFECT, sum(differ) / len(matched))
    deltas: dict[str, list[float]] = {}
    for a, b in matched:
        deltas.setdefault(a.task, []).append(float(b.record.solved) - float(a.record.solved))
    effect = design_effect(deltas)
    whole = max(1, round(len(matched) / effect))
    low, high = (discordant - EFFECT) / 2, (discordant + EFFECT) / 2
    return Need(
        first=first.label,
        second=second.label,
        pairs=len(matched),
        discordant=discordant,
        design_effect=effect,
        pairs_needed=math.ceil(paired_trials(EFFECT, discordant, power=POWER) * effect),
        power_now=paired_power(whole, low, high),
        detectable=detectable_effect(whole, discordant, power=POWER),
    )
