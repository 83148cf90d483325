"""A task in this process, without a sandbox or a disk: for training data and batched evaluation.

Every text equals what the harness's tools give for the same calls: the same tools run on the same files, and the test
runner prints the same report in process as in the sandbox.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping

from leyline.directives import Message
from leyline.harness.tools.tool import Evaluation
from leyline.harness.tools.toolbox import ToolBox
from leyline.harness.workspace.workspace import DiskWorkspace, MemoryWorkspace
from leyline.suites.micro.prompts import system_prompt, user_prompt
from leyline.suites.micro.task import MicroTask


class MicroEnv:
    """One attempt at a task.

    messages: how the conversation opens; done: the agent has submitted. Main thread only: the test runner stops code
    under test by a signal.
    """

    def __init__(self, task: MicroTask) -> None:
        self.task = task
        self.messages: list[Message] = [
            {"role": "system", "content": system_prompt()},
            {"role": "user", "content": user_prompt(task)},
        ]
        self.done = False
        self.evaluations = 0
        self._workspace = MemoryWorkspace(task.files, task.read_only)
        self._box = ToolBox(self._workspace, evaluate=self._evaluate)

    @property
    def files(self) -> dict[str, str]:
        """The files as they are now, in the order in which the agent sees them."""
        return {path: self._workspace.read(path) for path in self._workspace.files()}

    def call(self, name: str, arguments: Mapping[str, object] | str) -> str:
        """Run one tool call and return its text. Never raises for what a model sends."""
        given: object = arguments
        if isinstance(given, str):
            with contextlib.suppress(ValueError, RecursionError):
                given = json.loads(given)
        path = given.get("path") if isinstance(given, Mapping) else None
        if path is not None and name in ("view", "edit") and str(path) not in self.task.files:
            return self._on_disk(name, arguments)
        result = self._box.call(name, arguments)
        self.done = self.done or result.done
        return result.text

    def solved(self) -> bool:
        """Whether visible and hidden tests pass with the files as they are now."""
        return self.task.solved(self.files)

    def _evaluate(self, number: int) -> Evaluation:
        self.evaluations = number
        text, passed = self.task.evaluate(self.files, number)
        return Evaluation(text, passed)

    def _on_disk(self, name: str, arguments: Mapping[str, object] | str) -> str:
        """A path that is not spelled as in the listing: a real folder knows whether it is one of the files."""
        read_only = [f"/{path}" for path in sorted(self.task.read_only)]
        with DiskWorkspace.from_files(self.files, readonly=read_only) as workspace, ToolBox(workspace) as box:
            text = box.call(name, arguments).text
            for path in self.task.modules:
                self._workspace.write(path, workspace.read(path))
        return text
