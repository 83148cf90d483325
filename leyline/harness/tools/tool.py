"""What a tool is: a name, a schema for the model, and a function from arguments to text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from leyline.directives import JsonMapping, JsonObject
from leyline.harness.workspace.workspace import Workspace

if TYPE_CHECKING:
    from leyline.harness.sandbox.sandbox import Sandbox

Arguments = JsonMapping


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a call gives back.

    text: for the model. done: the agent has finished. error: the call was refused or could not be understood.
    meta: what happened, for programs: `kind` is the tool's name or "error", with the arguments as understood.
    """

    text: str
    done: bool = False
    error: bool = False
    meta: JsonObject = field(default_factory=dict)

    @classmethod
    def failure(cls, message: str) -> ToolResult:
        return cls(f"Error: {message}", error=True, meta={"kind": "error"})


@dataclass(slots=True)
class Context:
    """What a tool may use. `evaluate(k)` is the k-th run of the task's tests, counted from 1."""

    workspace: Workspace
    sandbox: Sandbox | None = None
    evaluate: Callable[[int], Evaluation] | None = None
    entry: tuple[str, ...] = ()
    evaluations: int = 0
    closers: list[Callable[[], None]] = field(default_factory=list)
    state: JsonObject = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One run of a task's tests: the text for the model, and whether everything passed."""

    text: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool an agent can call.

    properties: the JSON schema of each argument; all are required. run: may raise KeyError, TypeError, ValueError or
    OverflowError for arguments it cannot read and WorkspaceError for a file it may not have; the tool box words both.
    """

    name: str
    description: str
    properties: dict[str, dict[str, str]]
    run: Callable[[Context, Arguments], ToolResult]

    def schema(self) -> dict[str, object]:
        """The tool in the form of the OpenAI `tools` parameter."""
        parameters = {"type": "object", "properties": self.properties, "required": list(self.properties)}
        function = {"name": self.name, "description": self.description, "parameters": parameters}
        return {"type": "function", "function": function}


def argument(kind: str, description: str) -> dict[str, str]:
    return {"type": kind, "description": description}
