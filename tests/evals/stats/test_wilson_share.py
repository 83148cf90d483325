"""Wilson's interval of a mean share, against scipy's of whole successes."""

from __future__ import annotations

import pytest

from leyline.evals.stats.clustered import StatsError, wilson, wilson_share


@pytest.mark.parametrize(("successes", "trials"), [(0, 1), (1, 1), (2, 2), (16, 20), (35, 35), (7, 100)])
def test_it_is_wilsons_where_the_share_is_one_of_whole_trials(successes: int, trials: int) -> None:
    here, there = wilson_share(successes / trials, trials), wilson(successes, trials)
    assert (here.low, here.high) == pytest.approx((there.low, there.high), abs=1e-9)
    assert here.low <= successes / trials <= here.high


@pytest.mark.parametrize(("share", "clusters"), [(1.1, 3), (-0.1, 3), (0.5, 0)])
def test_what_is_no_share_is_refused(share: float, clusters: int) -> None:
    with pytest.raises(StatsError, match="share"):
        wilson_share(share, clusters)
