"""Who called what, and which message answers: the reading of a history that policies share.

Three dialects are read alike: native tool calls (`tool_calls` and role `tool`), calls written into the text
(`<tool_call>{json}</tool_call>`, answered by role `tool`), and text-only histories, where an assistant message holds
one fenced shell command and the user message behind it is the output. A history is text-only as long as no message of
it has `tool_calls` or the role `tool`; a chat without tools is one too, see `observations`. What a model drafts while
it thinks is no call.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from leyline.directives import JsonObject, Message
from leyline.directives.content import content_text
from leyline.directives.hermes import read_written, spoken
from leyline.policies.reading.failures import has_failed
from leyline.policies.reading.pairing import RESULT_ROLES, Pairing, Slot, native_calls, pair
from leyline.policies.reading.tools import TOOLS

_FENCE = re.compile(r"```(?:bash|sh|shell|console|mswea_bash_command)[ \t]*\n(.*?)\n?```", re.S)


@dataclass(frozen=True, slots=True)
class Call:
    """One tool call.

    name: the tool; `bash` for a fenced command.
    arguments: what it was called with; for `bash` the `command`.
    message_index: the assistant message that made it. result_index: the message that answers, None while it runs.
    failed: whether the result is an error (an error text or a non-zero return code); false while it runs.
    """

    name: str
    arguments: JsonObject
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
    native = [i for i, m in enumerate(messages) if m.get("role") in RESULT_ROLES]
    if native or any(native_calls(m) for m in messages):
        return native
    said = [i for i, m in enumerate(messages) if m.get("role") == "user"]
    return [i for i in said[1:] if messages[i - 1].get("role") == "assistant"]


def pairing(messages: Sequence[Message]) -> Pairing:
    """Which output belongs to which call and message."""
    return pair(messages, observations(messages))


def calls(messages: Sequence[Message], tools: Mapping[str, str] = TOOLS) -> list[Call]:
    """Every call of the history, in order, with the message that answers it. tools: what the names mean."""
    pairs = pairing(messages)
    found: list[Call] = []
    for index, members in pairs.members.items():
        slots = pairs.slots.get(index)
        if slots is not None:
            made = [(slot.name, _arguments_of(slot), slot.result) for slot in slots]
        else:
            written = written_calls(content_text(messages[index]))
            made = [
                (name, json.loads(arguments), members[k] if k < len(members) else None)
                for k, (name, arguments) in enumerate(written)
            ]
        for name, arguments, result in made:
            failed = result is not None and has_failed(messages[result], name, arguments, tools)
            found.append(Call(name, arguments, index, result, failed))
    return found


def groups(messages: Sequence[Message]) -> list[list[int]]:
    """The exchanges: each assistant message with the outputs that belong to it, as ascending indices.

    Other messages may stand between them: a result belongs to its call, wherever it is.
    """
    return [[index, *members] for index, members in pairing(messages).members.items()]


def _arguments_of(slot: Slot) -> dict[str, object]:
    value = slot.arguments
    return {"input": value} if isinstance(value, str) and "custom" in slot.call else _arguments(value)


def _arguments(value: object) -> JsonObject:
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
    for block in read_written(text).blocks:
        data = _arguments(block.body.strip())
        if isinstance(data.get("name"), str):
            found.append((data["name"], json.dumps(_arguments(data.get("arguments")))))
    if not found:
        commands = _FENCE.findall(spoken(text))
        # Agents of this kind run one command a message and refuse several.
        if commands:
            found.append(("bash", json.dumps({"command": commands[0] if len(commands) == 1 else ""})))
    return tuple(found)
