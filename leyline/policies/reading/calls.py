"""Who called what, and which message answers: the reading of a history that policies share.

Three dialects are read alike: native tool calls (`tool_calls` and role `tool`), calls written into the text
(`<tool_call>{json}</tool_call>`, answered by role `tool`), and text-only histories, where an assistant message holds
one fenced shell command and the user message behind it is the output. A history is text-only as long as no message of
it has `tool_calls` or the role `tool`; a chat without tools is one too, see `observations`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from leyline.directives import Message
from leyline.directives.content import content_text
from leyline.directives.hermes import blocks

_FENCE = re.compile(r"```(?:bash|sh|shell|console|mswea_bash_command)[ \t]*\n(.*?)\n?```", re.S)
_RETURN_CODE = re.compile(r"\s*(?:<returncode>|\[?exit (?:code|status):? ?)(-?\d+)", re.I)
_ERROR = re.compile(
    r"\s*(?:Error\b|ERROR:|Traceback \(most recent call last\)|Please always provide EXACTLY ONE action|\[\w+ failed; )"
)


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call.

    name: the tool; `bash` for a fenced command.
    arguments: what it was called with; for `bash` the `command`.
    message_index: the assistant message that made it. result_index: the message that answers, None while it runs.
    failed: whether the result is an error (an error text or a non-zero return code); false while it runs.
    """

    name: str
    arguments: dict[str, Any]
    message_index: int
    result_index: int | None
    failed: bool


def is_observation(messages: Sequence[Message], index: int) -> bool:
    """Whether message `index` is the output of a tool: see `observations`."""
    return index in set(observations(messages))


def observations(messages: Sequence[Message]) -> list[int]:
    """Indices of the tool outputs, ascending.

    Messages of role `tool`; in a history in which no message has that role or `tool_calls`, each user message directly
    behind an assistant message, whether or not that one holds a command: what a harness answers to a malformed command
    is an output too. So in a chat without tools every follow-up of the user counts as an output. What the user said
    first never does, not even behind a greeting.
    """
    native = [i for i, m in enumerate(messages) if m.get("role") == "tool"]
    if native or any(m.get("tool_calls") for m in messages):
        return native
    said = [i for i, m in enumerate(messages) if m.get("role") == "user"]
    return [i for i in said[1:] if messages[i - 1].get("role") == "assistant"]


def calls(messages: Sequence[Message]) -> list[Call]:
    """Every call of the history, in order, with the message that answers it."""
    outputs = set(observations(messages))
    found: list[Call] = []
    for index, message in enumerate(messages):
        if message.get("role") != "assistant":
            continue
        end = index + 1
        while end < len(messages) and end in outputs:
            end += 1
        found += _calls_of(message, index, messages, range(index + 1, end))
    return found


def groups(messages: Sequence[Message]) -> list[list[int]]:
    """The exchanges: each assistant message with the outputs directly behind it, as ascending indices."""
    outputs = set(observations(messages))
    found: list[list[int]] = []
    for index, message in enumerate(messages):
        if message.get("role") == "assistant":
            found.append([index])
        elif index in outputs and found and found[-1][-1] == index - 1:
            found[-1].append(index)
    return found


def has_failed(message: Message) -> bool:
    """Whether a tool output reports an error."""
    text = content_text(message)[:200]
    code = _RETURN_CODE.match(text)
    if code is not None:
        return int(code[1]) != 0
    return message.get("is_error") is True or _ERROR.match(text) is not None


def tool_name(call: Any) -> str:
    """The function name of a native tool call, or an empty string."""
    function = call.get("function") if isinstance(call, dict) else None
    name = function.get("name") if isinstance(function, dict) else None
    return name if isinstance(name, str) else ""


def _calls_of(message: Message, index: int, messages: Sequence[Message], results: range) -> list[Call]:
    native = message.get("tool_calls")
    if isinstance(native, list) and native:
        by_id = {str(messages[r].get("tool_call_id")): r for r in results if messages[r].get("tool_call_id")}
        unnamed = [r for r in results if not messages[r].get("tool_call_id")]
        made = []
        for call in native:
            call_id = str(call.get("id")) if isinstance(call, dict) else ""
            result = by_id.get(call_id) if call_id in by_id else (unnamed.pop(0) if unnamed else None)
            function = call.get("function") if isinstance(call, dict) else None
            arguments = function.get("arguments") if isinstance(function, dict) else None
            made.append((tool_name(call), _arguments(arguments), result))
    else:
        written = written_calls(content_text(message))
        made = [
            (name, json.loads(arguments), results[k] if k < len(results) else None)
            for k, (name, arguments) in enumerate(written)
        ]
    return [
        Call(name, arguments, index, result, result is not None and has_failed(messages[result]))
        for name, arguments, result in made
    ]


def _arguments(value: Any) -> dict[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


@lru_cache(maxsize=4096)
def written_calls(text: str) -> tuple[tuple[str, str], ...]:
    """Calls written into the text of an assistant message, as (name, arguments as JSON)."""
    found: list[tuple[str, str]] = []
    for match in blocks(text):
        data = _arguments(match[1].strip())
        if isinstance(data.get("name"), str):
            found.append((data["name"], json.dumps(_arguments(data.get("arguments")))))
    if not found:
        commands = _FENCE.findall(text)
        # Agents of this kind run one command a message and refuse several.
        if commands:
            found.append(("bash", json.dumps({"command": commands[0] if len(commands) == 1 else ""})))
    return tuple(found)
