"""The tools an agent works with."""

from leyline.harness.tools.tool import Evaluation, Tool, ToolResult
from leyline.harness.tools.toolbox import DEFAULT_TOOLS, TOOLS, ToolBox, ToolError

__all__ = ["DEFAULT_TOOLS", "TOOLS", "Evaluation", "Tool", "ToolBox", "ToolError", "ToolResult"]
