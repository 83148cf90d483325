"""How many trials an effect needs before a test has a fair chance to see it.

Neither SciPy nor statsmodels has the power of McNemar's test: the formulas are here, SciPy gives the distributions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from leyline.evals.stats.clustered import StatsError, scipy_stats


def paired_trials(effect: float, discordant: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Pairs for McNemar's test (Connor 1987, Biometrics 43:207).

    effect: difference of the two solve rates. discordant: share of pairs where exactly one arm solves; it is at least
    |effect|.
    """
    _check(power, alpha, discordant=discordant)
    if not 0 < abs(effect) <= discordant:
        raise StatsError(f"the discordant share ({discordant}) must be at least the effect ({abs(effect)}), above 0")
    z_alpha, z_power = _quantiles(power, alpha)
    spread = z_alpha * math.sqrt(discordant) + z_power * math.sqrt(max(0.0, discordant - effect * effect))
    return math.ceil((spread / effect) ** 2)


def paired_power(pairs: int, only_first: float, only_second: float, *, alpha: float = 0.05) -> float:
    """The exact power of the exact McNemar test with `pairs` independent pairs.

    only_first, only_second: probabilities of the two kinds of discordant pair.
    """
    _check(0.5, alpha, only_first=only_first, only_second=only_second)
    discordant = only_first + only_second
    if pairs < 1 or discordant > 1:
        raise StatsError("paired_power needs at least one pair and probabilities that add up to at most 1")
    if discordant == 0:
        return 0.0
    share = only_first / discordant
    binom = scipy_stats().binom
    import numpy as np

    counts = np.arange(1, pairs + 1)  # of discordant pairs
    # The largest number of wins (or of losses) that the two-sided exact test rejects; -1 where it never does.
    cuts = binom.ppf(alpha / 2, counts, 0.5)
    cuts = cuts - (binom.cdf(cuts, counts, 0.5) > alpha / 2)
    reject = binom.cdf(cuts, counts, share) + binom.sf(counts - cuts - 1, counts, share)
    return float(binom.pmf(counts, pairs, discordant) @ reject)


def detectable_effect(pairs: int, discordant: float, *, power: float = 0.8, alpha: float = 0.05) -> float | None:
    """The smallest difference of solve rates that `pairs` pairs would show with this power; None if there is none.

    The inverse of `paired_trials` in its effect, which lies in (0, discordant].
    """
    _check(power, alpha, discordant=discordant)
    if pairs < 1 or discordant <= 0 or paired_trials(discordant, discordant, power=power, alpha=alpha) > pairs:
        return None
    low, high = 0.0, discordant
    for _ in range(50):
        middle = (low + high) / 2
        if paired_trials(middle, discordant, power=power, alpha=alpha) <= pairs:
            high = middle
        else:
            low = middle
    return high


def design_effect(outcomes: Mapping[str, Sequence[float]]) -> float:
    """1 + (m - 1) * ICC: how many times more trials clustered ones are needed than independent ones.

    outcomes: task -> outcome of each trial. The intra-class correlation is the one-way ANOVA estimator, floored at 0;
    m is the mean number of trials a task. One trial a task gives 1.
    """
    groups = [list(values) for values in outcomes.values() if values]
    count = sum(len(g) for g in groups)
    if len(groups) < 2 or count <= len(groups):
        return 1.0
    grand = sum(map(sum, groups)) / count
    means = [sum(g) / len(g) for g in groups]
    between = sum(len(g) * (m - grand) ** 2 for g, m in zip(groups, means, strict=True)) / (len(groups) - 1)
    within = sum((v - m) ** 2 for g, m in zip(groups, means, strict=True) for v in g) / (count - len(groups))
    size = (count - sum(len(g) ** 2 for g in groups) / count) / (len(groups) - 1)
    spread = between + (size - 1) * within
    correlation = max(0.0, (between - within) / spread) if spread > 0 else 0.0
    return 1 + (count / len(groups) - 1) * correlation


def _quantiles(power: float, alpha: float) -> tuple[float, float]:
    normal = scipy_stats().norm
    return float(normal.isf(alpha / 2)), float(normal.ppf(power))


def _check(power: float, alpha: float, **shares: float) -> None:
    for name, value in {"power": power, "alpha": alpha}.items():
        if not 0 < value < 1:
            raise StatsError(f"{name} must lie between 0 and 1, got {value}")
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise StatsError(f"{name} must be a probability, got {value}")
