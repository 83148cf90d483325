"""Tables with a row for each arm: what came out, what it cost, and turn by turn."""

from __future__ import annotations

from leyline.directives.counts import count
from leyline.evals.report.content import Report
from leyline.evals.report.numbers import ArmNumbers
from leyline.evals.report.table import Table
from leyline.evals.report.text import (
    NONE,
    counts,
    joules,
    percent,
    percent_interval,
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


def headline(report: Report) -> Table:
    compute = any(arm.per_solved.compute_trials for arm in report.arms)
    energy = any(arm.per_solved.energy_trials for arm in report.arms)
    rows = tuple(
        (
            arm.label,
            percent_interval(arm.solve_rate),
            percent_interval(arm.hit_rate),
            tokens_interval(arm.prefilled_per_trial),
            tokens(arm.per_solved.prefilled),
            *([_known(seconds(arm.per_solved.compute_s), arm.per_solved.compute_trials, arm)] if compute else []),
            *([_known(joules(arm.per_solved.energy_j), arm.per_solved.energy_trials, arm)] if energy else []),
        )
        for arm in report.arms
    )
    caption = (
        f"With {report.confidence:.0%} intervals. Hit rate: cached and spliced over all prompt tokens. Prefilled: the "
        "tokens that were computed. Per solved task: of all trials with a verdict, over those that are solved."
    )
    if compute:
        caption += (
            " Compute: time in which a model in the trial's process prefilled, spliced and decoded, so GPU seconds "
            "where it ran on one."
        )
    if energy:
        caption += " Energy: what the accelerator's own counter says, only of trials that ran alone."
    head = ("arm", "solve rate", "hit rate", "prefilled a trial", "prefilled per solved task")
    end = (*(("compute per solved task",) if compute else ()), *(("energy per solved task",) if energy else ()))
    return Table("headline", "Solve rate, hit rate and cost", caption, (*head, *end), rows)


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


def _known(text: str, trials: int, arm: ArmNumbers) -> str:
    """With the number of trials that it is known of, where that is not all of them."""
    return text if text == NONE or trials == arm.scored else f"{text} [{trials:,} of {count(arm.scored, 'trial')}]"


def _shed(shed: int, known: int, turns: int) -> str:
    if not known:
        return NONE
    return tokens(shed) if known == turns else f"{tokens(shed)} ({known:,} of {count(turns, 'turn')})"
