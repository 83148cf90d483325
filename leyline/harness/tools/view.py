"""view: lines of a file."""

from __future__ import annotations

from leyline.harness.tools.lines import numbered, split
from leyline.harness.tools.tool import Arguments, Context, Tool, ToolResult, argument


def run(context: Context, arguments: Arguments) -> ToolResult:
    path, start, end = str(arguments["path"]), int(arguments["start"]), int(arguments["end"])
    lines = split(context.workspace.read(path))
    start, end = max(1, start), min(len(lines), end)
    text = f"{path}, lines {start} to {end} of {len(lines)}\n{numbered(lines, start, end)}"
    return ToolResult(text, meta={"kind": "view", "path": path, "start": start, "end": end})


VIEW = Tool(
    "view",
    "Show lines of a file.",
    {
        "path": argument("string", "The file."),
        "start": argument("integer", "The first line, from 1."),
        "end": argument("integer", "The last line."),
    },
    run,
)
