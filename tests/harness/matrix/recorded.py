"""One agent's twelve turns, and a server that answers with them in any dialect and keeps what came.

The answers hold parallel calls, thinking and text; the first prompt holds an image where the harness can send one. With
an upstream each request is served there as well, and its usage and receipt stand in the answer.
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import httpx

TURNS = 12
POLICY = "truncate_older_than(n=2, max_chars=60)"
SYSTEM = "You fix code."
ASKED = "Fix the bug that the picture shows."
PNG = base64.b64encode(
    bytes.fromhex(
        "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d4944415478da63fcffff3f0300050001ff"
        "5cd3a7b70000000049454e44ae426082"
    )
).decode()


class Call(NamedTuple):
    """A call of the one tool."""

    id: str
    command: str

    @property
    def arguments(self) -> dict[str, str]:
        return {"command": self.command}


class Answer(NamedTuple):
    """What the model says in one turn."""

    text: str
    thinking: str | None
    calls: tuple[Call, ...]


def answer_of(turn: int) -> Answer:
    """The answer to request `turn`, from 0."""
    if turn >= TURNS - 1:
        return Answer("Done.", None, ())
    names = "ab" if turn % 4 == 1 else "a"
    calls = tuple(Call(f"call_{turn}{name}", f"cat part_{turn}{name}.py") for name in names)
    return Answer(f"Step {turn}.", f"Part {turn} may hold it." if turn % 3 == 0 else None, calls)


def output_of(command: str) -> str:
    """What the tool gives."""
    return f"{command}: " + "a line of output, " * 30


PROMPT, CACHED, GENERATED = 100, 40, 5


class Server(ThreadingHTTPServer):
    """Answers `answer_of(k)` to the k-th request, in the dialect of its path, whole or as events."""

    daemon_threads = True

    def __init__(self, upstream: str | None = None) -> None:
        self.upstream = upstream
        self.raw: list[bytes] = []
        self.served: list[dict[str, Any]] = []
        super().__init__(("127.0.0.1", 0), _Handler)
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        return [json.loads(raw) for raw in self.raw]

    def stop(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        upstream = self.server.upstream  # type: ignore[attr-defined]
        found = httpx.get(upstream + self.path, timeout=60) if upstream else httpx.Response(404, json={})
        self._send(found.status_code, found.content, "application/json")

    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Server)
        raw = self.rfile.read(int(self.headers["content-length"]))
        server.raw.append(raw)
        body, said = json.loads(raw), answer_of(len(server.raw) - 1)
        made = {"completions": chat, "responses": responses, "messages": messages}[self.path.rsplit("/", 1)[-1]]
        whole, events = made(said, str(body.get("model")))
        if server.upstream is not None:
            told = serve(body, server.upstream)
            server.served.append(told)
            whole["usage"] = events[-1]["usage"] = told["usage"]
            if "meta_info" in told["choices"][0]:
                whole["choices"][0]["meta_info"] = told["choices"][0]["meta_info"]
                events.append({**events[-1], "usage": None, "leyline": told["choices"][0]["meta_info"]["leyline"]})
        if not body.get("stream"):
            self._send(200, json.dumps(whole).encode(), "application/json")
            return
        lines = [(f"event: {e['type']}\n" if "type" in e else "") + f"data: {json.dumps(e)}\n\n" for e in events]
        end = "" if "type" in events[0] else "data: [DONE]\n\n"
        self._send(200, ("".join(lines) + end).encode(), "text/event-stream")

    def _send(self, status: int, data: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


def serve(body: Mapping[str, Any], upstream: str) -> dict[str, Any]:
    """What a real server answers to a chat request: to its text, since a tiny model sees no images and has no tools."""
    messages = [{"role": m["role"], "content": _plain(m.get("content"))} for m in body["messages"]]
    asked = {"model": "default", "messages": messages, "max_tokens": 6, "temperature": 0, "logprobs": True}
    asked |= {key: body[key] for key in ("custom_params", "return_meta_info", "cache_salt") if key in body}
    if "custom_params" in body:
        asked["return_meta_info"] = True  # of a stream it is the last chunk
    answer = httpx.post(f"{upstream}/v1/chat/completions", json=asked, timeout=120)
    answer.raise_for_status()
    found: dict[str, Any] = answer.json()
    return found


def _plain(content: Any) -> str:
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content or ())


Made = tuple[dict[str, Any], list[dict[str, Any]]]


def chat(said: Answer, model: str) -> Made:
    """A chat completion, and its chunks."""
    base = {"id": "x", "object": "chat.completion", "created": 1, "model": model}
    usage = {"prompt_tokens": PROMPT, "completion_tokens": GENERATED, "total_tokens": PROMPT + GENERATED}
    usage |= {"prompt_tokens_details": {"cached_tokens": CACHED}}  # type: ignore[dict-item]
    message: dict[str, Any] = {"role": "assistant", "content": said.text}
    if said.thinking:
        message["reasoning_content"] = said.thinking
    calls = [
        {"id": c.id, "type": "function", "function": {"name": "bash", "arguments": json.dumps(c.arguments)}}
        for c in said.calls
    ]
    if calls:
        message["tool_calls"] = calls
    end = "tool_calls" if calls else "stop"
    whole = {**base, "choices": [{"index": 0, "message": message, "finish_reason": end}], "usage": usage}
    delta = {**message, **({"tool_calls": [{"index": k, **c} for k, c in enumerate(calls)]} if calls else {})}
    parts = [({"index": 0, "delta": delta, "finish_reason": None}, None)]
    parts += [({"index": 0, "delta": {}, "finish_reason": end}, None)]
    chunk = {**base, "object": "chat.completion.chunk"}
    events = [{**chunk, "choices": [choice]} for choice, _ in parts] + [{**chunk, "choices": [], "usage": usage}]
    return whole, events


def responses(said: Answer, model: str) -> Made:
    """A response, and its events."""
    turn = said.calls[0].id if said.calls else "end"
    output: list[dict[str, Any]] = []
    if said.thinking:
        summary = [{"type": "summary_text", "text": said.thinking}]
        output.append({"type": "reasoning", "id": f"rs_{turn}", "summary": summary, "encrypted_content": f"e{turn}"})
    content = [{"type": "output_text", "text": said.text, "annotations": []}]
    output.append(
        {"type": "message", "id": f"m_{turn}", "role": "assistant", "status": "completed", "content": content}
    )
    output += [
        {"type": "function_call", "id": f"fc_{c.id}", "call_id": c.id, "name": "bash", "status": "completed"}
        | {"arguments": json.dumps(c.arguments)}
        for c in said.calls
    ]
    usage = {"input_tokens": PROMPT, "output_tokens": GENERATED, "total_tokens": PROMPT + GENERATED}
    usage |= {"input_tokens_details": {"cached_tokens": CACHED}, "output_tokens_details": {"reasoning_tokens": 0}}  # type: ignore[dict-item]
    whole = {"id": f"resp_{turn}", "object": "response", "created_at": 1, "model": model, "error": None}
    whole |= {"status": "completed"}
    whole |= {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "output": output, "usage": usage}
    whole |= {"incomplete_details": None, "instructions": None, "metadata": {}, "temperature": 1.0, "top_p": 1.0}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": {**whole, "output": [], "usage": None}}]
    for index, item in enumerate(output):
        events.append({"type": "response.output_item.added", "output_index": index, "item": item})
        events.append({"type": "response.output_item.done", "output_index": index, "item": item})
    events.append({"type": "response.completed", "response": whole})
    return whole, [{**event, "sequence_number": k} for k, event in enumerate(events)]


def messages(said: Answer, model: str) -> Made:
    """A message, and its events."""
    turn = said.calls[0].id if said.calls else "end"
    content: list[dict[str, Any]] = []
    if said.thinking:
        content.append({"type": "thinking", "thinking": said.thinking, "signature": f"s{turn}"})
    content.append({"type": "text", "text": said.text})
    content += [{"type": "tool_use", "id": c.id, "name": "bash", "input": c.arguments} for c in said.calls]
    usage = {"input_tokens": PROMPT - CACHED, "cache_read_input_tokens": CACHED, "output_tokens": GENERATED}
    usage |= {"cache_creation_input_tokens": 0}
    end = "tool_use" if said.calls else "end_turn"
    whole = {"id": f"msg_{turn}", "type": "message", "role": "assistant", "model": model, "content": content}
    whole |= {"usage": usage, "stop_reason": end, "stop_sequence": None}
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**whole, "content": [], "stop_reason": None}},
    ]
    for index, block in enumerate(content):
        empty, deltas = _deltas(block)
        events.append({"type": "content_block_start", "index": index, "content_block": empty})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    tail = {"stop_reason": end, "stop_sequence": None}
    events.append({"type": "message_delta", "delta": tail, "usage": {"output_tokens": GENERATED}})
    events.append({"type": "message_stop"})
    return whole, events


def _deltas(block: dict[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    if block["type"] == "thinking":
        told = [{"type": "thinking_delta", "thinking": block["thinking"]}]
        return {**block, "thinking": "", "signature": ""}, [
            *told,
            {"type": "signature_delta", "signature": block["signature"]},
        ]
    if block["type"] == "text":
        return {**block, "text": ""}, [{"type": "text_delta", "text": block["text"]}]
    return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]


Line = tuple[str, ...]


def lines_of(body: Mapping[str, Any]) -> list[Line]:
    """What a request's history says, the same for all dialects; a system prompt and thinking are left out: not every
    dialect or harness sends them back.
    """
    lines: list[Line] = []
    for item in body.get("input") or body.get("messages") or ():
        role, kind = item.get("role"), item.get("type")
        if kind == "function_call":
            lines.append(("call", item["call_id"], _command(item["arguments"])))
        elif kind == "function_call_output":
            lines.append(("result", item["call_id"], _text(item["output"])))
        elif role == "tool":
            lines.append(("result", item["tool_call_id"], _text(item["content"])))
        elif role in ("user", "assistant"):
            lines += _said(role, item)
    return lines


def _said(role: str, item: Mapping[str, Any]) -> list[Line]:
    lines: list[Line] = []
    content = item.get("content") or []
    for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        if "image" in part["type"]:
            lines.append(("image", json.dumps(part)[-80:].partition(PNG[-20:])[1]))
        elif part["type"] == "tool_result":
            lines.append(("result", part["tool_use_id"], _text(part["content"])))
        elif part["type"] == "tool_use":
            lines.append(("call", part["id"], part["input"]["command"]))
        elif isinstance(part.get("text"), str):
            lines.append((role, part["text"].strip()))  # inspect_ai puts a line before it
    for call in item.get("tool_calls") or ():
        lines.append(("call", call["id"], _command(call["function"]["arguments"])))
    return lines


def _command(arguments: str) -> str:
    return str(json.loads(arguments)["command"])


def _text(content: Any) -> str:
    if not isinstance(content, str):
        return "".join(part["text"] for part in content)
    # google-adk sends what a function gave as JSON.
    return str(json.loads(content)["result"]) if content.startswith('{"result": ') else content


def items_of(body: Mapping[str, Any]) -> list[Any]:
    """The elements of a request's history as they were sent, marks for a cache apart."""
    return list(body.get("input") or body["messages"])
