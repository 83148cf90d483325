"""A task: files, a prompt, tools, how its tests run, and how it is judged. `open()` lays it out as an episode."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

from leyline.directives import Message
from leyline.harness.sandbox.sandbox import CommandLimits, HarnessError, Result, Sandbox, SandboxError
from leyline.harness.tools import DEFAULT_TOOLS, Evaluation, ToolBox, ToolResult
from leyline.harness.verdict.judged import ChangedSourceError, carry
from leyline.harness.verdict.shadows import cut_short, lay_guard
from leyline.harness.workspace.workspace import DiskWorkspace, WorkspaceError

# The machine has no more room, files or memory: no file of an agent is to blame.
_EXHAUSTED = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO, errno.EROFS)


class Task(ABC):
    """One piece of work for an agent. Subclasses are frozen dataclasses; a task is never changed by running it."""

    id: str
    system: str
    user: str
    tools: tuple[str, ...] = DEFAULT_TOOLS
    max_turns: int = 40
    limits: CommandLimits = CommandLimits()
    network: bool = False
    env: Mapping[str, str] = {}

    @abstractmethod
    def workspace(self) -> DiskWorkspace:
        """A fresh copy of the files; the caller closes it."""

    @abstractmethod
    def eval_command(self, number: int) -> Sequence[str] | None:
        """The command of the `number`-th test run (from 1); None when there are no tests. Exit code 0 is a pass."""

    @abstractmethod
    def verdict(self, workspace: DiskWorkspace) -> bool | None:
        """Whether the files as they are solve the task; None when nothing can tell. Does not change them."""

    def open(self) -> Episode:
        """Lay the task out. Close the episode, or use it in `with`."""
        return Episode(self)

    def sandbox(self, workspace: DiskWorkspace) -> Sandbox:
        return Sandbox(workspace.root, workspace.home, limits=self.limits, network=self.network, env=self.env)

    def run_tests(self, sandbox: Sandbox, command: Sequence[str]) -> Result:
        """Run a test command.

        Raises HarnessError when its program does not start for another reason than that the agent locked its folders.
        """
        try:
            result = sandbox.run(command)
        except (OSError, SandboxError) as error:
            if not sandbox.accessible():
                raise
            raise _no_tests(str(error)) from error
        if result.refused is not None and sandbox.accessible():
            raise _no_tests(result.refused)
        return result

    def show(self, result: Result) -> str:
        """A test run as the agent reads it."""
        return result.report()

    @contextlib.contextmanager
    def untouched(self, workspace: DiskWorkspace) -> Iterator[tuple[DiskWorkspace, Sandbox]]:
        """The task laid out anew with what counts of the agent's work, and where its verdict is found.

        Files that the agent may not edit or does not see, and what steers the test runner, are as they were at the
        start (`verdict/judged.py`); a new module stands in front of nothing that the run is made of
        (`verdict/shadows.py`). Raises WorkspaceError when the agent's files cannot be had, and HarnessError when there
        is no room for them or those of the start are gone.
        """
        try:
            copy = self.workspace()
        except (WorkspaceError, OSError) as error:
            _need_room(error)
            raise HarnessError(f"the task cannot be laid out again to be judged: {error}") from error
        with copy:
            try:
                carry(workspace, copy)
                extra = lay_guard(workspace, copy)
            except ChangedSourceError as error:
                raise HarnessError(f"{error}: no verdict; leave the task's folder alone while agents work") from error
            except OSError as error:
                _need_room(error)
                raise WorkspaceError(f"the files cannot be judged: {error}") from error
            except WorkspaceError as error:
                _need_room(error)
                raise
            sandbox = self.sandbox(copy)
            extra["PYTHONPATH"] = os.pathsep.join(filter(None, (extra["PYTHONPATH"], sandbox.env.get("PYTHONPATH"))))
            sandbox.env.update(extra)
            yield copy, sandbox

    def judge(self, workspace: DiskWorkspace, command: Sequence[str]) -> Judged | None:
        """Run `command` on an untouched copy of the files; None when they cannot be copied. Raises HarnessError."""
        try:
            with self.untouched(workspace) as (_, sandbox):
                return Judged(self.run_tests(sandbox, command), cut_short(sandbox))
        except WorkspaceError:
            return None


class Judged(NamedTuple):
    """A run for a verdict. cut_short: a Python process of the command was ended before its end, by code under test
    or else; its exit code says nothing.
    """

    result: Result
    cut_short: bool


class Episode:
    """A task laid out for one agent: messages, tools and calls for the loop, and at the end a verdict and a patch."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.messages: list[Message] = [
            {"role": "system", "content": task.system},
            {"role": "user", "content": task.user},
        ]
        self.workspace = task.workspace()
        try:
            self.sandbox = task.sandbox(self.workspace)
            command = task.eval_command(1)
            self.toolbox = ToolBox(
                self.workspace,
                sandbox=self.sandbox,
                evaluate=None if command is None else self._evaluate,
                entry=command or (),
                names=task.tools,
            )
        except BaseException:
            self.workspace.close()
            raise

    @property
    def tools(self) -> list[dict[str, object]]:
        """The tools in the form of the OpenAI `tools` parameter."""
        return self.toolbox.schemas()

    @property
    def turns(self) -> int:
        """The most model calls the task is worth."""
        return self.task.max_turns

    def call(self, name: str, arguments: object) -> ToolResult:
        """Run one tool call; never raises for what a model sends. Raises HarnessError."""
        return self.toolbox.call(name, arguments)

    def solved(self) -> bool | None:
        """Whether the task is solved as the files are now; None when it has no tests."""
        return self.task.verdict(self.workspace)

    def probe(self) -> str | None:
        """None where both `eval` and the verdict say that the files pass, else the last line of what `eval` shows."""
        shown = self.call("eval", {})
        if shown.meta.get("passed") is True and self.solved() is True:
            return None
        return (shown.text.strip().splitlines() or ["no report"])[-1]

    def artifacts(self) -> dict[str, str]:
        """`model_patch`: what the agent changed, as a git patch."""
        return {"model_patch": self.workspace.diff()}

    def close(self) -> None:
        """End what runs and remove the files. Safe to call twice."""
        self.toolbox.close()
        self.workspace.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _evaluate(self, number: int) -> Evaluation:
        result = self.task.run_tests(self.sandbox, self.task.eval_command(number) or ())
        return Evaluation(self.task.show(result), result.exit_code == 0)


@dataclass(frozen=True)
class FilesTask(Task):
    """A task whose files are a mapping, tested and judged by two commands.

    evaluate: the command of the k-th test run. check: the command whose exit code 0 says that the task is solved; it
    runs on a copy with the read-only files restored.
    mark: a line that both commands print before they touch a file, and again, with a space and the exit code behind it,
    when they come to their end. A run that does not print it is no fault of the agent's; one that prints it once was
    ended by the code under test, and does not pass.
    """

    id: str
    system: str
    user: str
    files: Mapping[str, str]
    evaluate: Callable[[int], Sequence[str]]
    check: Sequence[str]
    readonly: frozenset[str] = frozenset()
    tools: tuple[str, ...] = DEFAULT_TOOLS
    max_turns: int = 40
    limits: CommandLimits = field(default_factory=CommandLimits)
    mark: str | None = None

    def workspace(self) -> DiskWorkspace:
        return DiskWorkspace.from_files(self.files, readonly=[_literal(path) for path in sorted(self.readonly)])

    def eval_command(self, number: int) -> Sequence[str]:
        return self.evaluate(number)

    def run_tests(self, sandbox: Sandbox, command: Sequence[str]) -> Result:
        result = super().run_tests(sandbox, command)
        return result if self.mark is None else _between(result, self.mark)

    def verdict(self, workspace: DiskWorkspace) -> bool:
        found = self.judge(workspace, self.check)
        if found is None or found.result.exit_code != 0:
            return False
        # A check with a mark tells its end itself; others may end like this by themselves, whatever is tested.
        return self.mark is not None or not found.cut_short or self._is_always_cut_short()

    def _is_always_cut_short(self) -> bool:
        with self.workspace() as fresh:
            found = self.judge(fresh, self.check)
        return found is not None and found.cut_short


def _between(result: Result, mark: str) -> Result:
    """A run without its marks; exit code 0 only where both are there and the last one says so."""
    _, started, text = result.output.partition(f"{mark}\n")
    if not started and result.killed != "disk" and result.refused is None:  # the agent's doing, before the run began
        raise _no_tests(result.last_line())
    report, ended, status = text.rpartition(f"\n{mark} ")
    if ended:
        return replace(result, output=report, exit_code=result.exit_code or int(not status.startswith("0\n")))
    if result.killed is None:
        text += f"\n[the run ended before its report, with exit code {result.exit_code}]"
    return replace(result, output=text, exit_code=result.exit_code or 1)


def _no_tests(reason: str) -> HarnessError:
    return HarnessError(f"the task's tests cannot be run here: {reason} (`leyline doctor` tries them)")


def _need_room(error: Exception) -> None:
    """Raise HarnessError where it was the machine that had no room."""
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError) and cause.errno in _EXHAUSTED:
        place = tempfile.gettempdir()
        raise HarnessError(f"no room in {place} for the files to be judged: {error}; free some") from error


def _literal(path: str) -> str:
    """`path` as a gitignore pattern that matches it alone."""
    return "/" + re.sub(r"([\\*?\[\]!# ])", r"\\\1", path)
