"""Intervals and tests for paired trials clustered by task.

Everything here is standard library, so a report reads the same with and without SciPy; the tests hold each function
against SciPy, a closed form or simulated coverage.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from statistics import NormalDist

from leyline.directives import LeylineError


class StatsError(LeylineError, ValueError):
    """Numbers that no statistic can be made of. The message names the argument."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its two-sided confidence interval; all three share the estimate's unit."""

    estimate: float
    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of a proportion (Wilson 1927, JASA 22:209).

    Assumes independent trials: with several seeds a task use `cluster_ratio`.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise StatsError(f"wilson needs 0 <= successes <= trials and trials > 0, got {successes} of {trials}")
    z = _z(confidence)
    p = successes / trials
    scale = 1 + z * z / trials
    centre = (p + z * z / (2 * trials)) / scale
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials * trials)) / scale
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == trials else min(1.0, centre + half)
    return Interval(p, low, high)


@dataclass(frozen=True, slots=True)
class Ratio:
    """Numerator and denominator of one cluster, summed over its trials.

    A solve rate is (solved, trials); a hit rate is (cached tokens, prompt tokens); a mean is (sum, count).
    """

    numerator: float
    denominator: float


class ClusterBootstrap:
    """Percentile bootstrap over whole tasks (Davison and Hinkley 1997, 3.8).

    Tasks are drawn with replacement and bring all their trials, so trials of one task need not be independent. The
    draws depend on `seed`, the number of tasks and `resamples` only: two statistics over the same tasks see the same
    draws, which is what makes their difference paired.
    """

    def __init__(self, clusters: int, *, resamples: int = 4000, seed: int = 0) -> None:
        if clusters < 1:
            raise StatsError("a bootstrap needs at least one task")
        if resamples < 100:
            raise StatsError(f"resamples must be at least 100, got {resamples}")
        generator = random.Random(f"leyline-bootstrap/{seed}/{clusters}")
        population = range(clusters)
        self.clusters = clusters
        self._draws = [generator.choices(population, k=clusters) for _ in range(resamples)]

    def ratio(self, values: Sequence[Ratio], confidence: float = 0.95) -> Interval:
        """The interval of sum(numerators) / sum(denominators); `values` has one entry a task."""
        self._check(values)
        tops = [value.numerator for value in values]
        bottoms = [value.denominator for value in values]
        samples = []
        for draw in self._draws:
            bottom = sum([bottoms[i] for i in draw])
            if bottom:
                samples.append(sum([tops[i] for i in draw]) / bottom)
        return _percentiles(_divide(sum(tops), sum(bottoms)), samples, confidence)

    def difference(self, first: Sequence[Ratio], second: Sequence[Ratio], confidence: float = 0.95) -> Interval:
        """The interval of ratio(second) - ratio(first), both arms on the same tasks in the same order."""
        self._check(first)
        self._check(second)
        a, b = [v.numerator for v in first], [v.denominator for v in first]
        c, d = [v.numerator for v in second], [v.denominator for v in second]
        samples = []
        for draw in self._draws:
            bottom_a, bottom_b = sum([b[i] for i in draw]), sum([d[i] for i in draw])
            if bottom_a and bottom_b:
                samples.append(sum([c[i] for i in draw]) / bottom_b - sum([a[i] for i in draw]) / bottom_a)
        estimate = _divide(sum(c), sum(d)) - _divide(sum(a), sum(b))
        return _percentiles(estimate, samples, confidence)

    def _check(self, values: Sequence[Ratio]) -> None:
        if len(values) != self.clusters:
            raise StatsError(f"expected one value for each of {self.clusters} tasks, got {len(values)}")


def cluster_ratio(
    values: Mapping[str, Ratio], confidence: float = 0.95, *, resamples: int = 4000, seed: int = 0
) -> Interval:
    """`ClusterBootstrap.ratio` over a mapping task -> ratio; tasks are taken in sorted order."""
    bootstrap = ClusterBootstrap(len(values), resamples=resamples, seed=seed)
    return bootstrap.ratio([values[task] for task in sorted(values)], confidence)


@dataclass(frozen=True, slots=True)
class Paired:
    """Counts of paired outcomes and the exact two-sided McNemar p value."""

    both: int
    only_first: int
    only_second: int
    neither: int
    p_value: float

    @property
    def pairs(self) -> int:
        return self.both + self.only_first + self.only_second + self.neither


def mcnemar(pairs: Iterable[tuple[bool, bool]]) -> Paired:
    """The exact McNemar test on (first, second) outcomes of the same task and seed."""
    counts = {(True, True): 0, (True, False): 0, (False, True): 0, (False, False): 0}
    for first, second in pairs:
        counts[bool(first), bool(second)] += 1
    wins, losses = counts[True, False], counts[False, True]
    return Paired(counts[True, True], wins, losses, counts[False, False], sign_test(wins, losses))


def sign_test(wins: int, losses: int) -> float:
    """The two-sided p value of `wins` against `losses` under a fair coin; 1.0 where there is neither."""
    if wins < 0 or losses < 0:
        raise StatsError(f"wins and losses must not be negative, got {wins} and {losses}")
    n = wins + losses
    tail = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, 2 * tail / (1 << n))


def sign_flip(differences: Sequence[float], *, resamples: int = 20_000, seed: int = 0) -> float:
    """The two-sided p value of a zero mean difference when each task's sign may be flipped.

    One difference a task (mean of the task's seeds), so seeds of one task need not be independent. Exact up to 16
    non-zero differences, else Monte Carlo with the observed arrangement counted (Phipson and Smyth 2010).
    """
    moved = [d for d in differences if d]
    if not moved:
        return 1.0
    observed = abs(math.fsum(moved))
    slack = 1e-9 * math.fsum(abs(d) for d in moved)
    if len(moved) <= 16:
        sums = [0.0]
        for d in moved:
            sums = list(chain((s + d for s in sums), (s - d for s in sums)))
        return sum(abs(s) >= observed - slack for s in sums) / len(sums)
    generator = random.Random(f"leyline-sign-flip/{seed}/{len(moved)}")
    extreme = 0
    for _ in range(resamples):
        bits = generator.getrandbits(len(moved))
        total = sum([d if bits >> i & 1 else -d for i, d in enumerate(moved)])
        extreme += abs(total) >= observed - slack
    return (extreme + 1) / (resamples + 1)


def percentile(values: Sequence[float], q: float) -> float:
    """The q-th percentile (0..100) with linear interpolation, as NumPy's default."""
    if not values:
        raise StatsError("a percentile needs at least one value")
    ordered = sorted(values)
    position = (len(ordered) - 1) * q / 100
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)


def _percentiles(estimate: float, samples: Sequence[float], confidence: float) -> Interval:
    if not samples:
        return Interval(estimate, math.nan, math.nan)
    tail = (1 - confidence) / 2 * 100
    return Interval(estimate, percentile(samples, tail), percentile(samples, 100 - tail))


def _divide(top: float, bottom: float) -> float:
    return top / bottom if bottom else math.nan


def _z(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise StatsError(f"confidence must lie between 0 and 1, got {confidence}")
    return NormalDist().inv_cdf(0.5 + confidence / 2)
