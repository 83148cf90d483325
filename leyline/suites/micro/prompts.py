"""What an agent is told: system prompt, user prompt, and the tools as OpenAI function schemas."""

from __future__ import annotations

import random

from leyline.directives import JsonObject
from leyline.suites.micro.task import MicroTask

SYSTEM = """You are a debugging agent. Fix the bugs in the Python files so that all tests pass. Do not edit the tests.
Tools, called one at a time as JSON inside <tool_call></tool_call>:
view(path, start, end): show lines of a file
grep(pattern): find a text in all files
edit(path, line, new_code): replace one line; new_code may hold several lines; empty new_code deletes the line
eval(): run the tests
submit(): finish"""
USER = (
    "Some tests fail. Files:\n{}\nPlease find and fix the bugs.",
    "The test suite is red. These are the files:\n{}\nRepair the code and submit.",
    "Please debug this repository.\n{}\nSubmit when all tests pass.",
)


def system_prompt() -> str:
    return SYSTEM


def user_prompt(task: MicroTask) -> str:
    """The request, with the task's files and their lengths."""
    listing = "\n".join(f"- {path} ({text.count(chr(10))} lines)" for path, text in task.files.items())
    return random.Random(f"{task.id}/user").choice(USER).format(listing)


def _tool(name: str, description: str, **properties: tuple[str, str]) -> JsonObject:
    parameters = {
        "type": "object",
        "properties": {key: {"type": kind, "description": text} for key, (kind, text) in properties.items()},
        "required": list(properties),
    }
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


TOOLS: list[JsonObject] = [
    _tool(
        "view",
        "Show lines of a file.",
        path=("string", "file"),
        start=("integer", "first line, from 1"),
        end=("integer", "last line, included"),
    ),
    _tool("grep", "Find a text in all files.", pattern=("string", "the text")),
    _tool(
        "edit",
        "Replace one line of a file.",
        path=("string", "file"),
        line=("integer", "the line, from 1"),
        new_code=("string", "the new line or lines; empty deletes the line"),
    ),
    _tool("eval", "Run the tests."),
    _tool("submit", "Finish."),
]
