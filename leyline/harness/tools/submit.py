"""submit: the agent is done."""

from __future__ import annotations

from leyline.harness.tools.tool import Arguments, Context, Tool, ToolResult


def run(context: Context, arguments: Arguments) -> ToolResult:
    return ToolResult("Submitted.", done=True, meta={"kind": "submit"})


SUBMIT = Tool("submit", "Finish.", {}, run)
