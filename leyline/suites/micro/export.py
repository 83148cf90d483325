"""Tasks as files: a folder one can open, and a folder that debug-gym reads."""

from __future__ import annotations

import json
from pathlib import Path

from leyline.suites.micro.prompts import user_prompt
from leyline.suites.micro.task import MicroTask


def write(task: MicroTask, folder: Path) -> None:
    """Write the buggy sources and visible tests below `folder` (made if it is not there)."""
    for path, text in task.files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")


def describe(task: MicroTask) -> dict[str, object]:
    """What a person wants to know of a task, its answers included."""
    bugs = [{"path": b.path, "line": b.line, "unit": b.unit, "family": b.family, "kind": b.kind} for b in task.bugs]
    return {
        "id": task.id,
        "level": task.level,
        "split": task.split,
        "seed": task.seed,
        "bugs": bugs,
        "budget": task.budget,
    }


def export_debug_gym(task: MicroTask, folder: Path) -> None:
    """Write `task` as debug-gym's local folders are: sources, `test.py` beside them, and its two ignore files.

    `tests/hidden.py` holds the hidden tests, which debug-gym neither shows nor runs.
    """
    write(task, folder)
    (folder / task.test_path).rename(folder / "test.py")
    (folder / "tests" / "hidden.py").write_text(task.hidden, encoding="utf-8")
    (folder / ".debugignore").write_text("tests/\ntask.json\n__pycache__/\n.pytest_cache/\n", encoding="utf-8")
    (folder / ".debugreadonly").write_text("*test*.py\n", encoding="utf-8")
    details = {**describe(task), "prompt": user_prompt(task)}
    (folder / "task.json").write_text(json.dumps(details, indent=1) + "\n", encoding="utf-8")
