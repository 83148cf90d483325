"""The agent with the official clients: wrapped, on the transport, and through the proxy."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import anthropic
import httpx
import openai
import pytest
from recorded import ASKED, PNG, SYSTEM, Server, output_of

import leyline
from leyline.harness import Editor

KINDS: dict[str, type[Any]] = {"chat": openai.OpenAI, "responses": openai.OpenAI, "messages": anthropic.Anthropic}
TOOL: dict[str, Any] = {"type": "object", "properties": {"command": {"type": "string"}}, "required": ["command"]}


def web_of(kind: type[Any]) -> Any:
    """httpx, or its successor: each library is built on one of them, and takes no client of the other."""
    if kind is not anthropic.Anthropic:
        return httpx
    base = next(c for c in anthropic.DefaultHttpxClient.__mro__ if c.__module__.startswith("httpx"))
    return import_module(base.__module__.partition(".")[0])


def client_of(dialect: str, url: str, http: Any = None) -> Any:
    kind = KINDS[dialect]
    root = url if dialect != "messages" else url.removesuffix("/v1")
    return kind(api_key="k", base_url=root, max_retries=0, **({"http_client": http} if http is not None else {}))


def agent(dialect: str, client: Any, *, stream: bool = False, image: bool = True, **fields: Any) -> list[Any]:
    """The agent's loop in a dialect; gives its own history, which is never edited."""
    return {"chat": _chat, "responses": _responses, "messages": _messages}[dialect](client, stream, image, fields)


def _chat(client: Any, stream: bool, image: bool, fields: dict[str, Any]) -> list[Any]:
    asked: list[Any] = [{"type": "text", "text": ASKED}]
    if image:
        asked.append({"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}})
    history: list[Any] = [{"role": "system", "content": SYSTEM}]
    history.append({"role": "user", "content": asked if image else ASKED})
    tools = [{"type": "function", "function": {"name": "bash", "parameters": TOOL}}]
    while True:
        call = {"model": "m", "messages": list(history), "tools": tools, **fields}
        if stream:
            with client.chat.completions.stream(**call, stream_options={"include_usage": True}) as events:
                message = events.get_final_completion().choices[0].message
        else:
            message = client.chat.completions.create(**call).choices[0].message
        said = message.model_dump(mode="json", exclude_unset=True, exclude_none=True)
        said["tool_calls"] = [_plain(call) for call in said.get("tool_calls") or ()]
        history.append({key: value for key, value in said.items() if value not in (None, []) and key != "parsed"})
        if not message.tool_calls:
            return history
        for one in message.tool_calls:
            text = output_of(json.loads(one.function.arguments)["command"])
            history.append({"role": "tool", "tool_call_id": one.id, "content": text})


def _plain(call: dict[str, Any]) -> dict[str, Any]:
    function = {key: call["function"][key] for key in ("name", "arguments")}
    return {"id": call["id"], "type": "function", "function": function}


def _responses(client: Any, stream: bool, image: bool, fields: dict[str, Any]) -> list[Any]:
    asked: list[Any] = [{"type": "input_text", "text": ASKED}]
    if image:
        asked.append({"type": "input_image", "detail": "auto", "image_url": f"data:image/png;base64,{PNG}"})
    history: list[Any] = [{"role": "user", "content": asked}]
    tools = [{"type": "function", "name": "bash", "parameters": TOOL, "strict": False}]
    while True:
        call = {"model": "m", "instructions": SYSTEM, "input": list(history), "tools": tools, **fields}
        if stream:
            with client.responses.stream(**call) as events:
                answer = events.get_final_response()
        else:
            answer = client.responses.create(**call)
        drop = {"parsed_arguments", "parsed"}
        history += [item.model_dump(mode="json", exclude_unset=True, exclude=drop) for item in answer.output]
        calls = [item for item in answer.output if item.type == "function_call"]
        if not calls:
            return history
        for one in calls:
            text = output_of(json.loads(one.arguments)["command"])
            history.append({"type": "function_call_output", "call_id": one.call_id, "output": text})


def _messages(client: Any, stream: bool, image: bool, fields: dict[str, Any]) -> list[Any]:
    asked: list[Any] = [{"type": "text", "text": ASKED}]
    if image:
        source = {"type": "base64", "media_type": "image/png", "data": PNG}
        asked.append({"type": "image", "source": source})
    history: list[Any] = [{"role": "user", "content": asked}]
    tools = [{"name": "bash", "input_schema": TOOL}]
    while True:
        call = {"model": "m", "max_tokens": 99, "system": SYSTEM, "messages": list(history), "tools": tools, **fields}
        if stream:
            with client.messages.stream(**call) as events:
                answer = events.get_final_message()
        else:
            answer = client.messages.create(**call)
        history.append({"role": "assistant", "content": answer.to_dict()["content"]})
        calls = [block for block in answer.content if block.type == "tool_use"]
        if not calls:
            return history
        results = [
            {"type": "tool_result", "tool_use_id": one.id, "content": output_of(one.input["command"])} for one in calls
        ]
        history.append({"role": "user", "content": results})


def wrapped(dialect: str, stream: bool, **settings: Any) -> Callable[[Server, str | None], Editor | None]:
    def play(server: Server, policy: str | None) -> Editor | None:
        client = client_of(dialect, server.url)
        with client:
            made = client if policy is None else leyline.wrap(client, policy, **settings)
            agent(dialect, made, stream=stream)
            return None if policy is None else made.leyline

    return play


def on_transport(dialect: str, stream: bool, **settings: Any) -> Callable[[Server, str | None], Editor | None]:
    def play(server: Server, policy: str | None) -> Editor | None:
        plug = leyline.transport(policy, **settings) if policy is not None else None
        http = web_of(KINDS[dialect]).Client(**({"transport": plug} if plug is not None else {}))
        with client_of(dialect, server.url, http) as client:
            agent(dialect, client, stream=stream)
        if plug is not None:
            plug.close()
        return None if plug is None else plug.leyline

    return play


def through_proxy(dialect: str, stream: bool, **settings: Any) -> Callable[[Server, str | None], Editor | None]:
    def play(server: Server, policy: str | None) -> Editor | None:
        if policy is None:
            with client_of(dialect, server.url) as client:
                agent(dialect, client, stream=stream)
            return None
        editor = Editor(policy, splice=True, **settings)
        with proxy(editor, server.root) as url, client_of(dialect, url) as client:
            agent(dialect, client, stream=stream)
        return editor

    return play


@contextlib.contextmanager
def proxy(editor: Editor, upstream: str) -> Iterator[str]:
    """The proxy on a port of its own; gives its base URL."""
    for name in ("starlette", "prometheus_client", "uvicorn"):
        pytest.importorskip(name, reason="the proxy needs pip install 'leyline-kv[proxy]'")
    import uvicorn

    from leyline.harness.proxy import ProxySettings, make_app

    made = uvicorn.Server(uvicorn.Config(make_app(editor, ProxySettings(upstream)), port=0, log_level="error"))
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    while not made.started:
        assert thread.is_alive(), "the proxy ended"
        threading.Event().wait(0.01)
    try:
        yield f"http://127.0.0.1:{made.servers[0].sockets[0].getsockname()[1]}/v1"
    finally:
        made.should_exit = True
        thread.join(20)


CLIENTS = {
    f"{name}-{dialect}{'-stream' if stream else ''}": way(dialect, stream)
    for name, way in {"wrap": wrapped, "transport": on_transport, "proxy": through_proxy}.items()
    for dialect in KINDS
    for stream in (False, True)
}
