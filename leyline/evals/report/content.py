"""The report as data: everything that the HTML, the Markdown and the JSON say."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from leyline.directives.counts import count
from leyline.evals.report.agreement import AgreementPoint, agreement_points
from leyline.evals.report.compare import Comparison, Need, compare, needs, select_pairs
from leyline.evals.report.curves import LoadPoint, TaskRow, TurnPoint, load_points, task_rows, turn_points
from leyline.evals.report.lines import Lines
from leyline.evals.report.numbers import ArmNumbers, arm_numbers
from leyline.evals.report.origin import Origin, origins
from leyline.evals.report.sources import Data, Run, gather
from leyline.evals.report.traffic import SUITE

FORMAT = "leyline-report/1"


@dataclass(frozen=True)
class Report:
    """All numbers of a report. notes: what a reader has to know first, one sentence each."""

    data: Data
    confidence: float
    lines: Lines
    arms: tuple[ArmNumbers, ...]
    comparisons: tuple[Comparison, ...]
    needs: tuple[Need, ...]
    tasks: tuple[TaskRow, ...]
    turns: dict[str, tuple[TurnPoint, ...]]
    load: dict[str, tuple[LoadPoint, ...]]
    agreement: tuple[AgreementPoint, ...]
    origins: tuple[Origin, ...]
    notes: tuple[str, ...]

    @property
    def runs(self) -> tuple[Run, ...]:
        return self.data.runs

    @property
    def trials(self) -> int:
        return sum(arm.trials for arm in self.arms)

    def to_json(self) -> dict[str, object]:
        """JSON types, NaN as null."""
        return {
            "format": FORMAT,
            "confidence": self.confidence,
            "notes": list(self.notes),
            "lines": _json(self.lines),
            "runs": [
                {
                    "label": run.label,
                    "lines": _json(run.lines),
                    "missing": run.missing,
                    "problems": list(run.problems),
                    "machine": (run.config or {}).get("machine"),
                    "versions": (run.config or {}).get("versions"),
                }
                for run in self.runs
            ],
            "arms": _json(self.arms),
            "comparisons": _json(self.comparisons),
            "power": _json(self.needs),
            "tasks": [
                {"task": row.task, "split": row.split, "cells": dict(zip(self._labels, _json(row.cells), strict=True))}
                for row in self.tasks
            ],
            "turns": _json(self.turns),
            "ttft_by_trials_in_flight": _json(self.load),
            "agreement_by_edits": _json(self.agreement),
            "origins": _json(self.origins),
        }

    @property
    def _labels(self) -> list[str]:
        return [arm.label for arm in self.arms]


def build(directories: Sequence[Path], *, baseline: str | None = None, confidence: float = 0.95) -> Report:
    """Compute the report of some run directories.

    baseline: an arm to compare every other one with. Raises ReportError; no data is no error, but a note.
    """
    data = gather(directories)
    # Conversations of a harness's traffic are never the same one twice: nothing pairs them.
    pairs = select_pairs([arm for arm in data.arms if arm.group[0] != SUITE], baseline)
    comparisons = compare(pairs, confidence)
    arms = tuple(arm_numbers(arm, confidence) for arm in data.arms)
    probes = [probe for run in data.runs for probe in run.fidelity]
    ran = tuple(origins(data.arms))
    return Report(
        data=data,
        confidence=confidence,
        lines=data.lines,
        arms=arms,
        comparisons=tuple(comparisons),
        needs=tuple(needs(pairs)),
        tasks=tuple(task_rows(data.arms)),
        turns={arm.label: tuple(turn_points(arm)) for arm in data.arms},
        load={label: tuple(points) for label, points in load_points(data.arms).items()},
        agreement=tuple(agreement_points(probes, confidence)),
        origins=ran,
        notes=tuple(_notes(data, arms, comparisons, ran)),
    )


def _notes(
    data: Data, arms: Sequence[ArmNumbers], comparisons: Sequence[Comparison], ran: Sequence[Origin]
) -> list[str]:
    lines = data.lines
    notes = []
    if not arms and not any(run.fidelity for run in data.runs):
        notes.append("No trial is recorded: there is nothing to count yet.")
    if len(arms) == 1:
        notes.append("There is one arm only, so nothing is compared.")
    if lines.broken:
        notes.append(f"{count(lines.broken, 'record line')} could not be read: not counted.")
    unread = sum(len(run.problems) for run in data.runs) - lines.broken - lines.torn
    if unread:
        notes.append(f"{count(unread, 'fidelity line')} could not be read.")
    if lines.torn:
        notes.append(f"{count(lines.torn, 'record file')} ended in a torn line, which is not counted.")
    missing = sum(run.missing or 0 for run in data.runs)
    if missing:
        notes.append(f"{count(missing, 'planned trial')} not recorded yet; running the same command again goes on.")
    if lines.outdated:
        notes.append(f"{count(lines.outdated, 'record')} of an older configuration of the same trial left out.")
    errors = sum(arm.error for arm in arms)
    if errors:
        notes.append(f"{count(errors, 'trial')} ended in an error, counted as not solved.")
    unscored = sum(arm.unscored for arm in arms)
    if unscored:
        notes.append(f"{count(unscored, 'trial')} without a verdict, left out of the solve rates.")
    unbalanced = sum(arm.tokens.unbalanced for arm in arms)
    if unbalanced:
        notes.append(
            f"In {count(unbalanced, 'turn')} cached, spliced and prefilled tokens do not add up to the prompt."
        )
    if len(ran) > 1:
        machines = {origin.machine for origin in ran}
        where = "on several machines" if len(machines) > 1 else "under several sets of releases"
        notes.append(f"Trials ran {where}: their times are not one measurement (table: Where the trials ran).")
    again = sum(len(turn.reread) for run in data.runs for turn in run.traffic)
    if again:
        notes.append(
            f"{count(again, 'file')} read again after an edit took the text away: the policy may cut too much (table: "
            "What the requests met)."
        )
    if any(turn.unit == "chars" and turn.shed for run in data.runs for turn in run.traffic):
        notes.append("Shed tokens of traffic are estimated from characters; give the editor a renderer to count them.")
    few = [arm.label for arm in arms if arm.tasks < 10]
    if few:
        where = "every arm" if len(few) == len(arms) > 1 else ", ".join(few)
        notes.append(f"Fewer than 10 tasks under {where}: intervals over so few tasks are rough.")
    equal = sum("solve_rate" in c.equal for c in comparisons)
    if equal:
        notes.append(
            f"In {count(equal, 'comparison')} all pairs came out equal, so nothing can be told of a difference."
        )
    partial = sum(1 for c in comparisons if c.unpaired_first or c.unpaired_second)
    if partial:
        notes.append(f"In {count(partial, 'comparison')} some trials have no partner and are left out there.")
    return notes


def _json(value: object) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value.value if isinstance(value, Enum) else value
