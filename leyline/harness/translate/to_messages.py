"""What a chat model made as an answer of the messages API, whole or as its events."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from leyline.backends.contract import BackendError
from leyline.directives import JsonObject
from leyline.harness.translate.made import Item, Made, Step

_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "function_call": "tool_use", "content_filter": "refusal"}


class MessagesAnswer:
    """The answer to one request. model: as the request names it."""

    def __init__(self, model: str) -> None:
        self._model, self.id = model, f"msg_{uuid.uuid4().hex}"
        self.output: list[JsonObject] = []

    def whole(self, made: Made) -> JsonObject:
        """Raises BackendError for a call that the dialect cannot say."""
        # A call that the limit cut short is not one yet; the stop reason says so.
        blocks = [self._block(item) for item in made.items if not _cut(item, made)]
        return {**self._message(made), "content": blocks, **_stopped(made), "usage": _usage(made)}

    def begun(self, made: Made) -> Iterator[JsonObject]:
        usage = {"input_tokens": 0, "output_tokens": 0}
        usage |= {"cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}
        empty: JsonObject = {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        yield {"type": "message_start", "message": {**self._message(made), **empty}}

    def step(self, step: Step) -> Iterator[JsonObject]:
        what, item, more = step
        if what == "start":
            block = {**self._block(Item(item.kind, item.place, "", item.id, item.name)), **_empty(item)}
            yield {"type": "content_block_start", "index": item.place, "content_block": block}
        elif what == "delta":
            yield {"type": "content_block_delta", "index": item.place, "delta": _delta(item, more)}
        else:
            yield {"type": "content_block_stop", "index": item.place}

    def ended(self, made: Made) -> Iterator[JsonObject]:
        for item in made.items:
            if not _cut(item, made):
                self._block(item)  # raises for a call that is none
        yield {"type": "message_delta", "delta": _stopped(made), "usage": _usage(made)}
        yield {"type": "message_stop"}

    def _message(self, made: Made) -> JsonObject:
        return {"id": self.id, "type": "message", "role": "assistant", "model": made.model or self._model}

    def _block(self, item: Item) -> JsonObject:
        if item.kind == "thinking":
            return {"type": "thinking", "thinking": item.text, "signature": ""}
        if item.kind != "call":
            return {"type": "text", "text": item.text}
        arguments = item.arguments()
        if arguments is None:
            raise BackendError(
                f"the model called {item.name!r} with arguments that are no JSON object, which the messages dialect "
                f"cannot say ({item.text[:80]!r}); try again"
            )
        return {"type": "tool_use", "id": item.id, "name": item.name, "input": arguments}


def _cut(item: Item, made: Made) -> bool:
    return item.kind == "call" and made.finish == "length" and item.arguments() is None


def _empty(item: Item) -> JsonObject:
    return {"input": {}} if item.kind == "call" else {}


def _delta(item: Item, more: str) -> JsonObject:
    if item.kind == "thinking":
        return {"type": "thinking_delta", "thinking": more}
    if item.kind == "call":
        return {"type": "input_json_delta", "partial_json": more}
    return {"type": "text_delta", "text": more}


def _stopped(made: Made) -> JsonObject:
    called = any(item.kind == "call" for item in made.items)
    reason = _REASONS.get(made.finish or "", "end_turn")
    if reason == "end_turn" and called:  # some servers say stop where they call
        reason = "tool_use"
    elif reason == "end_turn" and any(item.kind == "refusal" for item in made.items):
        reason = "refusal"
    elif reason == "end_turn" and made.stop is not None:
        return {"stop_reason": "stop_sequence", "stop_sequence": made.stop}
    return {"stop_reason": reason, "stop_sequence": None}


def _usage(made: Made) -> JsonObject:
    """Cached tokens stand beside `input_tokens` here, not in them."""
    usage = made.usage
    prompt, cached, generated = (
        (usage.prompt_tokens, usage.cached_tokens, usage.completion_tokens) if usage else (0, 0, 0)
    )
    beside = {"cache_creation_input_tokens": 0, "cache_read_input_tokens": cached}
    return {"input_tokens": prompt - cached, **beside, "output_tokens": generated}
