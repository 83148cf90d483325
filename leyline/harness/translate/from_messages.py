"""Requests of the messages API as chat completions. What has no place there is refused by name."""

from __future__ import annotations

import json
from collections.abc import Mapping

from leyline.dialects import DialectError
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
)

_SERVERS = "the server would run it, and a chat server has no such tool; run it as a tool of the client"
_REFUSED = {
    "container": _SERVERS,
    "mcp_servers": _SERVERS,
    "context_management": "the server would edit the history itself; leave it out, the proxy's policy edits",
    "fallbacks": "a chat server has one model",
}
_READ = ("system", "messages", "tools", "tool_choice")


def chat_request(body: JsonMapping) -> JsonObject:
    """A body of the messages API as one of chat completions. Raises DialectError, which names what has no place."""
    return chat_body(body, _messages(body), _tool, _choice, _KNOWN, refuse=_REFUSED, read=_READ)


def _output_config(value: object) -> JsonObject:
    config = value if isinstance(value, Mapping) else {}
    made: JsonObject = {}
    for name, inner in config.items():
        if name == "effort" and inner is not None:
            made["reasoning_effort"] = inner
        elif name == "format" and inner is not None:
            made |= schema_format("output_config.format", inner)
        elif inner is not None:
            raise refused(f"output_config.{name}", "it has no such setting")
    return made


def _user(value: object) -> JsonObject:
    user = value.get("user_id") if isinstance(value, Mapping) else None
    return {"user": user} if isinstance(user, str) else {}


_KNOWN = {
    "stop_sequences": named("stop"),
    "metadata": _user,
    "output_config": _output_config,
    "output_format": lambda value: schema_format("output_format", value),
    # How much a model thinks is the server's setting; its thinking comes as thinking blocks in any case.
    "thinking": left_out,
    "cache_control": left_out,
    "service_tier": left_out,
    "inference_geo": left_out,
}


def _tool(given: JsonMapping, index: int) -> JsonObject:
    if given.get("type") not in (None, "custom"):
        raise refused(f"tools[{index}] of type {given.get('type')!r}", _SERVERS)
    check_loaded(given, index)
    return function_tool(given, given.get("input_schema"))


def _choice(choice: object) -> JsonObject:
    given = choice if isinstance(choice, Mapping) else {}
    kind = given.get("type")
    kind = kind if isinstance(kind, str) else None
    names = {"auto": "auto", "any": "required", "none": "none"}
    made: JsonObject = {}
    if kind in names:
        made["tool_choice"] = names[kind]
    elif kind == "tool":
        made["tool_choice"] = {"type": "function", "function": {"name": given.get("name")}}
    else:
        raise refused(f"tool_choice of type {kind!r}", "it has no such choice")
    if given.get("disable_parallel_tool_use"):
        made["parallel_tool_calls"] = False
    return made


def _messages(body: JsonMapping) -> list[JsonObject]:
    made: list[JsonObject] = []
    if body.get("system"):
        made.append({"role": "system", "content": contents(_parts(body["system"], "system"))})
    for index, item in enumerate(body["messages"]):
        message = as_message(item) or {}
        where, role, content = f"messages[{index}].content", message.get("role"), message.get("content")
        if role == "assistant":
            made.append(_answer(content, where))
        elif isinstance(content, list):
            made += _turn(content, where, str(role))
        else:
            made.append({"role": role, "content": contents(_parts(content, where))})
    if made and made[-1]["role"] == "assistant":
        raise refused(f"messages[{len(body['messages']) - 1}]", "an answer that was begun cannot be gone on with there")
    return made


def _turn(blocks: list[object], where: str, role: str) -> list[JsonObject]:
    """A message of the user: the results in it are messages of their own, before what it says beside them."""
    made: list[JsonObject] = []
    beside: list[JsonObject] = []
    for k, block in enumerate(blocks):
        given = block if isinstance(block, Mapping) else {}
        if given.get("type") != "tool_result":
            beside.append(_part(given, f"{where}[{k}]"))
            continue
        content = contents(_parts(given.get("content"), f"{where}[{k}].content"))
        made.append({"role": "tool", "tool_call_id": given.get("tool_use_id"), "content": content})
    return [*made, {"role": role, "content": contents(beside)}] if beside or not made else made


def _answer(content: object, where: str) -> JsonObject:
    if not isinstance(content, list):
        return answer(content if isinstance(content, str) else "", "", [])
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[JsonObject] = []
    for k, block in enumerate(content):
        given = block if isinstance(block, Mapping) else {}
        kind = given.get("type")
        if kind == "thinking":
            thoughts.append(str(given.get("thinking") or ""))
        elif kind == "redacted_thinking":
            raise refused(f"{where}[{k}]", "redacted thinking can be read only by the server that made it")
        elif kind == "tool_use":
            arguments = json.dumps(given.get("input") or {}, ensure_ascii=False)
            calls.append(call(str(given.get("name") or ""), str(given.get("id")), arguments))
        elif kind == "text":
            texts.append(str(given.get("text") or ""))
        else:
            raise refused(f"{where}[{k}] of type {kind!r}", "an answer has text, thinking and tool calls there")
    return answer("".join(texts), "".join(thoughts), calls)


def _parts(content: object, where: str) -> list[JsonObject]:
    if isinstance(content, list):
        return [_part(block if isinstance(block, Mapping) else {}, f"{where}[{k}]") for k, block in enumerate(content)]
    if content is not None and not isinstance(content, str):
        raise DialectError(f"{where} is a {type(content).__name__}; give text or a list of blocks")
    return [text_part(content)] if content else []


def _part(block: Mapping[str, object], where: str) -> JsonObject:
    kind = block.get("type")
    source = block.get("source")
    given = source if isinstance(source, Mapping) else {}
    if kind == "text":
        return text_part(block.get("text"))
    if kind == "image":
        return image_part(_address(given, where))
    if kind != "document":
        raise refused(f"{where} of type {kind!r}", "a message has text, images and documents there")
    cited = block.get("citations")
    if isinstance(cited, Mapping) and cited.get("enabled"):
        raise refused(f"{where}.citations", "it cites nothing")
    title = str(block.get("title") or "")
    if given.get("type") == "text":
        return text_part(f"{title}\n{given.get('data')}" if title else given.get("data"))
    if given.get("type") == "base64":
        data = f"data:{given.get('media_type')};base64,{given.get('data')}"
        return {"type": "file", "file": {"filename": title or "document.pdf", "file_data": data}}
    raise refused(f"{where} with a source of type {given.get('type')!r}", "give the document's text or its data")


def _address(source: Mapping[str, object], where: str) -> str:
    if source.get("type") == "url":
        return str(source.get("url"))
    if source.get("type") == "base64":
        return f"data:{source.get('media_type')};base64,{source.get('data')}"
    raise refused(f"{where} with a source of type {source.get('type')!r}", "give the image's data or its URL")
