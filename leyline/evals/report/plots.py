"""The plots: one function each, drawn from the report's own numbers, left out where the data has nothing to show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from matplotlib.collections import PolyCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import MaxNLocator, PercentFormatter

from leyline.directives import JsonObject
from leyline.directives.counts import count
from leyline.evals.report.agreement import AgreementPoint
from leyline.evals.report.content import Report
from leyline.evals.report.curves import TurnPoint
from leyline.evals.report.figures import (
    GRID,
    MARKERS,
    MUTED,
    PAPER,
    SERIES,
    Plot,
    blank,
    elide,
    legend,
    save,
    style,
)
from leyline.evals.report.looks import legend_height, look_of, short_label
from leyline.evals.stats.clustered import Interval

_PANELS = 4  # groups that get a panel of their own
_TURNS = 20  # fewer have no 95th percentile worth drawing
_FEW = 0.1  # share of an arm's trials under which a turn's mean is not drawn


def draw(report: Report, folder: Path) -> list[Plot]:
    """Every plot that the report has data for, saved into `folder`."""
    plots = []
    with style():
        for make in (rates, heat_map, hit_rate_by_turn, prompt_by_turn, uncached, trade_off, ttft, agreement):
            plot = make(report, folder)
            if plot is not None:
                plots.append(plot)
    return plots


def rates(report: Report, folder: Path) -> Plot | None:
    arms = report.arms
    if not arms:
        return None
    figure, (left, right) = blank(0.7 + 0.24 * len(arms), columns=2, sharey=True)
    for axes, title, values in (
        (left, "solve rate", [arm.solve_rate for arm in arms]),
        (right, "cache-hit rate", [arm.hit_rate for arm in arms]),
    ):
        for place, (arm, value) in enumerate(zip(arms, values, strict=True)):
            if value is not None:
                _whisker(axes, value, place, MUTED if arm.control else SERIES[0])
        axes.set(xlabel=title, xlim=(-0.02, 1.02), ylim=(len(arms) - 0.5, -0.5))
        axes.set_yticks(range(len(arms)), [elide(arm.label, 32) for arm in arms])
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.set_xticks([0, 0.5, 1])
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
    left.set_ylabel("arm")
    caption = f"Solve rate and cache-hit rate by arm, with {report.confidence:.0%} intervals; controls in grey."
    return save(figure, folder, "rates", "Solve rate and hit rate by arm", caption)


def heat_map(report: Report, folder: Path) -> Plot | None:
    if not report.tasks:
        return None
    rows, columns = len(report.arms), len(report.tasks)
    figure, (axes,) = blank(0.9 + 0.22 * rows)
    shades = LinearSegmentedColormap.from_list("solved", ["#f3d9c8", "#f2ead9", "#0072b2"])
    squares, values, missing = [], [], []
    for y in range(rows):
        for x, row in enumerate(report.tasks):
            cell = row.cells[y]
            square = [(x, y), (x + 1, y), (x + 1, y + 1), (x, y + 1)]
            if cell is not None and cell.scored:
                squares.append(square)
                values.append(cell.solved / cell.scored)
            else:
                missing.append(square)
    edges: Any = {"linewidths": 0.4 if columns <= 100 else 0, "edgecolors": PAPER}
    shown = PolyCollection(squares, array=values, cmap=shades, **edges)
    shown.set_clim(0, 1)
    axes.add_collection(shown)
    axes.add_collection(PolyCollection(missing, facecolors=GRID, **edges))
    axes.set(
        xlim=(0, columns),
        ylim=(rows, 0),
        xlabel=f"{count(columns, 'task')}; those on which arms differ come first",
        ylabel="arm",
    )
    axes.set_yticks([y + 0.5 for y in range(rows)], [elide(arm.label, 32) for arm in report.arms])
    axes.set_xticks([])
    axes.grid(visible=False)
    caption = "Share of a task's trials that an arm solved: blue all, sand none, grey not run or without a verdict."
    return save(figure, folder, "tasks", "Tasks by arm", caption)


def hit_rate_by_turn(report: Report, folder: Path) -> Plot | None:
    def points(curve: Sequence[TurnPoint]) -> Iterable[tuple[float, float]]:
        return ((point.turn, point.hit_rate) for point in curve if point.hit_rate is not None)

    caption = "Cached and spliced over prompt tokens, of the trials that got as far as the turn."
    found = _by_turn(report, points, "hit rate", percent=True)
    return found and save(found, folder, "hit_rate_by_turn", "Hit rate by turn", _drawn(caption))


def prompt_by_turn(report: Report, folder: Path) -> Plot | None:
    def points(curve: Sequence[TurnPoint]) -> Iterable[tuple[float, float]]:
        return ((point.turn, point.prompt) for point in curve)

    caption = "Mean tokens of the exact model input. A triangle marks a turn with edits; it grows with edits a trial."
    found = _by_turn(report, points, "prompt tokens", marks=True)
    return found and save(found, folder, "prompt_by_turn", "Prompt length by turn", _drawn(caption))


def uncached(report: Report, folder: Path) -> Plot | None:
    def points(curve: Sequence[TurnPoint]) -> Iterable[tuple[float, float]]:
        return ((point.turn, point.cumulative) for point in curve)

    found = _by_turn(report, points, "prefilled tokens so far", all_turns=True)
    caption = "Mean prefilled tokens up to each turn, over all trials of an arm: what a trial has cost by then."
    return found and save(found, folder, "uncached", "Cumulative uncached tokens", caption)


def trade_off(report: Report, folder: Path) -> Plot | None:
    arms = [arm for arm in report.arms if arm.solve_rate is not None and arm.prefilled_per_trial is not None]
    if len(arms) < 2:
        return None
    figure, (axes,) = blank(2.6 + legend_height([arm.label for arm in arms]))
    handles = []
    for arm in arms:
        look = look_of(report, arm)
        colour = look.colour
        x, y = arm.prefilled_per_trial, arm.solve_rate
        if x is None or y is None:
            continue
        axes.plot([x.low, x.high], [y.estimate] * 2, color=colour, linewidth=1, alpha=0.55)
        axes.plot([x.estimate] * 2, [y.low, y.high], color=colour, linewidth=1, alpha=0.55)
        handles += axes.plot(
            [x.estimate], [y.estimate], look.marker, color=colour, fillstyle=look.fill, markersize=6, linestyle="none"
        )
    axes.set(xlabel="prefilled tokens a trial", ylabel="solve rate", ylim=(-0.03, 1.03))
    axes.set_xlim(left=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    legend(figure, handles, [arm.label for arm in arms])
    caption = f"Up and to the left is better. Lines are {report.confidence:.0%} intervals."
    return save(figure, folder, "trade_off", "Solve rate against prefill", caption)


def ttft(report: Report, folder: Path) -> Plot | None:
    drawn = {label: [p for p in points if p.turns >= _TURNS] for label, points in report.load.items()}
    if all(len(points) < 2 for points in drawn.values()):
        return None  # no arm is seen under two loads
    arms = [arm for arm in report.arms if drawn.get(arm.label)]
    figure, (axes,) = blank(2.5 + legend_height([arm.label for arm in arms]))
    handles = []
    for arm in arms:
        look = look_of(report, arm)
        same: Any = {"marker": look.marker, "color": look.colour, "fillstyle": look.fill, "markersize": 3.5}
        points = drawn[arm.label]
        x = [point.level for point in points]
        handles += axes.plot(x, [p.p50 for p in points], linestyle=look.line, **same)
        axes.plot(x, [p.p95 for p in points], ":", **same)
    axes.set(xlabel="trials in flight", ylabel="time to the first token (s)")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure, handles, [arm.label for arm in arms])
    caption = (
        "Time to the first token by the mean number of trials that ran at the same time: median solid, 95th "
        f"percentile dotted; points under {_TURNS} turns are left out."
    )
    return save(figure, folder, "ttft_by_load", "Time to the first token under load", caption)


def agreement(report: Report, folder: Path) -> Plot | None:
    groups: dict[tuple[str, str], list[AgreementPoint]] = {}
    for point in report.agreement:
        groups.setdefault((point.model, point.policy), []).append(point)
    if not groups:
        return None
    seams = sorted({point.seam for point in report.agreement})
    labels = [*(f"seam {seam}" for seam in seams), "honest prefill against the full history"]
    figure, all_axes = blank(2.0 * len(groups) + 0.3 + legend_height(labels), rows=len(groups), sharex=True)
    handles: JsonObject = {}
    for axes, (key, points) in zip(all_axes, groups.items(), strict=True):
        for place, seam in enumerate(seams):
            mine = [point for point in points if point.seam == seam]
            x, y = [p.edits_mean for p in mine], [p.honest.estimate for p in mine]
            look: JsonObject = {
                "color": SERIES[place % len(SERIES)],
                "marker": MARKERS[place % len(MARKERS)],
                "markersize": 3.5,
            }
            handles[f"seam {seam}"] = axes.plot(x, y, **look)[0]
            axes.vlines(x, [p.honest.low for p in mine], [p.honest.high for p in mine], color=look["color"], alpha=0.4)
        first = [point for point in points if point.seam == seams[0]]
        line = axes.plot([p.edits_mean for p in first], [p.references for p in first], "--", color=MUTED)
        handles[labels[-1]] = line[0]
        axes.set(title=elide(" · ".join(key), 60), ylabel="same first token", ylim=(0, 1.02))
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    all_axes[-1].set_xlabel("edits so far")
    legend(figure, [handles[label] for label in labels], labels)
    caption = (
        "Share of probes whose first token on spliced KV is the honest prefill's, by seam; dashed, how often the "
        "honest prefill of the edited history agrees with the full history."
    )
    return save(figure, folder, "agreement", "Agreement against the number of edits", caption)


def _by_turn(
    report: Report,
    points: Callable[[Sequence[TurnPoint]], Iterable[tuple[float, float]]],
    ylabel: str,
    *,
    percent: bool = False,
    marks: bool = False,
    all_turns: bool = False,
) -> Any:
    """One line an arm, in a panel for each group of arms where they are few."""
    arms = [arm for arm in report.arms if report.turns[arm.label]]
    if not arms:
        return None
    groups = list(dict.fromkeys(arm.group for arm in arms))
    panels = [[arm for arm in arms if arm.group == group] for group in groups] if len(groups) <= _PANELS else [arms]
    names = {arm.label: short_label(arm) if len(panels) > 1 else arm.label for arm in arms}
    height = 2.0 * len(panels) + 0.3 + legend_height(list(dict.fromkeys(names.values())))
    figure, all_axes = blank(height, rows=len(panels), sharex=True, sharey=True)
    handles: JsonObject = {}
    for axes, panel in zip(all_axes, panels, strict=True):
        for arm in panel:
            curve = [p for p in report.turns[arm.label] if all_turns or p.trials >= _FEW * arm.trials]
            look = look_of(report, arm)
            colour, line = look.colour, "--" if arm.control else "-" if len(panels) > 1 else look.line
            drawn = list(points(curve))
            [shown] = axes.plot([x for x, _ in drawn], [y for _, y in drawn], linestyle=line, color=colour)
            handles.setdefault(names[arm.label], shown)
            if len(drawn) == 1:
                axes.plot(*drawn[0], "o", color=colour, markersize=4)
            if marks:
                edited = [p for p in curve if p.edits]
                sizes = [10 + 22 * min(1.0, p.edits / p.trials) for p in edited]
                axes.scatter([p.turn for p in edited], [p.prompt for p in edited], sizes, color=colour, marker="v")
        if len(panels) > 1:
            axes.set_title(panel[0].group)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.set_ylabel(ylabel)
    all_axes[0].set_ylim(bottom=0, top=1.02 if percent else None)  # shared; every panel has its data by now
    all_axes[-1].set_xlabel("turn")
    ordered = list(dict.fromkeys(names.values()))  # that of the arms, whatever panel they are in
    legend(figure, [handles[name] for name in ordered], ordered)
    return figure


def _whisker(axes: Any, value: Interval, y: float, colour: str) -> None:
    axes.plot([value.low, value.high], [y, y], color=colour, linewidth=1.8, solid_capstyle="round")
    axes.plot([value.estimate], [y], "o", color=colour, markersize=4.5, markeredgecolor=PAPER)


def _drawn(caption: str) -> str:
    return f"{caption} Turns that fewer than {_FEW:.0%} of an arm's trials reached are not drawn."
