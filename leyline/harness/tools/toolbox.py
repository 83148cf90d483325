"""The tools of one episode: their schemas for the model, and calls that never raise for what a model sends."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Self

from leyline.directives import LeylineError
from leyline.harness.sandbox.sandbox import HarnessError, Sandbox, capped
from leyline.harness.tools.bash import BASH
from leyline.harness.tools.edit import EDIT
from leyline.harness.tools.eval import EVAL
from leyline.harness.tools.grep import GREP
from leyline.harness.tools.pdb import PDB
from leyline.harness.tools.submit import SUBMIT
from leyline.harness.tools.tool import Context, Evaluation, Tool, ToolResult
from leyline.harness.tools.view import VIEW
from leyline.harness.workspace.workspace import Workspace, printable

TOOLS: dict[str, Tool] = {tool.name: tool for tool in (VIEW, GREP, EDIT, EVAL, BASH, PDB, SUBMIT)}
DEFAULT_TOOLS = ("view", "grep", "edit", "eval", "submit")
MAX_TEXT = 30_000  # characters of one answer


class ToolError(LeylineError):
    """A tool box was asked for a tool that does not exist."""


class ToolBox:
    """The named tools over one workspace.

    evaluate: runs the task's tests for the k-th time; sandbox: where bash and pdb run; entry: the command pdb debugs.
    Close it (or use it in `with`) to end what the tools keep running.
    """

    def __init__(
        self,
        workspace: Workspace,
        *,
        sandbox: Sandbox | None = None,
        evaluate: Callable[[int], Evaluation] | None = None,
        entry: Iterable[str] = (),
        names: Iterable[str] = DEFAULT_TOOLS,
    ) -> None:
        names = tuple(names)
        unknown = [name for name in names if name not in TOOLS]
        if unknown:
            raise ToolError(f"unknown tool {unknown[0]!r}; the tools are {', '.join(TOOLS)}")
        self._tools = {name: TOOLS[name] for name in names}
        self._context = Context(workspace, sandbox, evaluate, tuple(entry))

    @property
    def workspace(self) -> Workspace:
        return self._context.workspace

    def schemas(self) -> list[dict[str, object]]:
        """The tools in the form of the OpenAI `tools` parameter."""
        return [tool.schema() for tool in self._tools.values()]

    def call(self, name: str, arguments: object) -> ToolResult:
        """Run one tool call.

        `arguments` is whatever the model sent: a mapping, or its JSON text. Anything wrong with the call is an error
        text for the model; arguments that a tool does not know are ignored. Raises HarnessError.
        """
        name = _clean(str(name))
        try:
            given = _mapping(arguments)
            tool = self._tools.get(name)
            if tool is None:
                result = ToolResult.failure(f"unknown tool {name}")
            else:
                result = tool.run(self._context, given)
        except HarnessError:
            raise
        except LeylineError as error:
            result = ToolResult.failure(str(error))
        except (KeyError, ValueError, TypeError, OverflowError) as error:
            result = ToolResult.failure(f"bad arguments for {name}: {str(error)[:60]}")
        except (OSError, RecursionError, MemoryError) as error:
            result = ToolResult.failure(f"{name} could not run: {str(error)[:200] or type(error).__name__}")
        text = capped(printable(result.text), MAX_TEXT)
        return ToolResult(text, result.done, result.error, result.meta)

    def close(self) -> None:
        """End what the tools keep running. Safe to call twice."""
        while self._context.closers:
            with contextlib.suppress(OSError):
                self._context.closers.pop()()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _mapping(arguments: object) -> dict[str, object]:
    if isinstance(arguments, str):
        arguments = json.loads(arguments) if arguments.strip() else {}
    if arguments is None:
        return {}
    if not isinstance(arguments, Mapping):
        raise TypeError("the arguments must be a JSON object")
    return {str(key): _clean(value) if isinstance(value, str) else value for key, value in arguments.items()}


def _clean(text: str) -> str:
    """Lone surrogates, which JSON can carry and no file can hold, become the replacement character."""
    return printable(text)
