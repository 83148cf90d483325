"""Tables of the tiny agents' evaluation, from the per-task results alone.

python -m training.tables results/tiny-agent > results/tiny-agent/tables.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from leyline.evals.stats import mcnemar, wilson

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
CARDS = Path(__file__).parent.parent / "leyline" / "evals" / "models"
START, END = "<!-- measured -->", "<!-- end of measured -->"
Cells = Mapping[str, Mapping[str, Any]]


def read(path: Path) -> dict[str, dict[str, Any]]:
    """The cells of a results file by name, LEVEL/SPLIT/ARM."""
    return {cell["cell"]: cell for cell in json.loads(path.read_text(encoding="utf-8"))}


def solved(cell: Mapping[str, Any]) -> int:
    return sum(bool(row["solved"]) for row in cell["rows"])


def mean(cell: Mapping[str, Any], field: str) -> float:
    return sum(float(row[field]) for row in cell["rows"]) / len(cell["rows"])


def hit_rate(cell: Mapping[str, Any]) -> float:
    """Prompt tokens that were not prefilled, over all prompt tokens of the cell."""
    rows = cell["rows"]
    return 1 - sum(row["prefilled_tokens"] for row in rows) / sum(row["prompt_tokens"] for row in rows)


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
            count, total = solved(cell), len(cell["rows"])
            interval = wilson(count, total)
            rows.append(
                (
                    group,
                    arm,
                    f"{count}/{total}",
                    f"{100 * interval.estimate:.1f} % [{100 * interval.low:.1f}, {100 * interval.high:.1f}]",
                    f"{mean(cell, 'turns'):.1f}",
                    f"{mean(cell, 'prefilled_tokens'):,.0f}",
                    f"{mean(cell, 'spliced_tokens'):,.0f}",
                    f"{100 * hit_rate(cell):.1f} %",
                )
            )
    return table(
        ("tasks", "arm", "solved", "rate, 95 %", "turns", "prefilled a task", "spliced a task", "hit rate"), rows
    )


def pairs(cells: Cells) -> list[str]:
    """Paired comparisons on the same tasks, exact McNemar."""
    rows = []
    for group in SETS:
        for first, second in PAIRS:
            one, other = cells.get(f"{group}/{first}"), cells.get(f"{group}/{second}")
            if one is None or other is None:
                continue
            left = {row["task"]: row["solved"] for row in one["rows"]}
            right = {row["task"]: row["solved"] for row in other["rows"]}
            shared = sorted(left.keys() & right.keys())
            result = mcnemar((left[task], right[task]) for task in shared)
            p = f"{result.p_value:.2g}" if result.p_value >= 1e-4 else f"{result.p_value:.0e}"
            rows.append(
                (group, f"{first} / {second}", str(len(shared)), str(result.only_first), str(result.only_second), p)
            )
    return table(("tasks", "first / second", "pairs", "only first", "only second", "p"), rows)


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
    facts = f"Measured on: {source(cells)}, by `python -m training.evaluate --matrix`."
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
