"""The tables of a report, as text: the same ones in HTML and in Markdown."""

from __future__ import annotations

from dataclasses import dataclass

from leyline.directives.counts import count
from leyline.evals.report.compare import EFFECT, POWER
from leyline.evals.report.content import Report
from leyline.evals.report.text import (
    NONE,
    counts,
    day,
    joules,
    p_value,
    percent,
    percent_interval,
    points,
    seconds,
    tokens,
    tokens_interval,
)

_METHODS = {
    "wilson": "Wilson",
    "wilson-tasks": "Wilson over tasks",
    "bootstrap": "bootstrap over tasks",
    "one-task": "none: one task",
    None: "no verdict",
}


@dataclass(frozen=True)
class Table:
    """A table. words: the columns that hold words, by their heads; the first one always does."""

    name: str
    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[str, ...] = ()

    def holds_words(self, column: int) -> bool:
        return column == 0 or self.head[column] in self.words


def tables(report: Report) -> list[Table]:
    """Every table that the data gives rows for, in reading order; the account of record lines is always there."""
    made = [headline(report), outcomes(report), tokens_table(report), times(report), comparisons(report)]
    made += [power(report), agreement(report), by_turn(report), origins(report), account(report)]
    return [table for table in made if table.rows]


def headline(report: Report) -> Table:
    return Table(
        "headline",
        "Solve rate and hit rate",
        f"With {report.confidence:.0%} intervals. Hit rate: cached and spliced over all prompt tokens.",
        ("arm", "solve rate", "hit rate"),
        tuple((arm.label, percent_interval(arm.solve_rate), percent_interval(arm.hit_rate)) for arm in report.arms),
    )


def outcomes(report: Report) -> Table:
    rows = tuple(
        (
            arm.label,
            f"{arm.solved:,} of {arm.scored:,}",
            percent_interval(arm.solve_rate),
            _METHODS[arm.solve_method],
            f"{arm.tasks:,}",
            f"{arm.trials:,}",
            f"{arm.solved:,}",
            f"{arm.failed:,}",
            f"{arm.limit:,}",
            f"{arm.error:,}",
            f"{arm.unscored:,}",
            arm.facts["mode"] or NONE,
            arm.facts["policy"] or NONE,
            arm.facts["backend"] or NONE,
            arm.facts["model"] or NONE,
        )
        for arm in report.arms
    )
    head = ("arm", "solved / n", "solve rate", "interval", "tasks", "trials")
    caption = (
        "trials = solved + failed + limit + error + unscored. Failed, limit (turns, time or context) and error count "
        "as not solved; unscored trials wait for a verdict and are no part of the rate."
    )
    words = ("mode", "policy", "backend", "model")
    end = ("solved", "failed", "limit", "error", "unscored", *words)
    return Table("outcomes", "Outcomes", caption, (*head, *end), rows, words=("interval", *words))


def tokens_table(report: Report) -> Table:
    rows = tuple(
        (
            arm.label,
            percent_interval(arm.hit_rate),
            tokens(arm.tokens.prompt),
            tokens(arm.tokens.prefix),
            tokens(arm.tokens.spliced),
            tokens(arm.tokens.prefilled),
            tokens_interval(arm.prefilled_per_trial),
            _shed(arm.tokens.shed, arm.tokens.shed_turns, arm.turns),
            tokens(arm.tokens.completion),
            f"{arm.turns:,}",
            f"{arm.edits:,}",
            f"{arm.directives:,}",
            counts(arm.fallbacks),
            f"{arm.approximate:,}",
        )
        for arm in report.arms
    )
    caption = (
        "Sums over all turns. prompt = cached + spliced + prefilled, so prompt tokens include cached ones; prefilled "
        "tokens are the net uncached ones. Shed: tokens that edits kept out of prompts. Fallbacks: turns whose "
        "directives were served by honest prefill, by reason. Approximate: trials that read spliced KV."
    )
    head = (
        "arm",
        "hit rate",
        "prompt",
        "cached",
        "spliced",
        "prefilled (net uncached)",
        "prefilled a trial",
        "shed",
        "generated",
        "turns",
        "edits",
        "directives",
        "fallbacks",
        "approximate",
    )
    return Table("tokens", "Tokens", caption, head, rows, words=("fallbacks",))


def times(report: Report) -> Table:
    energy = any(arm.timing.energy_trials for arm in report.arms)
    rows = tuple(
        (
            arm.label,
            seconds(arm.timing.ttft_p50),
            seconds(arm.timing.ttft_p95),
            f"{arm.timing.ttft_turns:,} of {arm.turns:,}",
            seconds(arm.timing.wall_p50),
            seconds(arm.timing.wall_total if arm.timing.wall_trials else None),
            f"{arm.timing.wall_trials:,} of {arm.trials:,}",
            *([joules(arm.timing.energy_j), f"{arm.timing.energy_trials:,} of {arm.trials:,}"] if energy else []),
        )
        for arm in report.arms
    )
    caption = (
        "TTFT: time to the first token, over the turns that have it. Wall: of whole trials, tools included; the total "
        "adds up trials that ran side by side."
    )
    if energy:
        caption += " Energy: what the accelerator's own counter says, only of trials that ran alone."
    head = ("arm", "TTFT p50", "TTFT p95", "turns timed", "wall p50", "wall total", "trials timed")
    return Table("times", "Time", caption, (*head, *(("energy", "trials metered") if energy else ())), rows)


def comparisons(report: Report) -> Table:
    rows = tuple(
        (
            c.second,
            c.first,
            f"{c.pairs:,}",
            points(c.solve_rate),
            f"{c.wins:,}",
            f"{c.losses:,}",
            f"{c.both:,}",
            f"{c.neither:,}",
            p_value(c.p_value) if c.pairs > c.unscored else NONE,
            p_value(c.p_holm) if c.pairs > c.unscored else NONE,
            c.test,
            points(c.hit_rate),
            tokens_interval(c.prefilled, signed=True),
            f"{c.unpaired_second:,} / {c.unpaired_first:,}",
        )
        for c in report.comparisons
    )
    caption = (
        "On the same tasks and seeds. Differences are arm minus reference, in percentage points or tokens, with "
        f"{report.confidence:.0%} intervals from a bootstrap over tasks. Wins: only the arm solved; losses: only the "
        "reference did. p Holm is adjusted for the number of comparisons here. Unpaired: trials of the arm / of the "
        "reference without a partner."
    )
    head = ("arm", "reference", "pairs", "solve rate", "wins", "losses", "both", "neither", "p", "p Holm", "test")
    end = ("hit rate", "prefilled a trial", "unpaired")
    return Table(
        "comparisons", "Paired comparisons", caption, (*head, *end), rows, words=("reference", "test", "policy")
    )


def power(report: Report) -> Table:
    rows = tuple(
        (
            need.second,
            need.first,
            f"{need.pairs:,}",
            percent(need.discordant),
            f"{need.design_effect:.2f}",
            f"{need.pairs_needed:,}",
            percent(need.power_now),
            NONE if need.detectable is None else f"{100 * need.detectable:.1f}",
        )
        for need in report.needs
    )
    caption = (
        f"Pairs needed to see a difference of {100 * EFFECT:.0f} points with a chance of {POWER:.0%} at p < 0.05, for "
        "this share of discordant pairs (at least the difference itself) and this clustering; the chance that the "
        "pairs of this report had; and the smallest difference they would show, in points "
        "(– where none would show)."
    )
    head = ("arm", "reference", "pairs", "discordant", "design effect", "pairs needed", "power now", "detectable")
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


def by_turn(report: Report) -> Table:
    rows = tuple(
        (
            label,
            f"{point.turn}",
            f"{point.trials:,}",
            tokens(point.prompt),
            percent(point.hit_rate),
            f"{point.edits:,}",
            tokens(point.cumulative),
        )
        for label, curve in report.turns.items()
        for point in curve
    )
    caption = "What the plots by turn show: means over the trials that reached the turn; edits are summed."
    head = ("arm", "turn", "trials", "prompt", "hit rate", "edits", "uncached so far")
    return Table("turns", "By turn", caption, head, rows)


def origins(report: Report) -> Table:
    rows = tuple(
        (
            origin.machine or "not recorded",
            ", ".join(f"{name} {release}" for name, release in origin.versions.items()) or "not recorded",
            f"{origin.trials:,}",
            day(origin.first) if origin.first > 0 else NONE,
            day(origin.last) if origin.last > 0 else NONE,
        )
        for origin in report.origins
    )
    caption = (
        "The machine that ran the agent, with the accelerator of a model in its process; a served model computes "
        "elsewhere. Times of different rows are not comparable."
    )
    head = ("machine", "releases", "trials", "first started", "last started")
    return Table("origins", "Where the trials ran", caption, head, rows, words=("releases",))


def account(report: Report) -> Table:
    rows = []
    for run in report.runs:
        lines = run.lines
        numbers = (lines.total, lines.counted, lines.superseded, lines.duplicates, lines.outdated, lines.broken)
        more = (lines.torn, lines.interrupted)
        missing = NONE if run.missing is None else f"{run.missing:,}"
        rows.append((run.label, *(f"{n:,}" for n in numbers), *(f"{n:,}" for n in more), missing))
    caption = (
        "record lines = counted + superseded (redone later) + duplicates + outdated (older configuration) + broken. "
        "Beside them: torn last lines, interrupted trials (a trajectory without a record: they run again, or still "
        "run), and trials that the configuration asks for and nobody has run yet."
    )
    head = ("run", "record lines", "counted", "superseded", "duplicates", "outdated", "broken", "torn", "interrupted")
    return Table("account", "Every record line", caption, (*head, "not run yet"), tuple(rows))


def _shed(shed: int, known: int, turns: int) -> str:
    if not known:
        return NONE
    return tokens(shed) if known == turns else f"{tokens(shed)} ({known:,} of {count(turns, 'turn')})"
