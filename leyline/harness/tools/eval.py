"""eval: run the tests of the task."""

from __future__ import annotations

from leyline.harness.tools.tool import Arguments, Context, Tool, ToolResult


def run(context: Context, arguments: Arguments) -> ToolResult:
    if context.evaluate is None:
        return ToolResult.failure("this task has no tests to run")
    context.evaluations += 1
    result = context.evaluate(context.evaluations)
    return ToolResult(result.text, meta={"kind": "eval", "passed": result.passed, "number": context.evaluations})


EVAL = Tool("eval", "Run the tests.", {}, run)
