"""Tables that compare: pairs of arms, what such pairs can show, and spliced KV against honest KV."""

from __future__ import annotations

from leyline.evals.report.compare import EFFECT, POWER
from leyline.evals.report.content import Report
from leyline.evals.report.table import Table
from leyline.evals.report.text import (
    NONE,
    p_value,
    percent,
    percent_interval,
    points,
    tokens_interval,
)


def comparisons(report: Report) -> Table:
    rows = tuple(
        (
            c.second,
            c.first,
            f"{c.pairs:,}",
            points(c.solve_rate, equal="solve_rate" in c.equal),
            points(c.hit_rate, equal="hit_rate" in c.equal),
            tokens_interval(c.prefilled, signed=True, equal="prefilled" in c.equal),
        )
        for c in report.comparisons
    )
    caption = (
        "On the same tasks and seeds. Differences are arm minus reference, in percentage points or tokens, with "
        f"{report.confidence:.0%} intervals from a bootstrap over tasks. Where all pairs are equal, or all tasks "
        "differ alike, it would have no width, and there is no interval."
    )
    head = ("arm", "reference", "pairs", "solve rate", "hit rate", "prefilled a trial")
    return Table("comparisons", "Paired comparisons", caption, head, rows, words=("reference",))


def paired_tests(report: Report) -> Table:
    powers = {(need.first, need.second): need.power_now for need in report.needs}
    rows = tuple(
        (
            c.second,
            c.first,
            f"{c.pairs:,}",
            f"{c.wins:,}",
            f"{c.losses:,}",
            f"{c.both:,}",
            f"{c.neither:,}",
            p_value(c.p_value) if c.pairs > c.unscored else NONE,
            p_value(c.p_holm) if c.pairs > c.unscored else NONE,
            percent(powers.get((c.first, c.second))),
            c.test,
            f"{c.unpaired_second:,} / {c.unpaired_first:,}",
        )
        for c in report.comparisons
    )
    caption = (
        "Wins: only the arm solved; losses: only the reference did. p Holm is adjusted for the number of comparisons "
        f"here. Power: the chance that these pairs had to show a difference of {100 * EFFECT:.0f} points. Unpaired: "
        "trials of the arm / of the reference without a partner."
    )
    head = (
        "arm",
        "reference",
        "pairs",
        "wins",
        "losses",
        "both",
        "neither",
        "p",
        "p Holm",
        "power",
        "test",
        "unpaired",
    )
    return Table("tests", "Counts and tests", caption, head, rows, words=("reference", "test"))


def power(report: Report) -> Table:
    rows = tuple(
        (
            need.second,
            need.first,
            f"{need.pairs:,}",
            percent(need.discordant),
            f"{need.design_effect:.2f}",
            f"{need.pairs_needed:,}",
            NONE if need.detectable is None else f"{100 * need.detectable:.1f}",
        )
        for need in report.needs
    )
    caption = (
        f"Pairs needed to see a difference of {100 * EFFECT:.0f} points with a chance of {POWER:.0%} at p < 0.05, for "
        "this share of discordant pairs (at least the difference itself) and this clustering; and the smallest "
        "difference that the pairs of this report would show, in points (– where none would show)."
    )
    head = ("arm", "reference", "pairs", "discordant", "design effect", "pairs needed", "detectable")
    return Table(
        "power",
        f"Trials for a {100 * EFFECT:.0f}-point effect",
        caption,
        head,
        rows,
        words=("reference", "test", "policy"),
    )


def agreement(report: Report) -> Table:
    rows = tuple(
        (
            point.model,
            point.policy,
            f"{point.seam}",
            _span(point.edits_from, point.edits_to),
            f"{point.probes:,}",
            f"{point.trajectories:,}",
            percent_interval(point.honest),
            percent(point.full),
            percent(point.references),
        )
        for point in report.agreement
    )
    caption = (
        "How often the first token of the answer on spliced KV is the one that honest prefill of the edited history "
        "gives, and the one that the full history gives; last, how often these two agree: what the edit itself does. "
        f"{report.confidence:.0%} intervals over trajectories."
    )
    head = (
        "model",
        "policy",
        "seam",
        "edits so far",
        "probes",
        "trajectories",
        "as honest",
        "as full",
        "honest as full",
    )
    return Table(
        "agreement", "Agreement by number of edits", caption, head, rows, words=("reference", "test", "policy")
    )


def _span(low: int, high: int | None) -> str:
    return f"{low} or more" if high is None else f"{low}" if low == high else f"{low} to {high}"
