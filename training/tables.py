"""Tables of the tiny agents' evaluation, from the per-task results alone.

python -m training.tables results/tiny-agent > results/tiny-agent/tables.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from leyline.evals.stats.clustered import mcnemar, wilson

MODELS = ("tiny-mla", "tiny-gqa")
SETS = ("short/seen", "long/seen", "xlong/seen", "short/unseen", "long/unseen")
ARMS = ("keep_all", "truncate", "amortize", "forget", "unrotated", "shifted", "slipped", "cut_all")
PAIRS = (
    ("keep_all", "truncate"),
    ("keep_all", "amortize"),
    ("truncate", "amortize"),
    ("truncate", "forget"),
    ("amortize", "unrotated"),
    ("amortize", "shifted"),
    ("amortize", "slipped"),
    ("truncate", "cut_all"),
)
CARDS = Path(__file__).parent.parent / "leyline" / "models"
START, END = "<!-- measured -->", "<!-- end of measured -->"
Cells = Mapping[str, Mapping[str, Any]]


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The cells of a results file by name, LEVEL/SPLIT/ARM."""
    return {cell["cell"]: cell for cell in json.loads(path.read_text(encoding="utf-8"))}


def total(cell: Mapping[str, Any]) -> int:
    """Episodes of a cell, those that were cut off included."""
    return int(cell["tasks"])


def solved(cell: Mapping[str, Any], within: int | None = None) -> int:
    """Episodes that were solved, in at most `within` turns."""
    return len(solved_tasks(cell, within))


def solved_tasks(cell: Mapping[str, Any], within: int | None = None) -> set[str]:
    return {row["task"] for row in cell["rows"] if row["solved"] and (within is None or row["turns"] <= within)}


def reach(cell: Mapping[str, Any]) -> int | None:
    """The turn up to which a cell is known: None where every episode ended, else the longest episode that did."""
    if len(cell["rows"]) == total(cell):
        return None
    return int(cell.get("cut_at") or max((row["turns"] for row in cell["rows"]), default=0))


def mean(cell: Mapping[str, Any], field: str) -> str:
    """The mean of the episodes that ended."""
    rows = cell["rows"]
    return f"{sum(float(row[field]) for row in rows) / len(rows):,.0f}" if rows else "-"


def hit_rate(cell: Mapping[str, Any]) -> str:
    """Prompt tokens that were not prefilled, over all prompt tokens of the episodes that ended."""
    prompts = sum(row["prompt_tokens"] for row in cell["rows"])
    return f"{100 - 100 * sum(row['prefilled_tokens'] for row in cell['rows']) / prompts:.1f} %" if prompts else "-"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(header)} |", f"|{' --- |' * len(header)}", *(f"| {' | '.join(row)} |" for row in rows)]


def rates(cells: Cells) -> list[str]:
    """Solve rates with Wilson 95 % intervals, and tokens a task."""
    rows = []
    for group in SETS:
        for arm in ARMS:
            cell = cells.get(f"{group}/{arm}")
            if cell is None:
                continue
            count, episodes, ended = solved(cell), total(cell), len(cell["rows"])
            interval = wilson(count, episodes)
            rows.append(
                (
                    group,
                    arm,
                    f"{count}/{episodes}",
                    f"{100 * interval.estimate:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]",
                    "-" if ended == episodes else f"{episodes - ended} at turn {reach(cell)}",
                    mean(cell, "turns"),
                    mean(cell, "prefilled_tokens"),
                    mean(cell, "spliced_tokens"),
                    hit_rate(cell),
                )
            )
    header = (
        "tasks",
        "arm",
        "solved",
        "rate, 95 %",
        "cut off",
        "turns",
        "prefilled a task",
        "spliced a task",
        "hit rate",
    )
    return table(header, rows)


def pairs(cells: Cells) -> list[str]:
    """Paired comparisons on the same tasks, exact McNemar."""
    rows = []
    for group in SETS:
        for first, second in PAIRS:
            one, other = cells.get(f"{group}/{first}"), cells.get(f"{group}/{second}")
            if one is None or other is None:
                continue
            known = [turn for turn in (reach(one), reach(other)) if turn is not None]
            within = min(known, default=None)
            left, right = solved_tasks(one, within), solved_tasks(other, within)
            seeds = range(one["first_seed"], one["first_seed"] + one["tasks"])
            tasks = [f"micro-{group.replace('/', '-')}-{seed:06d}" for seed in seeds]
            result = mcnemar((task in left, task in right) for task in tasks)
            p = f"{result.p_value:.2g}" if result.p_value >= 1e-4 else f"{result.p_value:.0e}"
            rows.append(
                (
                    group,
                    f"{first} / {second}",
                    "all" if within is None else f"{within}",
                    f"{len(left)} / {len(right)}",
                    str(result.only_first),
                    str(result.only_second),
                    p,
                )
            )
    header = ("tasks", "first / second", "turns", "solved", "only first", "only second", "p")
    return table(header, rows)


def source(cells: Cells) -> str:
    """Machine, number format and date of a file's cells, one sentence."""
    facts = sorted({(run["machine"], run["dtype"], run["date"]) for c in cells.values() for run in c["runs"]})
    return "; ".join(f"{machine}, {dtype}, {date}" for machine, dtype, date in facts)


def render(folder: Path) -> str:
    """The whole page."""
    lines = [
        "# The tiny agents, evaluated",
        "",
        "Greedy decoding, real execution. Solved: the agent submitted, and visible and hidden tests pass. All arms of",
        "a group of tasks ran on the same tasks. Made by `python -m training.tables` from the JSON beside this page;",
        "`ARMS` in `training/evaluate.py` says what the arms are, `training/train.md` how to run them again.",
        "",
        "*Cut off*: episodes that had not ended when the machine's time was over, and about the turn they had",
        "reached. They count as not solved; turns and tokens are means of the episodes that ended. Pairs (exact",
        "McNemar) with such a cell count, on both sides, what was solved within that many turns.",
    ]
    for name in MODELS:
        path = folder / f"{name}.json"
        if path.exists():
            cells = read(path)
            lines += ["", f"## {name}", "", f"Measured on: {source(cells)}.", "", *rates(cells), "", *pairs(cells)]
    return "\n".join(lines) + "\n"


def card(text: str, cells: Cells) -> str:
    """A model card with its table made anew."""
    head, _, rest = text.partition(START)
    _, _, tail = rest.partition(END)
    facts = f"Measured on: {source(cells)}; the commands stand in the results, under `runs`."
    return "\n".join([head + START, "", facts, "", *rates(cells), "", END]) + tail


def main() -> None:
    folder = Path(sys.argv[1])
    (folder / "tables.md").write_text(render(folder), encoding="utf-8")
    for name in MODELS:
        path = CARDS / name / "MODEL_CARD.md"
        if path.exists() and (folder / f"{name}.json").exists():
            text = path.read_text(encoding="utf-8")
            path.write_text(card(text, read(folder / f"{name}.json")), encoding="utf-8")


if __name__ == "__main__":
    main()
