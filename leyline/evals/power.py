"""How many trials an effect needs before a test has a fair chance to see it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist

from leyline.evals.stats import StatsError, sign_test


def unpaired_trials(first: float, second: float, *, power: float = 0.8, alpha: float = 0.05) -> int:
    """Trials an arm for a two-sided test of two independent solve rates (Fleiss 1981, eq. 3.14, no correction)."""
    _check(power, alpha, first=first, second=second)
    if first == second:
        raise StatsError("two equal rates have no effect to detect")
    z_alpha, z_power = _quantiles(power, alpha)
    mean = (first + second) / 2
    spread = z_alpha * math.sqrt(2 * mean * (1 - mean))
    spread += z_power * math.sqrt(first * (1 - first) + second * (1 - second))
    return math.ceil((spread / (second - first)) ** 2)


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
    total = 0.0
    for m in range(1, pairs + 1):
        weight = _binomial(pairs, m, discordant)
        if weight < 1e-12:
            continue
        cut = _critical(m, alpha)
        if cut >= 0:
            reject = sum(_binomial(m, k, share) + _binomial(m, m - k, share) for k in range(cut + 1))
            total += weight * reject
    return total


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


def _critical(m: int, alpha: float) -> int:
    """The largest k with sign_test(k, m - k) <= alpha, or -1."""
    low, high = -1, m // 2
    while low < high:
        middle = (low + high + 1) // 2
        if sign_test(middle, m - middle) <= alpha:
            low = middle
        else:
            high = middle - 1
    return low


def _binomial(n: int, k: int, p: float) -> float:
    if p in (0.0, 1.0):
        return float(k == round(n * p))
    log = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return math.exp(log + k * math.log(p) + (n - k) * math.log1p(-p))


def _quantiles(power: float, alpha: float) -> tuple[float, float]:
    normal = NormalDist()
    return normal.inv_cdf(1 - alpha / 2), normal.inv_cdf(power)


def _check(power: float, alpha: float, **shares: float) -> None:
    for name, value in {"power": power, "alpha": alpha}.items():
        if not 0 < value < 1:
            raise StatsError(f"{name} must lie between 0 and 1, got {value}")
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise StatsError(f"{name} must be a probability, got {value}")
