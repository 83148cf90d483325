"""edit: replace one line by any number of lines."""

from __future__ import annotations

from leyline.harness.tools.lines import numbered, split
from leyline.harness.tools.tool import Arguments, Context, Tool, ToolResult, argument


def run(context: Context, arguments: Arguments) -> ToolResult:
    path, number, code = str(arguments["path"]), int(arguments["line"]), str(arguments["new_code"])
    if not context.workspace.writable(path):
        return ToolResult.failure(f"cannot edit {path}")
    text = context.workspace.read(path)
    lines = split(text)
    if not 1 <= number <= len(lines):
        return ToolResult.failure(f"{path} has {len(lines)} lines")
    new = code.split("\n") if code else []
    if lines[number - 1].endswith("\r"):  # the file's line ends are kept, whichever the model wrote
        new = [line.removesuffix("\r") + "\r" for line in new]
    lines[number - 1 : number] = new
    context.workspace.write(path, "\n".join(lines) + ("\n" if text.endswith("\n") else ""))
    start, end = max(1, number - 2), min(len(lines), number + len(new) + 1)
    report = f"Edited {path} line {number} ({len(lines)} lines now)\n{numbered(lines, start, end)}"
    return ToolResult(report, meta={"kind": "edit", "path": path, "line": number, "delta": len(new) - 1})


EDIT = Tool(
    "edit",
    "Replace one line of a file; new_code may hold several lines; empty new_code deletes the line.",
    {
        "path": argument("string", "The file."),
        "line": argument("integer", "The line to replace, from 1."),
        "new_code": argument("string", "What stands there instead."),
    },
    run,
)
