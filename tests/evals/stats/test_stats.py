import math
import random
import sys
from itertools import product
from statistics import NormalDist

import pytest

from leyline.evals.stats.clustered import (
    ClusterBootstrap,
    Interval,
    Ratio,
    StatsError,
    cluster_ratio,
    holm,
    mcnemar,
    percentile,
    sign_flip,
    sign_test,
    solve_rate,
    wilson,
    wilson_share,
)
from leyline.evals.stats.power import design_effect, detectable_effect, paired_power, paired_trials


@pytest.mark.parametrize(("k", "n"), [(0, 1), (0, 40), (1, 1), (10, 32), (15, 33), (194, 200), (200, 200)])
@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_is_where_the_score_test_turns(k: int, n: int, confidence: float) -> None:
    ours = wilson(k, n, confidence)
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    for end in (ours.low, ours.high):
        # Wilson's ends are the p at which |k/n - p| is exactly z standard errors of p.
        if 0 < end < 1:
            assert abs(k / n - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n), rel=1e-9)
    assert ours.estimate == k / n
    assert k / n in ours


def test_wilson_of_the_published_solve_rates() -> None:
    # 194 of 200: 97.0 % [93.6, 98.6], as the prototype's table has it.
    interval = wilson(194, 200)
    assert [round(100 * x, 1) for x in (interval.estimate, interval.low, interval.high)] == [97.0, 93.6, 98.6]


@pytest.mark.parametrize("n", range(31))
def test_sign_test_counts_coin_throws(n: int) -> None:
    for wins in range(n + 1):
        tail = sum(math.comb(n, k) for k in range(min(wins, n - wins) + 1))
        assert sign_test(wins, n - wins) == pytest.approx(min(1.0, 2 * tail / 2**n), rel=1e-12)


def test_mcnemar_counts_every_pair() -> None:
    # The paper's 9 wins to 5: p about 0.42.
    pairs = [(True, False)] * 5 + [(False, True)] * 9 + [(True, True)] * 4 + [(False, False)] * 11
    result = mcnemar(pairs)
    assert (result.both, result.only_first, result.only_second, result.neither) == (4, 5, 9, 11)
    assert result.pairs == len(pairs)
    assert result.p_value == pytest.approx(0.4240, abs=5e-5)
    assert mcnemar([]).p_value == 1.0


def test_bootstrap_is_seeded_and_close_to_one_drawn_by_hand() -> None:
    generator = random.Random(3)
    tasks = [Ratio(generator.randint(0, 3), generator.randint(3, 5)) for _ in range(60)]
    ours = ClusterBootstrap(60, seed=1).ratio(tasks)
    assert ours == ClusterBootstrap(60, seed=1).ratio(tasks)
    assert ours != ClusterBootstrap(60, seed=2).ratio(tasks)
    rates = []
    for _ in range(4000):
        draw = generator.choices(tasks, k=60)
        rates.append(sum(t.numerator for t in draw) / sum(t.denominator for t in draw))
    rates.sort()
    assert (ours.low, ours.high) == pytest.approx((rates[100], rates[3900]), abs=0.012)


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
    assert sign_flip([1] * 11 + [-1] * 3) == pytest.approx(sign_test(11, 3), rel=1e-12)
    assert sign_flip([1] * 22 + [-1] * 10) == pytest.approx(sign_test(22, 10), abs=0.006)
    assert sign_flip([0.0, 0.0]) == 1.0


def test_sign_flip_is_the_share_of_sign_patterns_as_extreme() -> None:
    generator = random.Random(8)
    for n in (2, 5, 9):
        d = [generator.choice((-1, 1)) * generator.randint(1, 6) / 4 for _ in range(n)]
        totals = [abs(sum(s * x for s, x in zip(signs, d, strict=True))) for signs in product((1, -1), repeat=n)]
        expected = sum(t >= abs(sum(d)) - 1e-9 for t in totals) / 2**n
        assert sign_flip([*d, 0.0]) == pytest.approx(expected, rel=1e-9)


def test_sign_flip_of_one_task_decides_nothing() -> None:
    assert sign_flip([0.4]) == 1.0


def test_solve_rate_picks_the_interval_that_the_data_allows() -> None:
    single = {str(i): Ratio(i % 2, 1) for i in range(40)}
    assert solve_rate(single) == (wilson(20, 40), "wilson")
    several = {str(i): Ratio(i % 4, 4) for i in range(40)}
    interval, method = solve_rate(several)
    assert method == "bootstrap"
    assert interval == cluster_ratio(several)
    # A bootstrap of all-solved tasks would be [1, 1]; trials of a task may agree, so 30 tasks count as 30.
    assert solve_rate({str(i): Ratio(5, 5) for i in range(30)}) == (wilson(30, 30), "wilson-tasks")
    assert solve_rate({str(i): Ratio(0, 5) for i in range(30)}) == (wilson(0, 30), "wilson-tasks")
    # Neither does it have any where each task has the same part of its trials solved.
    assert solve_rate({str(i): Ratio(1 + i % 2, 2 + 2 * (i % 2)) for i in range(30)}) == (
        wilson_share(0.5, 30),
        "wilson-tasks",
    )
    interval, method = solve_rate({"a": Ratio(2, 5)})
    assert (interval.estimate, method) == (0.4, "one-task")
    assert math.isnan(interval.low)


def test_holm_steps_down() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_percentile_interpolates() -> None:
    assert percentile([4.0, 1.0, 3.0, 2.0], 50) == 2.5
    assert percentile([1.0, 2.0, 3.0, 4.0, 5.0], 95) == pytest.approx(4.8)
    assert percentile([7.0], 95) == 7.0


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


def test_detectable_effect_inverts_paired_trials() -> None:
    effect = detectable_effect(400, 0.2)
    assert effect is not None
    assert paired_trials(effect, 0.2) <= 400 < paired_trials(effect * 0.98, 0.2)
    assert detectable_effect(3, 0.2) is None
    assert detectable_effect(400, 0.0) is None


def test_exact_power_is_the_sum_over_all_outcomes() -> None:
    n, first, second = 12, 0.1, 0.5
    total = 0.0
    for a in range(n + 1):
        for b in range(n + 1 - a):
            ways = math.comb(n, a) * math.comb(n - a, b)
            chance = ways * first**a * second**b * (1 - first - second) ** (n - a - b)
            total += chance * (sign_test(a, b) <= 0.05)
    assert paired_power(n, first, second) == pytest.approx(total, rel=1e-9)


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
        lambda: solve_rate({}),
        lambda: ClusterBootstrap(0),
        lambda: ClusterBootstrap(2).ratio([Ratio(1, 1)]),
        lambda: sign_test(-1, 2),
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


def test_without_scipy_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "scipy.stats", None)
    for call in (lambda: wilson(1, 2), lambda: sign_flip([1.0, 2.0]), lambda: paired_trials(0.05, 0.1)):
        with pytest.raises(StatsError, match=r"pip install 'leyline-kv\[report\]'"):
            call()
