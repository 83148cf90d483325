"""What a chat model made as an answer of the Responses API, whole or as its events."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

from leyline.directives import JsonMapping, JsonObject
from leyline.harness.translate.made import Item, Made, Step

_ECHOED: JsonObject = {
    "instructions": None,
    "max_output_tokens": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "reasoning": {"effort": None, "summary": None},
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}},
    "tool_choice": "auto",
    "tools": [],
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_IDS = {"thinking": "rs", "text": "msg", "refusal": "msg", "call": "fc"}
_CUT = {"length": "max_output_tokens", "content_filter": "content_filter"}


class ResponsesAnswer:
    """The answer to one request. body: of the request, whose settings it carries back. custom: names of tools that
    take text. output: its items, once it is whole.
    """

    def __init__(self, body: JsonMapping, custom: frozenset[str]) -> None:
        self._body, self._custom = body, custom
        self.id, self._started = f"resp_{uuid.uuid4().hex}", int(time.time())
        self._names: dict[int, str] = {}
        self._number = 0
        self.output: list[JsonObject] = []

    def whole(self, made: Made) -> JsonObject:
        self.output = [self._item(item, "completed") for item in made.items]
        reason = _CUT.get(made.finish or "")
        return {
            **self._response(made, "incomplete" if reason else "completed"),
            "incomplete_details": {"reason": reason} if reason else None,
            "output": self.output,
            "usage": _usage(made),
        }

    def begun(self, made: Made) -> Iterator[JsonObject]:
        response = {**self._response(made, "in_progress"), "output": [], "usage": None}
        yield self._event("response.created", response=response)
        yield self._event("response.in_progress", response=response)

    def step(self, step: Step) -> Iterator[JsonObject]:
        what, item, more = step
        at: JsonObject = {"item_id": self._name(item), "output_index": item.place}
        if what == "start":
            started = self._item(Item(item.kind, item.place, "", item.id, item.name), "in_progress")
            started |= {"content": []} if item.kind in ("text", "refusal") else {}
            started |= {"summary": []} if item.kind == "thinking" else {}
            yield self._event("response.output_item.added", output_index=item.place, item=started)
            yield from self._part("added", item, "", at)
        elif what == "delta":
            if not self._is_custom(item):  # the text of such a call is known when its arguments are whole
                yield self._event(f"response.{_FLOW[item.kind][0]}.delta", **at, **_flow(item), delta=more)
        else:
            if self._is_custom(item):
                text = self._custom_input(item)
                yield self._event("response.custom_tool_call_input.delta", **at, delta=text)
                yield self._event("response.custom_tool_call_input.done", **at, input=text)
            else:
                name, field = _FLOW[item.kind]
                said = {field: item.text or ("{}" if item.kind == "call" else "")}
                said |= {"name": item.name} if item.kind == "call" else {}
                yield self._event(f"response.{name}.done", **at, **_flow(item), **said)
            yield from self._part("done", item, item.text, at)
            done = self._item(item, "completed")
            yield self._event("response.output_item.done", output_index=item.place, item=done)

    def ended(self, made: Made) -> Iterator[JsonObject]:
        response = self.whole(made)
        yield self._event(f"response.{response['status']}", response=response)

    def _event(self, kind: str, **fields: object) -> JsonObject:
        number, self._number = self._number, self._number + 1
        return {"type": kind, "sequence_number": number, **fields}

    def _part(self, what: str, item: Item, text: str, at: JsonObject) -> Iterator[JsonObject]:
        if item.kind == "thinking":
            part = {"type": "summary_text", "text": text}
            yield self._event(f"response.reasoning_summary_part.{what}", **at, summary_index=0, part=part)
        elif item.kind != "call":
            yield self._event(f"response.content_part.{what}", **at, content_index=0, part=_content(item, text))

    def _response(self, made: Made, status: str) -> JsonObject:
        echoed = {name: self._body.get(name) or usual for name, usual in _ECHOED.items()}
        echoed |= {name: self._body[name] for name in ("parallel_tool_calls", "store") if self._body.get(name) is False}
        echoed |= {name: self._body[name] for name in ("temperature", "top_p") if self._body.get(name) is not None}
        return {
            "id": self.id,
            "object": "response",
            "created_at": made.created or self._started,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "model": made.model or str(self._body.get("model") or ""),
            **echoed,
        }

    def _name(self, item: Item) -> str:
        prefix = "ctc" if self._is_custom(item) else _IDS[item.kind]
        return self._names.setdefault(item.place, f"{prefix}_{uuid.uuid4().hex}")

    def _is_custom(self, item: Item) -> bool:
        return item.kind == "call" and item.name in self._custom

    def _custom_input(self, item: Item) -> str:
        """The text that the model gave; its whole arguments where it did not keep to the form."""
        text = (item.arguments() or {}).get("input")
        return text if isinstance(text, str) else item.text

    def _item(self, item: Item, status: str) -> JsonObject:
        made: JsonObject = {"id": self._name(item), "status": status}
        if item.kind == "thinking":
            # As a summary: harnesses send that back, and so the model has its thinking in the next turn.
            summary = [{"type": "summary_text", "text": item.text}]
            return {**made, "type": "reasoning", "summary": summary, "encrypted_content": None}
        if self._is_custom(item):
            said = {"call_id": item.id, "name": item.name, "input": self._custom_input(item)}
            return {"id": made["id"], "type": "custom_tool_call", **said}
        if item.kind == "call":
            said = {"call_id": item.id, "name": item.name, "arguments": item.text or "{}"}
            return {**made, "type": "function_call", **said}
        return {**made, "type": "message", "role": "assistant", "content": [_content(item, item.text)]}


_FLOW = {
    "thinking": ("reasoning_summary_text", "text"),
    "text": ("output_text", "text"),
    "refusal": ("refusal", "refusal"),
    "call": ("function_call_arguments", "arguments"),
}


def _flow(item: Item) -> JsonObject:
    """Which part of an item a delta belongs to."""
    if item.kind == "thinking":
        return {"summary_index": 0}
    if item.kind == "text":
        return {"content_index": 0, "logprobs": []}
    return {"content_index": 0} if item.kind == "refusal" else {}


def _content(item: Item, text: str) -> JsonObject:
    if item.kind == "refusal":
        return {"type": "refusal", "refusal": text}
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def _usage(made: Made) -> JsonObject | None:
    usage = made.usage
    if usage is None:
        return None
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": made.thought},
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    }
