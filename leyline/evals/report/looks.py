"""How an arm looks in every plot: colour, marker, line, label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from leyline.evals.report.content import Report
from leyline.evals.report.figures import MARKERS, MUTED, SERIES, elide
from leyline.evals.report.numbers import ArmNumbers


@dataclass(frozen=True)
class Look:
    """How an arm is drawn, in Matplotlib's words."""

    colour: str
    marker: str
    line: Any
    fill: Any


def look_of(report: Report, arm: ArmNumbers) -> Look:
    """The same place in its group gives the same colour and marker, the group the line and the fill.

    Controls are grey and dashed.
    """
    groups = list(dict.fromkeys(other.group for other in report.arms))
    place = [other.label for other in report.arms if other.group == arm.group].index(arm.label)
    group = groups.index(arm.group)
    return Look(
        colour=MUTED if arm.control else SERIES[place % len(SERIES)],
        marker=MARKERS[place % len(MARKERS)],
        line="--" if arm.control else ("-", "-.", (0, (5, 1)))[group % 3],
        fill=("full", "none", "left", "bottom")[group % 4],
    )


def short_label(arm: ArmNumbers) -> str:
    """The label without the model, where a panel says which model it is."""
    return arm.label.removesuffix(f" ({arm.facts['model']})")


def legend_height(labels: Sequence[str]) -> float:
    """The height that a legend of these labels takes, in inches."""
    short = [elide(label) for label in labels]
    two = len(short) > 1 and max(map(len, short)) <= 26
    return 0.17 * (len(short) / 2 if two else len(short))
