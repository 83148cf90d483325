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
from dataclasses import dataclass, field, replace
from functools import lru_cache

from leyline.directives import JsonMapping, JsonObject, Message
from leyline.directives.clone import clone
from leyline.directives.content import content_text
from leyline.directives.hermes import read_written, spoken
from leyline.policies.reading.failures import failed_with, outcome
from leyline.policies.reading.history import History, once
from leyline.policies.reading.pairing import RESULT_ROLES, Pairing, arguments_of, ids_and_names, native_calls, pair
from leyline.policies.reading.shell import Effect
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
    effects: dict[str, Effect] = field(default_factory=dict, repr=False, compare=False)
    """What `effect` found, by the kind of the tool."""


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
    return list(once(_observations, messages))


def _observations(messages: Sequence[Message]) -> list[int]:
    native = [i for i, m in enumerate(messages) if m.get("role") in RESULT_ROLES]
    if native or any(native_calls(m) for m in messages):
        return native
    said = [i for i, m in enumerate(messages) if m.get("role") == "user"]
    return [i for i in said[1:] if messages[i - 1].get("role") == "assistant"]


def pairing(messages: Sequence[Message]) -> Pairing:
    """Which output belongs to which call and message."""
    return once(_pairing, messages)


def _pairing(messages: Sequence[Message]) -> Pairing:
    return pair(messages, once(_observations, messages))


def calls(messages: Sequence[Message], tools: Mapping[str, str] = TOOLS) -> list[Call]:
    """Every call of the history, in order, with the message that answers it. tools: what the names mean."""
    if type(messages) is History:
        return _calls_of(messages, tools) if tools is not TOOLS else list(messages.once(_calls))
    # What is remembered is not given to a caller who may change it.
    found = _calls_of(History(messages), tools)
    return [replace(call, arguments=clone(call.arguments), effects={}) for call in found]


def _calls(messages: Sequence[Message]) -> list[Call]:
    return _calls_of(History.of(messages), TOOLS)


def _calls_of(history: History, tools: Mapping[str, str]) -> list[Call]:
    pairs = pairing(history)
    found: list[Call] = []
    for index, members in pairs.members.items():
        given = history.fact(arguments_given, index)
        slots = pairs.slots.get(index)
        results: Sequence[int | None] = members if slots is None else [slot.result for slot in slots]
        for k, (name, arguments, effects) in enumerate(given):
            result = results[k] if k < len(results) else None
            failed = result is not None and failed_with(history.fact(outcome, result), name, arguments, tools)
            found.append(Call(name, arguments, index, result, failed, effects))
    return found


Given = tuple[str, JsonObject, dict[str, Effect]]
"""Of a call its name, its arguments, and a place for its effects."""


def arguments_given(message: Message) -> tuple[Given, ...]:
    """Each call of an assistant message: its native ones, else those written into its text."""
    made = native_calls(message)
    if made:
        names = [name for _, name in ids_and_names(message)]
        return tuple((name, _arguments_of(call), {}) for name, call in zip(names, made, strict=True))
    return tuple((name, json.loads(arguments), {}) for name, arguments in written_calls(content_text(message)))


def groups(messages: Sequence[Message]) -> list[list[int]]:
    """The exchanges: each assistant message with the outputs that belong to it, as ascending indices.

    Other messages may stand between them: a result belongs to its call, wherever it is.
    """
    return [[index, *members] for index, members in pairing(messages).members.items()]


def _arguments_of(call: JsonMapping) -> JsonObject:
    value = arguments_of(call)
    return {"input": value} if isinstance(value, str) and "custom" in call else clone(_arguments(value))


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
