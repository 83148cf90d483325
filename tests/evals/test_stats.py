import math
import random

import numpy as np
import pytest
import scipy.stats

from leyline.evals.power import design_effect, paired_power, paired_trials, unpaired_trials
from leyline.evals.stats import (
    ClusterBootstrap,
    Interval,
    Ratio,
    StatsError,
    cluster_ratio,
    mcnemar,
    percentile,
    sign_flip,
    sign_test,
    wilson,
)


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 40), (1, 1), (10, 32), (15, 33), (194, 200), (200, 200)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_is_scipys(k: int, n: int, confidence: float) -> None:
    ours = wilson(k, n, confidence)
    theirs = scipy.stats.binomtest(k, n).proportion_ci(confidence, method="wilson")
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert ours.estimate == k / n
    assert k / n in ours


def test_wilson_of_the_published_solve_rates() -> None:
    # 194 of 200: 97.0 % [93.6, 98.6], as the prototype's table has it.
    interval = wilson(194, 200)
    assert [round(100 * x, 1) for x in (interval.estimate, interval.low, interval.high)] == [97.0, 93.6, 98.6]


@pytest.mark.parametrize("n", range(31))
def test_sign_test_is_scipys_binomial(n: int) -> None:
    for wins in range(n + 1):
        expected = scipy.stats.binomtest(wins, n).pvalue if n else 1.0
        assert sign_test(wins, n - wins) == pytest.approx(expected, rel=1e-12)


def test_mcnemar_counts_every_pair() -> None:
    # The paper's 9 wins to 5: p about 0.42.
    pairs = [(True, False)] * 5 + [(False, True)] * 9 + [(True, True)] * 4 + [(False, False)] * 11
    result = mcnemar(pairs)
    assert (result.both, result.only_first, result.only_second, result.neither) == (4, 5, 9, 11)
    assert result.pairs == len(pairs)
    assert result.p_value == pytest.approx(0.4240, abs=5e-5)
    assert mcnemar([]).p_value == 1.0


def test_bootstrap_is_seeded_and_close_to_scipys() -> None:
    generator = random.Random(3)
    tasks = [Ratio(generator.randint(0, 3), 3) for _ in range(60)]
    ours = ClusterBootstrap(60, seed=1).ratio(tasks)
    assert ours == ClusterBootstrap(60, seed=1).ratio(tasks)
    assert ours != ClusterBootstrap(60, seed=2).ratio(tasks)
    data = (np.array([t.numerator for t in tasks]), np.array([t.denominator for t in tasks]))
    theirs = scipy.stats.bootstrap(
        data,
        lambda top, bottom, axis: top.sum(axis) / bottom.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=4000,
        rng=np.random.default_rng(0),
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)


def test_bootstrap_covers_where_trials_of_a_task_agree() -> None:
    # Every task has eight trials with one outcome: an interval that ignores the clusters would cover about half.
    generator = random.Random(0)
    covered = naive = 0
    rounds = 250
    for k in range(rounds):
        solved = [generator.random() < 0.6 for _ in range(50)]
        tasks = [Ratio(8 * s, 8) for s in solved]
        covered += 0.6 in ClusterBootstrap(50, resamples=400, seed=k).ratio(tasks)
        naive += 0.6 in wilson(8 * sum(solved), 400)
    assert 0.90 <= covered / rounds <= 0.98
    assert naive / rounds < 0.75


def test_paired_difference_covers_and_is_narrower_than_unpaired() -> None:
    generator = random.Random(1)
    covered = 0
    rounds = 200
    for k in range(rounds):
        easy = [generator.random() < 0.6 for _ in range(80)]
        first = [Ratio(e, 1) for e in easy]
        second = [Ratio(e or generator.random() < 0.25, 1) for e in easy]
        interval = ClusterBootstrap(80, resamples=400, seed=k).difference(first, second)
        covered += 0.1 in interval
    assert 0.89 <= covered / rounds <= 0.99
    single = ClusterBootstrap(80, seed=0).ratio(first)
    assert interval.high - interval.low < single.high - single.low


def test_cluster_ratio_weighs_tasks_by_their_denominator() -> None:
    interval = cluster_ratio({"a": Ratio(90, 100), "b": Ratio(0, 10)})
    assert interval.estimate == pytest.approx(90 / 110)
    assert interval.low == 0.0
    assert interval.high == 0.9


def test_sign_flip_exact_and_sampled_agree_with_the_sign_test() -> None:
    # With differences of one size the flip test is the sign test.
    assert sign_flip([1] * 12 + [-1] * 3) == pytest.approx(sign_test(12, 3), rel=1e-12)
    assert sign_flip([1] * 22 + [-1] * 10) == pytest.approx(sign_test(22, 10), abs=0.006)
    assert sign_flip([0.0, 0.0]) == 1.0


def test_percentile_is_numpys() -> None:
    values = [random.Random(5).gauss(0, 1) for _ in range(37)]
    for q in (0, 2.5, 50, 95, 100):
        assert percentile(values, q) == pytest.approx(float(np.percentile(values, q)))


def test_unpaired_trials_for_five_points() -> None:
    # Fleiss' formula at 0.50 against 0.55, power 0.8: 1565 an arm (R's power.prop.test gives 1564.529).
    assert unpaired_trials(0.50, 0.55) == 1565
    assert unpaired_trials(0.45, 0.50) == 1565


def test_paired_trials_reach_the_power_they_promise() -> None:
    pairs = paired_trials(0.05, 0.15)
    assert 450 < pairs < 490
    # The exact test is a little conservative, so a little under 0.8 at Connor's n.
    assert 0.76 < paired_power(pairs, 0.05, 0.10) < 0.82
    generator = random.Random(2)
    seen = 0
    for _ in range(400):
        draws = generator.choices((1, -1, 0), (0.05, 0.10, 0.85), k=pairs)
        seen += sign_test(draws.count(1), draws.count(-1)) <= 0.05
    assert seen / 400 == pytest.approx(paired_power(pairs, 0.05, 0.10), abs=0.06)
    assert paired_trials(0.05, 0.15) < unpaired_trials(0.50, 0.55)


def test_power_under_the_null_is_at_most_alpha() -> None:
    assert 0 < paired_power(300, 0.1, 0.1) <= 0.05
    assert paired_power(50, 0.0, 0.0) == 0.0


def test_design_effect_of_copies_and_of_independent_trials() -> None:
    assert design_effect({str(i): [i % 2] * 4 for i in range(20)}) == pytest.approx(4.0)
    generator = random.Random(4)
    independent = {str(i): [generator.random() < 0.5 for _ in range(4)] for i in range(300)}
    assert design_effect(independent) == pytest.approx(1.0, abs=0.15)
    assert design_effect({"a": [1], "b": [0]}) == 1.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: wilson(3, 0),
        lambda: wilson(3, 2),
        lambda: wilson(1, 2, 1.5),
        lambda: ClusterBootstrap(0),
        lambda: ClusterBootstrap(2).ratio([Ratio(1, 1)]),
        lambda: sign_test(-1, 2),
        lambda: unpaired_trials(0.5, 0.5),
        lambda: paired_trials(0.2, 0.1),
        lambda: paired_power(0, 0.1, 0.1),
        lambda: percentile([], 50),
    ],
)
def test_bad_input_is_named(call: object) -> None:
    with pytest.raises(StatsError):
        call()  # type: ignore[operator]


def test_an_empty_denominator_is_not_a_number() -> None:
    interval = ClusterBootstrap(2).ratio([Ratio(0, 0), Ratio(0, 0)])
    assert math.isnan(interval.estimate)
    assert isinstance(interval, Interval)
