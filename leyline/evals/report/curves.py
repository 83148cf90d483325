"""What the plots and the heat map show: turn by turn, task by task, and under load."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from leyline.evals.report.sources import ArmTrials
from leyline.evals.stats.clustered import percentile
from leyline.evals.trials.record import TrialOutcome, TurnRecord


@dataclass(frozen=True)
class TurnPoint:
    """Turn number `turn` (from 1) of the `trials` that got that far.

    prompt: mean tokens. hit_rate: cached and spliced over prompt tokens, None where there are none. edits: new edits,
    summed. cumulative: mean uncached tokens up to this turn over all trials of the arm; one that ended keeps its sum.
    """

    turn: int
    trials: int
    prompt: float
    hit_rate: float | None
    edits: int
    cumulative: float


@dataclass(frozen=True)
class LoadPoint:
    """Times to the first token of trials that ran beside `level - 1` others on average (rounded)."""

    level: int
    trials: int
    turns: int
    p50: float
    p95: float


@dataclass(frozen=True)
class Cell:
    """One task under one arm. `trials` includes the unscored ones, which are no part of a solve rate."""

    trials: int
    solved: int
    limit: int
    error: int
    unscored: int

    @property
    def scored(self) -> int:
        return self.trials - self.unscored


@dataclass(frozen=True)
class TaskRow:
    """A task, with one cell an arm (None where the arm did not run it). split: whether two arms differ on it."""

    task: str
    cells: tuple[Cell | None, ...]
    split: bool


def turn_points(arm: ArmTrials) -> list[TurnPoint]:
    """The arm's curve by turn."""
    runs = [trial.record.turns for trial in arm.trials]
    points = []
    spent = 0
    for index in range(max((len(turns) for turns in runs), default=0)):
        here: list[TurnRecord] = [turns[index] for turns in runs if index < len(turns)]
        prompt = sum(turn.prompt for turn in here)
        cached = sum(turn.prefix + turn.spliced for turn in here)
        spent += sum(turn.prefilled for turn in here)
        points.append(
            TurnPoint(
                turn=index + 1,
                trials=len(here),
                prompt=prompt / len(here),
                hit_rate=cached / prompt if prompt else None,
                edits=sum(turn.edits for turn in here),
                cumulative=spent / len(runs),
            )
        )
    return points


def load_points(arms: Sequence[ArmTrials]) -> dict[str, list[LoadPoint]]:
    """Time to the first token by how many trials of the run were in flight, arm by arm; empty without such times.

    The level of a trial is the mean number of trials in flight while it ran, itself included, from the records' start
    and wall times, over all arms of its run.
    """
    levels: dict[int, int] = {}
    runs: dict[int, list[tuple[int, float, float]]] = {}
    for arm in arms:
        for trial in arm.trials:
            record = trial.record
            if record.started > 0 and record.wall_s > 0:
                runs.setdefault(id(trial.run), []).append((id(trial), record.started, record.started + record.wall_s))
    for spans in runs.values():
        starts, ends = (np.array([span[k] for span in spans]) for k in (1, 2))
        for number, start, end in spans:
            overlap = np.minimum(ends, end) - np.maximum(starts, start)
            levels[number] = max(1, round(float(overlap.clip(min=0).sum()) / (end - start)))
    found: dict[str, list[LoadPoint]] = {}
    for arm in arms:
        groups: dict[int, list[float]] = {}
        counts: dict[int, int] = {}
        for trial in arm.trials:
            times = [turn.ttft for turn in trial.record.turns if turn.ttft is not None]
            if id(trial) in levels and times:
                groups.setdefault(levels[id(trial)], []).extend(times)
                counts[levels[id(trial)]] = counts.get(levels[id(trial)], 0) + 1
        if groups:
            found[arm.label] = [
                LoadPoint(
                    level,
                    counts[level],
                    len(groups[level]),
                    percentile(groups[level], 50),
                    percentile(groups[level], 95),
                )
                for level in sorted(groups)
            ]
    return found


def task_rows(arms: Sequence[ArmTrials]) -> list[TaskRow]:
    """The heat map: tasks on which arms differ first, then by name. Their cells add up to the arms' counts."""
    tables: list[dict[str, Cell]] = []
    for arm in arms:
        table: dict[str, Cell] = {}
        for trial in arm.trials:
            held = table.get(trial.task, Cell(0, 0, 0, 0, 0))
            outcome = trial.record.outcome
            table[trial.task] = Cell(
                held.trials + 1,
                held.solved + (outcome is TrialOutcome.SOLVED),
                held.limit + (outcome is TrialOutcome.LIMIT),
                held.error + (outcome is TrialOutcome.ERROR),
                held.unscored + (outcome is TrialOutcome.UNSCORED),
            )
        tables.append(table)
    rows = []
    for task in sorted({task for table in tables for task in table}):
        cells = tuple(table.get(task) for table in tables)
        shares = {cell.solved / cell.scored for cell in cells if cell is not None and cell.scored}
        rows.append(TaskRow(task, cells, split=len(shares) > 1))
    return sorted(rows, key=lambda row: not row.split)
