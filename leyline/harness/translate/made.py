"""What a chat model made, as items in their order: thinking, text, refusals and calls, whole or as a stream grows."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from leyline.backends.contract import BackendError, Usage
from leyline.backends.http.errors import clean, is_failure
from leyline.backends.http.usage import find_usage
from leyline.backends.openai.assembly import Assembly
from leyline.backends.openai.reply import MalformedReplyError, failed, read_message, shown_text
from leyline.directives import JsonObject

Kind = Literal["thinking", "text", "refusal", "call"]
Step = tuple[Literal["start", "delta", "stop"], "Item", str]
_THOUGHTS = ("reasoning_content", "reasoning")
"""Names of the thinking beside an answer: of SGLang and DeepSeek, and of OpenRouter and newer releases of vLLM."""


@dataclass
class Item:
    """One thing that the model made. text: of a call its arguments. place: among the items of the answer."""

    kind: Kind
    place: int
    text: str = ""
    id: str = ""
    name: str = ""

    def arguments(self) -> JsonObject | None:
        """A call's arguments, None where they are no JSON object."""
        try:
            found = json.loads(self.text or "{}")
        except (ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None


@dataclass
class Made:
    """An answer. finish: the chat API's reason, None while it streams. stop: the stop sequence that ended it, if told.
    thought: tokens of the answer that were thinking.
    """

    model: str = ""
    created: int = 0
    items: list[Item] = field(default_factory=list)
    finish: str | None = None
    stop: str | None = None
    usage: Usage | None = None
    thought: int = 0

    def about(self, data: Mapping[str, object]) -> None:
        """Take in what a completion or a chunk says beside its answer."""
        model, created = data.get("model"), data.get("created")
        self.model = self.model or (model if isinstance(model, str) else "")
        self.created = self.created or (created if type(created) is int else 0)
        self.usage = find_usage(data) or self.usage
        usage = data.get("usage")
        if isinstance(usage, Mapping):
            details = usage.get("completion_tokens_details")
            told = details.get("reasoning_tokens") if isinstance(details, Mapping) else usage.get("reasoning_tokens")
            self.thought = told if type(told) is int else self.thought
        choices = data.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if isinstance(choice, Mapping) and isinstance(choice.get("matched_stop"), str):
            self.stop = choice["matched_stop"]

    def add(self, kind: Kind, text: str) -> None:
        """More of the last item, or a new one where that is of another kind."""
        if text and self.items and self.items[-1].kind == kind:
            self.items[-1].text += text
        elif text:
            self.items.append(Item(kind, len(self.items), text))


def whole(content: bytes) -> Made:
    """An answer that came in one piece. Raises BackendError for what is no chat completion, or is an error."""
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        raise BackendError(
            f"the upstream's answer is no JSON ({clean(content[:80].decode(errors='replace'))!r})"
        ) from None
    data = data[0] if isinstance(data, list) and data else data
    try:
        if isinstance(data, dict) and is_failure(data):
            raise failed(data)
        choices = data.get("choices") if isinstance(data, dict) else None
        choice = choices[0] if isinstance(choices, list) and choices else None
        given = choice.get("message") if isinstance(choice, dict) else None
        if not isinstance(given, dict):
            raise MalformedReplyError("it has no choices[0].message")
        message = read_message(given, tools=False)
    except MalformedReplyError as error:
        raise BackendError(f"the upstream's answer is no chat completion: {error}") from None
    made = Made()
    made.about(data)
    made.add("thinking", _thinking(given))
    made.add("refusal" if given.get("content") is None and given.get("refusal") else "text", _text(message["content"]))
    for call in message.get("tool_calls") or ():
        function = call["function"]
        made.items.append(Item("call", len(made.items), function["arguments"], call["id"], function["name"]))
    reason = choice.get("finish_reason") if isinstance(choice, dict) else None
    made.finish = reason if isinstance(reason, str) else "stop"
    return made


class Growing:
    """A stream as it grows. Steps come in the order of the items: one ends before the next starts.

    Pieces of parallel calls may come mixed; those of a later call wait until the earlier one is whole.
    """

    def __init__(self) -> None:
        self.made = Made()
        self._assembly = Assembly()
        self._calls: list[Item] = []
        self._head, self._said, self._begun = 0, 0, False

    def take(self, chunk: Mapping[str, object]) -> Iterator[Step]:
        """The steps of a chunk. Raises BackendError for one that is an error or cannot be read."""
        try:
            text = self._assembly.add(chunk)
        except MalformedReplyError as error:
            raise BackendError(f"a chunk of the upstream's stream cannot be read: {error}") from None
        self.made.about(chunk)
        delta = _delta(chunk)
        self.made.add("thinking", _thinking(delta))
        self.made.add("refusal" if delta.get("refusal") and not delta.get("content") else "text", text)
        for place, call in enumerate(self._assembly.calls):
            if place == len(self._calls):
                if not call.arguments:
                    break  # its name may not be whole yet
                self._calls.append(Item("call", len(self.made.items), "", call.id or _new_id(), call.name))
                self.made.items.append(self._calls[-1])
            self._calls[place].text = call.arguments
        yield from self._steps(last=False)

    def end(self) -> Iterator[Step]:
        """The steps that are left. Raises BackendError where the stream ended before its answer."""
        if self._assembly.finish_reason is None:
            raise BackendError("the upstream's stream ended before the answer was complete; try again")
        for call in self._assembly.calls[len(self._calls) :]:
            self.made.items.append(Item("call", len(self.made.items), "", call.id or _new_id(), call.name))
        self.made.finish = self._assembly.finish_reason
        yield from self._steps(last=True)

    def _steps(self, *, last: bool) -> Iterator[Step]:
        items = self.made.items
        while self._head < len(items):
            item = items[self._head]
            if not self._begun:
                self._begun = True
                yield "start", item, ""
            if len(item.text) > self._said:
                more, self._said = item.text[self._said :], len(item.text)
                yield "delta", item, more
            behind = self._head + 1 < len(items)
            if not last and not (behind and (item.kind != "call" or item.arguments() is not None)):
                return
            yield "stop", item, ""
            self._head, self._said, self._begun = self._head + 1, 0, False


def _delta(chunk: Mapping[str, object]) -> Mapping[str, object]:
    choices = chunk.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    delta = (choice.get("delta") or choice.get("message")) if isinstance(choice, Mapping) else None
    return delta if isinstance(delta, Mapping) else {}


def _thinking(message: Mapping[str, object]) -> str:
    return next((text for name in _THOUGHTS if isinstance(text := message.get(name), str) and text), "")


def _text(content: object) -> str:
    return shown_text(content) if isinstance(content, (str, list)) else ""


def _new_id() -> str:
    return f"call_{uuid.uuid4().hex}"
