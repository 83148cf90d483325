"""Micro tasks as the harness runs them: laid out on disk, tested and judged by the task's own runner in the sandbox."""

from __future__ import annotations

import secrets

from leyline.harness.sandbox.sandbox import CommandLimits
from leyline.harness.tasks import FilesTask
from leyline.suites.micro.prompts import TOOLS, system_prompt, user_prompt
from leyline.suites.micro.task import MicroTask

LIMITS = CommandLimits(seconds=20.0, memory=1 << 30)


def as_task(task: MicroTask) -> FilesTask:
    """The task for `leyline.harness`: prompts and tools as the bundled agents were trained on."""
    mark = secrets.token_hex(8)
    return FilesTask(
        id=task.id,
        system=system_prompt(),
        user=user_prompt(task),
        files=task.files,
        evaluate=lambda number: [*task.eval_command(number), "--mark", mark],
        check=[*task.check_command(), "--mark", mark],
        readonly=task.read_only,
        tools=tuple(tool["function"]["name"] for tool in TOOLS),
        max_turns=task.budget,
        limits=LIMITS,
        mark=mark,
    )
