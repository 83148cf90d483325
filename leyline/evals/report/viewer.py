"""Trajectories for the page's viewer: chosen, read, coloured and packed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tokenizers import Tokenizer

from leyline.directives import JsonMapping, JsonObject
from leyline.directives.common import common_prefix
from leyline.directives.content import message_text
from leyline.evals.report.content import Report
from leyline.evals.report.sources import Trial
from leyline.evals.report.tokens import UNKNOWN, Mark, Segment, follow_edits, segments, tokenizer_of
from leyline.harness.trajectory import Trajectory, TrajectoryError, read_trajectory

SIZE = 16_000_000  # bytes of packed trajectories in a page
_CUT = 20_000  # characters of a tool output or an answer beside the prompt


@dataclass
class Viewer:
    """What the page shows. packed: one JSON text a trajectory; entries: how the reader chooses between them.

    recorded: trials with a trajectory. unreadable: files that are missing or damaged, one sentence each.
    """

    recorded: int = 0
    packed: list[str] = field(default_factory=list)
    entries: list[JsonObject] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)

    def index(self) -> dict[tuple[str, str], int]:
        """(arm, task) -> the first entry of that pair."""
        found: dict[tuple[str, str], int] = {}
        for number, entry in enumerate(self.entries):
            found.setdefault((entry["arm"], entry["task"]), number)
        return found


def view(report: Report, limit: int, tokenizer: Path | None = None) -> Viewer:
    """Pack up to `limit` trajectories: whole tasks, those on which arms differ first, so that arms can be compared."""
    viewer = Viewer()
    tokenizers: dict[str, Tokenizer | None] = {}
    size = 0
    for arm, trial in _order(report):
        viewer.recorded += 1
        if len(viewer.packed) >= limit or size >= SIZE:
            continue
        path = trial.trajectory
        if path is None:
            continue
        model = trial.record.model
        if model not in tokenizers:
            tokenizers[model] = tokenizer_of(model, tokenizer)
        try:
            trajectory = read_trajectory(path)
            text = pack(trajectory, tokenizers[model])
        except TrajectoryError as error:
            viewer.unreadable.append(str(error))
            continue
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            viewer.unreadable.append(f"{path}: {type(error).__name__}: {error}")
            continue
        size += len(text)
        viewer.packed.append(text)
        record = trial.record
        facts = {"arm": arm, "task": trial.task, "seed": record.seed, "outcome": record.outcome.value}
        viewer.entries.append({**facts, "why": record.detail, "edit": _first_edit(trajectory)})
    return viewer


def pack(trajectory: Trajectory, tokenizer: Tokenizer | None) -> str:
    """One trajectory as JSON. A line of text is stored once; a turn says how many it shares with the turn before."""
    lines: dict[str, int] = {}
    turns: list[dict[str, object]] = []
    marks: list[Mark] = []
    held: list[int] = []
    before: list[int] = []
    for turn in trajectory.turns:
        ids = turn["input"].get("ids")
        if ids is not None and tokenizer is not None:
            exact = True
            marks = follow_edits(marks, turn.get("directives") or (), held, ids, turn["turn"], tokenizer)
            runs = segments(ids, turn["receipt"], marks, tokenizer)
            held = ids
        else:
            exact = False
            marks, runs = _by_message(turn, trajectory.turns)
        numbers = [lines.setdefault(line, len(lines)) for line in "".join(run.text for run in runs).split("\n")]
        shared = common_prefix(before, numbers)
        turns.append(
            {
                "share": shared,
                "lines": numbers[shared:],
                "runs": [[_utf16(run.text), run.state, -1 if run.mark is None else run.mark] for run in runs],
                "marks": [[m.turn, m.mode, m.removed, m.text] for m in marks],
                "exact": exact,
                **_facts(turn),
            }
        )
        before = numbers
    header = trajectory.header
    return json.dumps(
        {
            "lines": list(lines),
            "turns": turns,
            "ended": trajectory.outcome,
            "reason": (trajectory.end or {}).get("reason"),
            "torn": trajectory.torn,
            "model": header.get("model"),
        },
        ensure_ascii=False,
        separators=(",", ":"),
    )


def _order(report: Report) -> list[tuple[str, Trial]]:
    """Trials that recorded a trajectory, in the order in which they are worth reading."""
    by_task: dict[str, list[tuple[str, Trial]]] = {}
    for arm in report.data.arms:
        for trial in arm.trials:
            if trial.record.trajectory is not None:
                by_task.setdefault(trial.task, []).append((arm.label, trial))
    return [pair for row in report.tasks for pair in sorted(by_task.get(row.task, ()), key=lambda p: p[1].record.seed)]


def _first_edit(trajectory: Trajectory) -> int | None:
    """The place of the first turn with an edit, where the viewer opens."""
    return next((k for k, turn in enumerate(trajectory.turns) if turn.get("edits") or turn.get("directives")), None)


def _facts(turn: JsonMapping) -> JsonObject:
    """What stands beside the prompt."""
    receipt = turn["receipt"]
    names = ("prompt_tokens", "prefix_tokens", "spliced_tokens", "prefilled_tokens")
    ttft = turn.get("timings", {}).get("ttft")
    return {
        "tokens": [receipt.get(name, 0) for name in names],
        "fallback": receipt.get("fallback"),
        "detail": receipt.get("detail"),
        "approximate": receipt.get("approximate_from"),
        "edits": len(turn.get("edits") or ()),
        "ttft": ttft if isinstance(ttft, int | float) else None,
        "answer": message_text(turn["output"])[:_CUT],
        "tools": [
            {"name": tool.get("name") or "no valid call", "output": str(tool.get("output", ""))[:_CUT]}
            for tool in turn["tools"]
        ],
    }


def _by_message(turn: JsonMapping, turns: Sequence[JsonMapping]) -> tuple[list[Mark], list[Segment]]:
    """The messages one after another, where token positions are not known; edited ones are marked."""
    made = {}
    for earlier in turns[: turn["turn"] + 1]:
        for edit in earlier.get("edits") or ():
            if edit.get("replacement") is not None:
                made[_key(edit["replacement"])] = (earlier["turn"], str(edit.get("mode", "")))
    marks: list[Mark] = []
    runs: list[Segment] = []
    for message in turn["input"]["messages"]:
        number = None
        found = made.get(_key(message))
        if found is not None:
            number = len(marks)
            marks.append(Mark(0, 0, found[0], found[1], 0, ""))
        runs.append(Segment(f"[{message.get('role', '?')}]\n", UNKNOWN))
        runs.append(Segment(f"{message_text(message)}\n\n", UNKNOWN, number))
    return marks, runs


def _key(message: object) -> str:
    return json.dumps(message, sort_keys=True, default=str)


def _utf16(text: str) -> int:
    """The length as JavaScript counts it."""
    return len(text) + sum(character > "\uffff" for character in text)
