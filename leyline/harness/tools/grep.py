"""grep: where a text occurs."""

from __future__ import annotations

from leyline.harness.tools.lines import shown, split
from leyline.harness.tools.tool import Arguments, Context, Tool, ToolResult, argument
from leyline.harness.workspace.workspace import WorkspaceError

MOST = 15


def run(context: Context, arguments: Arguments) -> ToolResult:
    pattern = str(arguments["pattern"])
    found: list[str] = []
    count = 0
    for path in context.workspace.files():
        try:
            text = context.workspace.read(path)
        except WorkspaceError:  # binary, too large, or gone since it was listed
            continue
        for number, line in enumerate(split(text), 1):
            if pattern in line:
                count += 1
                if count <= MOST:
                    found.append(f"{path}:{number}:{shown(line)}")
    meta = {"kind": "grep", "pattern": pattern, "matches": count}
    if not found:
        return ToolResult(f"No match for {pattern}", meta=meta)
    return ToolResult("\n".join(found) + (f"\n({count - MOST} more)" if count > MOST else ""), meta=meta)


GREP = Tool("grep", "Find a text in all files.", {"pattern": argument("string", "The text, taken literally.")}, run)
