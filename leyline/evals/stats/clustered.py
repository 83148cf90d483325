"""Intervals and tests for paired trials clustered by task.

SciPy computes whatever it has: Wilson's interval, the exact binomial test behind McNemar's, the paired bootstrap over
tasks and the sign-flip test. This module says what the unit is (a task, with all its trials) and what happens at the
edges: one task, no discordant pair, every trial solved. statsmodels is not used: its exact McNemar test is the same
binomial test, and it has no power of that test. SciPy comes with the `report` and `local` extras and is imported when
it is first needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from leyline.directives import LeylineError
from leyline.directives.counts import count

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]


class StatsError(LeylineError, ValueError):
    """Numbers that no statistic can be made of, or no SciPy to make it. The message says what to change."""


def scipy_stats() -> Any:
    """The module `scipy.stats`. Raises StatsError where it is not installed."""
    try:
        import scipy.stats
    except ImportError as error:
        raise StatsError(f"statistics need {error.name}: pip install 'leyline-kv[report]'") from None
    return scipy.stats


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and its two-sided confidence interval; all three share the estimate's unit.

    The ends are NaN where the data gives no interval (one task, or an empty denominator).
    """

    estimate: float
    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


@dataclass(frozen=True, slots=True)
class Ratio:
    """Numerator and denominator of one task, summed over its trials.

    A solve rate is (solved, trials); a hit rate is (cached tokens, prompt tokens); a mean is (sum, count).
    """

    numerator: float
    denominator: float


def wilson(successes: int, trials: int, confidence: float = 0.95) -> Interval:
    """The Wilson score interval of a proportion (Wilson 1927, JASA 22:209).

    Assumes independent trials: with several seeds a task use `solve_rate`.
    """
    if trials <= 0 or not 0 <= successes <= trials:
        raise StatsError(f"wilson needs 0 <= successes <= trials and trials > 0, got {successes} of {trials}")
    _share("confidence", confidence)
    found = scipy_stats().binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    # At either end rounding leaves the estimate itself outside by an ulp.
    low = 0.0 if successes == 0 else float(found.low)
    high = 1.0 if successes == trials else float(found.high)
    return Interval(successes / trials, low, high)


def wilson_share(share: float, clusters: int, confidence: float = 0.95) -> Interval:
    """Wilson's interval of a mean share over clusters, each counted as one trial.

    share: the mean over all probes, in [0, 1]. It is the interval for probes of a cluster that are all alike, the most
    that clustering can cost: no distribution of cluster means in [0, 1] varies more than `share (1 - share)`.
    """
    if clusters <= 0 or not 0 <= share <= 1:
        raise StatsError(f"wilson_share needs a share in [0, 1] and clusters > 0, got {share} of {clusters}")
    _share("confidence", confidence)
    z2 = float(scipy_stats().norm.ppf(0.5 + confidence / 2)) ** 2
    middle = (share + z2 / (2 * clusters)) / (1 + z2 / clusters)
    half = math.sqrt(z2 * share * (1 - share) / clusters + (z2 / (2 * clusters)) ** 2) / (1 + z2 / clusters)
    return Interval(share, max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half)))


def solve_rate(tasks: Mapping[str, Ratio], confidence: float = 0.95, *, seed: int = 0) -> tuple[Interval, str]:
    """The solve rate over tasks, and the method of its interval: "wilson", "bootstrap", "wilson-tasks" or "one-task".

    tasks: task -> (solved, trials). One trial a task: Wilson. Several: the bootstrap over tasks. Where all tasks
    have one rate (every trial solved, none, or half of each task's) a bootstrap has no width, so Wilson's interval is
    taken as if each task were one trial. Several trials of one task say nothing about others: no interval.
    """
    if not tasks:
        raise StatsError("a solve rate needs at least one task")
    solved = round(sum(task.numerator for task in tasks.values()))
    trials = round(sum(task.denominator for task in tasks.values()))
    if all(task.denominator <= 1 for task in tasks.values()):
        return wilson(solved, trials, confidence), "wilson"
    if solved in (0, trials):
        return wilson(len(tasks) if solved else 0, len(tasks), confidence), "wilson-tasks"
    if len(tasks) == 1:
        return Interval(solved / trials, math.nan, math.nan), "one-task"
    if len({task.numerator / task.denominator for task in tasks.values() if task.denominator}) == 1:
        return wilson_share(solved / trials, len(tasks), confidence), "wilson-tasks"
    return cluster_ratio(tasks, confidence, seed=seed), "bootstrap"


class ClusterBootstrap:
    """Percentile bootstrap over whole tasks (Davison and Hinkley 1997, 3.8).

    Tasks are drawn with replacement and bring all their trials, so trials of one task need not be independent. The
    draws depend on `seed`, the number of tasks and `resamples` only. Both arms of a difference see the same draws,
    which is what makes it paired.
    """

    def __init__(self, clusters: int, *, resamples: int = 4000, seed: int = 0) -> None:
        if clusters < 1:
            raise StatsError("a bootstrap needs at least one task")
        if resamples < 100:
            raise StatsError(f"resamples must be at least 100, got {resamples}")
        self.clusters = clusters
        self._resamples = resamples
        self._seed = seed

    def ratio(self, values: Sequence[Ratio], confidence: float = 0.95) -> Interval:
        """The interval of sum(numerators) / sum(denominators); `values` has one entry a task."""
        return self._interval(self._columns(values), _ratio, confidence)

    def difference(self, first: Sequence[Ratio], second: Sequence[Ratio], confidence: float = 0.95) -> Interval:
        """The interval of ratio(second) - ratio(first), both arms on the same tasks in the same order."""
        return self._interval((*self._columns(first), *self._columns(second)), _difference, confidence)

    def _columns(self, values: Sequence[Ratio]) -> tuple[Floats, Floats]:
        scipy_stats()
        import numpy as np

        if len(values) != self.clusters:
            raise StatsError(f"expected one value for each of {count(self.clusters, 'task')}, got {len(values)}")
        return (
            np.array([value.numerator for value in values], dtype=float),
            np.array([value.denominator for value in values], dtype=float),
        )

    def _interval(self, columns: tuple[Floats, ...], statistic: Any, confidence: float) -> Interval:
        import numpy as np

        _share("confidence", confidence)
        estimate = float(statistic(*columns))
        if self.clusters == 1 or math.isnan(estimate):
            return Interval(estimate, math.nan, math.nan)
        drawn = scipy_stats().bootstrap(
            columns,
            statistic,
            paired=True,
            vectorized=True,
            n_resamples=self._resamples,
            batch=max(1, 2_000_000 // self.clusters),
            method="percentile",
            confidence_level=confidence,
            rng=np.random.default_rng([self._seed, self.clusters]),
        )
        # A draw whose denominator is empty has no ratio; it is left out, as a reader would.
        low, high = np.nanpercentile(drawn.bootstrap_distribution, [50 * (1 - confidence), 50 * (1 + confidence)])
        return Interval(estimate, float(low), float(high))


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
    return float(scipy_stats().binomtest(wins, wins + losses).pvalue) if wins + losses else 1.0


def sign_flip(differences: Sequence[float], *, resamples: int = 20_000, seed: int = 0) -> float:
    """The two-sided p value of a zero mean difference when each task's sign may be flipped.

    One difference a task (mean of the task's seeds), so seeds of one task need not be independent. Exact up to 14
    non-zero differences, else Monte Carlo with the observed arrangement counted (Phipson and Smyth 2010).
    """
    nonzero = [d for d in differences if d]
    if len(nonzero) < 2:
        return 1.0  # of one difference either sign is as likely
    scipy = scipy_stats()
    import numpy as np

    moved = np.array(nonzero, dtype=float)
    found = scipy.permutation_test(
        (moved,),
        _sum,
        permutation_type="samples",
        vectorized=True,
        n_resamples=resamples,
        batch=max(1, 2_000_000 // moved.size),
        rng=np.random.default_rng([seed, moved.size]),
    )
    return float(min(1.0, found.pvalue))


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm 1979): the family-wise error stays below any level they are held to."""
    adjusted = [1.0] * len(p_values)
    worst = 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = worst
    return adjusted


def percentile(values: Sequence[float], q: float) -> float:
    """The q-th percentile (0..100) with linear interpolation."""
    if not len(values):
        raise StatsError("a percentile needs at least one value")
    scipy_stats()
    import numpy as np

    return float(np.percentile(values, q))


def _ratio(top: Floats, bottom: Floats, axis: int = -1) -> Any:
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore"):
        tops, bottoms = top.sum(axis=axis), bottom.sum(axis=axis)
        return np.where(bottoms > 0, tops / bottoms, np.nan)


def _difference(a: Floats, b: Floats, c: Floats, d: Floats, axis: int = -1) -> Any:
    return _ratio(c, d, axis) - _ratio(a, b, axis)


def _sum(values: Floats, axis: int = -1) -> Any:
    return values.sum(axis=axis)


def _share(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise StatsError(f"{name} must lie between 0 and 1, got {value}")
