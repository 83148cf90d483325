"""What a suite is: tasks by id, and how one of them is laid out for an agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

from leyline.directives import LeylineError, Message


class SuiteError(LeylineError):
    """A suite cannot be had or a task cannot be laid out. The message says what is missing."""


@dataclass(frozen=True, slots=True)
class TaskInfo:
    """One task by name. tags: facts for tables."""

    id: str
    tags: Mapping[str, str] = field(default_factory=dict)


class Attempt(Protocol):
    """A task laid out for one trial: a harness `Task`, a harness `Toolbox`, and what it leaves behind."""

    @property
    def messages(self) -> Sequence[Message]: ...

    @property
    def tools(self) -> Sequence[Mapping[str, object]]:
        """Tool definitions in the OpenAI form."""

    @property
    def turns(self) -> int | None:
        """The most model calls the task is worth; None where it has no say."""

    def call(self, name: str, arguments: Mapping[str, object]) -> Any:
        """Run one tool call; the result has `text` and `done`."""

    def solved(self) -> bool | None:
        """Whether what the agent left passes; None where that is not known here: the trial is then unscored."""

    def artifacts(self) -> Mapping[str, str]:
        """What later steps need of the result, such as `model_patch`; asked once, when the agent has ended."""


class Suite(Protocol):
    """A named set of tasks. Instances are built once in every worker and must not share state between attempts."""

    @property
    def name(self) -> str: ...

    def tasks(self) -> Sequence[TaskInfo]: ...

    def digest(self, task: str) -> str:
        """Changes whenever the task would be another one."""

    def open(self, task: str, seed: int) -> AbstractContextManager[Attempt]:
        """Lay the task out in a fresh workspace, removed on exit. Raises SuiteError."""

    @property
    def default_n(self) -> int | None:
        """How many tasks an eval takes of it where nobody says; None for all."""

    @property
    def score(self) -> str | None:
        """How patches are scored when the trials have ended (`docker`, `here`, `none`); None where `solved` decides."""

    def preflight(self) -> Sequence[str]:
        """What is missing to run and score, one line each; asked before any model call."""
