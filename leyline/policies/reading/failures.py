"""Whether the output of a call says that it failed.

A flag of the harness decides, then the exit code of a command, then the look of the text. What shows a file or finds
text in files is believed to have failed only when its whole output is a short error: a log may begin with any of these
words.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from leyline.directives import JsonMapping, Message
from leyline.directives.content import content_text
from leyline.policies.reading.effects import effect_of
from leyline.policies.reading.tools import TOOLS, kind_of

_FIRST = re.compile(
    r"\s*(?:<returncode>|\[?(?:process exited with )?exit(?:ed)? ?(?:with )?(?:code|status)[:=]? ?)(-?\d+)"
    r"(?=\s*(?:</returncode>|[\])]|\n|$))",
    re.I,
)
_LAST = re.compile(
    r"(?:\[(?:the )?command (?:completed|finished|failed|exited) with exit code|^exit code:|^\[exit (?:code|status):?)"
    r" ?(-?\d+)\.?\]?",
    re.I | re.M,
)
_ERROR = re.compile(
    r"\s*(?:Error(?:[ \t]+[\w'`\"-]+){0,6}[ \t]*[:!]|ERROR(?:[ \t]+\w+){0,6}[ \t]*:|Traceback \(most recent call last\)"
    r"|Please always provide EXACTLY ONE action|\[\w+ failed; |<tool_use_error>|<error>)"
)
_READERS = frozenset(
    [
        "cat",
        "head",
        "tail",
        "less",
        "more",
        "nl",
        "sed",
        "awk",
        "grep",
        "egrep",
        "fgrep",
        "rg",
        "ag",
        "find",
        "ls",
        "tree",
        "git",
        "diff",
        "jq",
    ]
)
_SHORT_CHARS, _SHORT_LINES = 400, 3
_FLAGS = {"error": True, "failed": True, "failure": True, "success": False}


@dataclass(frozen=True, slots=True)
class CallOutcome:
    """What an output says of its end, whatever was called.

    flag: of the harness, None where it set none. code: of a command. error: whether the text begins like an error.
    short: whether it is no longer than an error that stands alone.
    """

    flag: bool | None
    code: int | None = None
    error: bool = False
    short: bool = False


def outcome(message: Message) -> CallOutcome:
    """Read the end of a tool output."""
    flag = message.get("is_error")
    if not isinstance(flag, bool):
        flag = _FLAGS.get(str(message.get("status")))
    if flag is not None:
        return CallOutcome(flag)
    text = content_text(message)
    short = len(text) <= _SHORT_CHARS and text.strip().count("\n") < _SHORT_LINES
    return CallOutcome(None, _exit_code(text), _ERROR.match(text[:200]) is not None, short)


def failed_with(found: CallOutcome, name: str, arguments: JsonMapping, tools: Mapping[str, str] = TOOLS) -> bool:
    """Whether an output reports an error. name, arguments: of the call that it answers."""
    if found.flag is not None:
        return found.flag
    if found.code is None and not found.error:
        return False
    kind = kind_of(name, arguments, tools)
    reads = kind in ("view", "search")
    if not reads and found.code is not None:
        return found.code != 0
    if not found.error:
        return False
    reads = reads or (kind == "shell" and effect_of(name, arguments, tools).program in _READERS)
    return found.short or not reads


def has_failed(
    message: Message, name: str = "", arguments: JsonMapping | None = None, tools: Mapping[str, str] = TOOLS
) -> bool:
    """Whether a tool output reports an error. name, arguments: of the call that it answers."""
    return failed_with(outcome(message), name, arguments or {}, tools)


def _exit_code(text: str) -> int | None:
    """What a shell tool says of a command's end: first, last, or in a JSON object around the output."""
    first = _FIRST.match(text[:200])
    if first is not None:
        return int(first[1])
    if text.startswith("{") and '"exit_code"' in text:
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            data = {}
        inner = data.get("metadata", data)
        code = inner.get("exit_code") if isinstance(inner, dict) else None
        if type(code) is int:
            return code
    last = list(_LAST.finditer(text[-200:]))
    return int(last[-1][1]) if last else None
