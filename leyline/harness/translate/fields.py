"""Fields of a request on their way to chat completions: carried over, left out because they say nothing, or refused."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from leyline.dialects import DialectError
from leyline.directives import JsonMapping, JsonObject


def refused(where: str, why: str) -> DialectError:
    """The error of what a chat upstream has no place for."""
    return DialectError(f"{where} cannot be sent to an upstream that speaks chat completions: {why}")


def carried(
    body: JsonMapping,
    known: Mapping[str, Callable[[object], JsonObject]],
    *,
    refuse: Mapping[str, str],
    read: Collection[str],
) -> JsonObject:
    """The fields of a body as chat's. known: how each is said there. refuse: why it cannot be. read: handled elsewhere.

    A field of none of them goes through: it is the upstream's to know. Raises DialectError.
    """
    made: JsonObject = {}
    for name, value in body.items():
        if name in read or (value is None and (name in known or name in refuse)):
            continue
        if name in refuse:
            raise refused(name, refuse[name])
        made |= known[name](value) if name in known else {name: value}
    return made


def chat_body(
    body: JsonMapping,
    messages: list[JsonObject],
    tool: Callable[[JsonMapping, int], JsonObject],
    choice: Callable[[object], JsonObject],
    known: Mapping[str, Callable[[object], JsonObject]],
    *,
    refuse: Mapping[str, str],
    read: Collection[str],
) -> JsonObject:
    """A chat completion of a body's messages, with its tools, the choice among them and its other fields as chat's.

    tool: one tool and its index. known, refuse, read: as in `carried`. Raises DialectError.
    """
    made: JsonObject = {"messages": messages}
    if tools := tools_of(body):
        made["tools"] = [tool(given, index) for index, given in enumerate(tools)]
    if body.get("tool_choice") is not None:
        made |= choice(body["tool_choice"])
    made |= carried(body, known, refuse=refuse, read=read)
    if made.get("stream"):
        made["stream_options"] = {"include_usage": True}
    return made


def tools_of(body: JsonMapping) -> list[JsonMapping]:
    """The tools of a body. Raises DialectError for what is no list of objects."""
    tools = body.get("tools")
    if tools is None:
        return []
    if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in tools):
        raise DialectError("tools is no list of objects; give each tool as one")
    return tools


def named(name: str) -> Callable[[object], JsonObject]:
    """The same value under another name."""
    return lambda value: {name: value}


def left_out(value: object) -> JsonObject:
    """For what says nothing to a chat server."""
    return {}


def schema_format(name: str, value: object) -> JsonObject:
    """`response_format` of a format in the words of Responses or messages. Raises DialectError."""
    kind = value.get("type") if isinstance(value, Mapping) else None
    if isinstance(value, Mapping) and kind == "json_schema":
        schema = {key: inner for key, inner in value.items() if key != "type" and inner is not None}
        return {"response_format": {"type": kind, "json_schema": {"name": "answer", **schema}}}
    if kind == "json_object":
        return {"response_format": {"type": kind}}
    if kind == "text":
        return {}
    raise refused(name, f"its type is {kind!r}")


def check_loaded(tool: JsonMapping, index: int) -> None:
    """Raise DialectError for a tool that a search of the server would have to find."""
    if tool.get("defer_loading"):
        raise refused(f"tools[{index}].defer_loading", "it has no search for tools; give the tool with the others")


def function_tool(tool: Mapping[str, object], parameters: object) -> JsonObject:
    """A tool of chat completions. `strict` is carried over where it is given."""
    made: JsonObject = {"name": tool.get("name")}
    if tool.get("description") is not None:
        made["description"] = tool["description"]
    made["parameters"] = parameters if parameters is not None else {"type": "object", "properties": {}}
    if tool.get("strict") is not None:
        made["strict"] = tool["strict"]
    return {"type": "function", "function": made}


def answer(text: str | None, thinking: str, calls: list[JsonObject]) -> JsonObject:
    """An assistant message."""
    made: JsonObject = {"role": "assistant", "content": text if text or not calls else None}
    if thinking:
        made["reasoning_content"] = thinking
    if calls:
        made["tool_calls"] = calls
    return made


def call(name: str, call_id: str, arguments: str) -> JsonObject:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments or "{}"}}


def contents(parts: list[JsonObject]) -> str | list[JsonObject]:
    """The content of a message: text where it is one text, which every chat template takes."""
    if not parts:
        return ""
    return parts[0]["text"] if len(parts) == 1 and parts[0]["type"] == "text" else parts


def text_part(text: object) -> JsonObject:
    return {"type": "text", "text": text if isinstance(text, str) else ""}


def image_part(url: object, detail: object = None) -> JsonObject:
    image = {"url": url} if detail is None else {"url": url, "detail": detail}
    return {"type": "image_url", "image_url": image}
