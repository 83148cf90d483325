"""Requests of the Responses API as chat completions. What has no place there is refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping

from leyline.dialects.plain import as_message
from leyline.directives import JsonMapping, JsonObject
from leyline.harness.translate.fields import (
    answer,
    call,
    chat_body,
    check_loaded,
    contents,
    function_tool,
    image_part,
    left_out,
    named,
    refused,
    schema_format,
    text_part,
    tools_of,
)

CALLS = ("function_call", "custom_tool_call")
_OUTPUTS = ("function_call_output", "custom_tool_call_output")
_REFUSED = {
    "conversation": "the history stands on a server; send the whole input instead",
    "prompt": "its text stands on a server; send it as instructions",
    "max_tool_calls": "the client runs the tools, and counts them",
    "top_logprobs": "logprobs are not carried over; leave it out",
    "context_management": "the server would edit the history itself; leave it out, the proxy's policy edits",
    "moderation": "it has no such setting",
}
_READ = ("instructions", "input", "tools", "tool_choice", "previous_response_id", "store", "stream_options")


def chat_request(body: JsonMapping) -> JsonObject:
    """A body of the Responses API as one of chat completions. Raises DialectError, which names what has no place."""
    return chat_body(body, _messages(body), _tool, _choice, _KNOWN, refuse=_REFUSED, read=_READ)


def custom_tools(body: JsonMapping) -> frozenset[str]:
    """Names of the tools that take text: for a chat model they take an object with the text as `input`."""
    return frozenset(str(tool.get("name")) for tool in tools_of(body) if tool.get("type") == "custom")


def _text(value: object) -> JsonObject:
    given = value if isinstance(value, Mapping) else {}
    made = {} if given.get("verbosity") is None else {"verbosity": given["verbosity"]}
    return made if given.get("format") is None else {**made, **schema_format("text.format", given["format"])}


def _reasoning(value: object) -> JsonObject:
    effort = value.get("effort") if isinstance(value, Mapping) else None  # a summary is not made: thinking comes whole
    return {} if effort is None else {"reasoning_effort": effort}


def _include(value: object) -> JsonObject:
    for name in value if isinstance(value, list) else ():
        if name != "reasoning.encrypted_content":  # what it is for is there: thinking comes readable
            raise refused(f"include {name!r}", "it is not carried over; leave it out")
    return {}


def _truncation(value: object) -> JsonObject:
    if value != "disabled":
        raise refused(f"truncation {value!r}", "no server shortens the history; the proxy's policy edits it")
    return {}


def _background(value: object) -> JsonObject:
    if value:
        raise refused("background", "an answer comes with its request")
    return {}


_KNOWN = {
    "max_output_tokens": named("max_tokens"),
    "text": _text,
    "reasoning": _reasoning,
    "include": _include,
    "truncation": _truncation,
    "background": _background,
    "metadata": left_out,  # the answer carries it back
}


def _tool(given: JsonMapping, index: int) -> JsonObject:
    kind = given.get("type")
    if kind == "function":
        check_loaded(given, index)
        return function_tool(given, given.get("parameters"))
    if kind != "custom":
        raise refused(
            f"tools[{index}] of type {kind!r}",
            "the server would run it, and a chat server has no such tool; turn it off in the client",
        )
    form = given.get("format")
    said = str(given.get("description") or "")
    if isinstance(form, Mapping) and form.get("type") == "grammar":
        said += f"\n\nThe input follows this {form.get('syntax')} grammar:\n{form.get('definition')}"
    text = {"type": "string", "description": "The input of the tool, as it is."}
    parameters = {"type": "object", "properties": {"input": text}, "required": ["input"]}
    return function_tool({"name": given.get("name"), "description": said.strip() or None}, parameters)


def _choice(choice: object) -> JsonObject:
    if not isinstance(choice, Mapping):
        return {"tool_choice": choice}
    if choice.get("type") in ("function", "custom"):
        return {"tool_choice": {"type": "function", "function": {"name": choice.get("name")}}}
    raise refused(f"tool_choice of type {choice.get('type')!r}", "it has no such choice")


def _messages(body: JsonMapping) -> list[JsonObject]:
    made: list[JsonObject] = []
    if body.get("instructions"):
        made.append({"role": "system", "content": body["instructions"]})
    given = body.get("input")
    if isinstance(given, str):
        return [*made, {"role": "user", "content": given}]
    open_answer: _Answer | None = None
    for index, item in enumerate(given or ()):
        read, where = as_message(item) or {}, f"input[{index}]"
        kind = read.get("type") or "message"
        if kind == "reasoning" or kind in CALLS or read.get("role") == "assistant":
            open_answer = open_answer or _Answer()
            open_answer.take(read, str(kind), where)
            continue
        if open_answer is not None:
            made.append(open_answer.message())
            open_answer = None
        if kind in _OUTPUTS:
            content = contents(_parts(read.get("output"), f"{where}.output"))
            made.append({"role": "tool", "tool_call_id": read.get("call_id"), "content": content})
        elif kind == "message":
            role = "system" if read.get("role") == "developer" else read.get("role")  # few templates know the other
            made.append({"role": role, "content": contents(_parts(read.get("content"), f"{where}.content"))})
        else:
            raise refused(f"{where} of type {kind!r}", "a history has messages, reasoning and calls of functions there")
    if open_answer is not None:
        made.append(open_answer.message())
    return made


class _Answer:
    """What the model made in one go, which is one message there."""

    def __init__(self) -> None:
        self._texts: list[str] = []
        self._thoughts: list[str] = []
        self._calls: list[JsonObject] = []

    def take(self, item: JsonMapping, kind: str, where: str) -> None:
        if kind == "message":
            content = item.get("content")
            parts = [{"text": content}] if isinstance(content, str) else content or []
            said = [part.get("text", part.get("refusal")) for part in parts if isinstance(part, Mapping)]
            if not all(isinstance(text, str) for text in said):
                raise refused(f"{where}.content", "an answer is text there")
            self._texts.append("".join(map(str, said)))
        elif kind == "reasoning":
            parts = [*(item.get("content") or item.get("summary") or ())]
            texts = [str(part["text"]) for part in parts if isinstance(part, dict) and part.get("text")]
            if not texts and item.get("encrypted_content"):
                raise refused(where, "its thinking is encrypted and can be read only by the server that made it")
            self._thoughts += texts
        else:
            arguments = item.get("arguments")
            if kind == "custom_tool_call":
                arguments = json.dumps({"input": item.get("input")}, ensure_ascii=False)
            elif not isinstance(arguments, str):
                arguments = json.dumps(arguments or {}, ensure_ascii=False)
            self._calls.append(call(str(item.get("name")), str(item.get("call_id")), arguments))

    def message(self) -> JsonObject:
        return answer("\n".join(text for text in self._texts if text), "\n".join(self._thoughts), self._calls)


def _parts(content: object, where: str) -> list[JsonObject]:
    if not isinstance(content, list):
        return [text_part(content)] if content else []
    return [_part(part if isinstance(part, Mapping) else {}, f"{where}[{k}]") for k, part in enumerate(content)]


def _part(part: Mapping[str, object], where: str) -> JsonObject:
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text"):
        return text_part(part.get("text"))
    if kind == "input_image" and isinstance(part.get("image_url"), str):
        return image_part(part["image_url"], part.get("detail"))
    if kind == "input_file" and isinstance(part.get("file_data"), str):
        file = {name: part[name] for name in ("filename", "file_data") if part.get(name) is not None}
        return {"type": "file", "file": file}
    if kind in ("input_image", "input_file"):
        raise refused(where, "it stands on a server; send its data" + (" or its URL" if kind == "input_image" else ""))
    raise refused(f"{where} of type {kind!r}", "a message has text, images and files there")
