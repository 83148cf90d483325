"""bash: a shell command in the workspace."""

from __future__ import annotations

from leyline.harness.tools.tool import Arguments, Context, Tool, ToolResult, argument


def run(context: Context, arguments: Arguments) -> ToolResult:
    command = str(arguments["command"])
    if context.sandbox is None:
        return ToolResult.failure("this workspace runs no commands")
    result = context.sandbox.run(command)
    return ToolResult(
        result.report(status=True), meta={"kind": "bash", "exit_code": result.exit_code, "timed_out": result.timed_out}
    )


BASH = Tool(
    "bash",
    "Run a shell command in the workspace. Each call is a new shell; what it leaves running is stopped.",
    {"command": argument("string", "The command.")},
    run,
)
