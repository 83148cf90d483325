"""Statistics of paired trials clustered by task."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leyline._lazy import lazily

if TYPE_CHECKING:
    from leyline.evals.stats.clustered import (
        ClusterBootstrap,
        Interval,
        Paired,
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
    )
    from leyline.evals.stats.power import design_effect, detectable_effect, paired_power, paired_trials
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "leyline.evals.stats.clustered": (
                "ClusterBootstrap Interval Paired Ratio StatsError cluster_ratio holm mcnemar percentile "
                "sign_flip sign_test solve_rate wilson"
            ),
            "leyline.evals.stats.power": "design_effect detectable_effect paired_power paired_trials",
        },
    )

__all__ = [
    "ClusterBootstrap",
    "Interval",
    "Paired",
    "Ratio",
    "StatsError",
    "cluster_ratio",
    "design_effect",
    "detectable_effect",
    "holm",
    "mcnemar",
    "paired_power",
    "paired_trials",
    "percentile",
    "sign_flip",
    "sign_test",
    "solve_rate",
    "wilson",
]
