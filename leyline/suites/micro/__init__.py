"""Generated debugging tasks that the bundled tiny agents can solve.

    from leyline.suites import micro
    task = micro.make_task(7, "short", "unseen")
    micro.write(task, Path("task"))

A task is a few small Python modules with bugs, visible tests that fail, and hidden tests that decide. Families of the
"unseen" split were never trained on. Everything is a function of (seed, level, split).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leyline._lazy import lazily
from leyline.suites.micro.export import describe, export_debug_gym, write
from leyline.suites.micro.generate import LEVELS, SPLITS, Level, TaskError, make_task
from leyline.suites.micro.prompts import TOOLS, system_prompt, user_prompt
from leyline.suites.micro.task import Bug, MicroTask

if TYPE_CHECKING:
    from leyline.suites.micro.corpus import Document, documents, episode
    from leyline.suites.micro.oracle import Oracle
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "leyline.suites.micro.corpus": "Document documents episode",
            "leyline.suites.micro.oracle": "Oracle",
        },
    )

__all__ = [
    "LEVELS",
    "SPLITS",
    "TOOLS",
    "Bug",
    "Document",
    "Level",
    "MicroTask",
    "Oracle",
    "TaskError",
    "describe",
    "documents",
    "episode",
    "export_debug_gym",
    "make_task",
    "system_prompt",
    "user_prompt",
    "write",
]
