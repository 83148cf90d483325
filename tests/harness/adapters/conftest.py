"""A chat server in this process for other harnesses: answers from a script, and keeps what came."""

from __future__ import annotations

import gc
import itertools
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

LONG = "a line of output\n" * 40
TURNS = 6


class Recording(ThreadingHTTPServer):
    """Calls `tool` until `turns` requests came, then says that it is done, or calls it with `last`."""

    daemon_threads = True

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.routed: list[str | None] = []
        self.tool, self.arguments, self.turns = "bash", dict[str, Any](), TURNS
        self.last: dict[str, Any] | None = None
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        server = self.server
        assert isinstance(server, Recording)
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        server.bodies.append(body)
        server.routed.append(self.headers["X-SMG-Routing-Key"])
        number = len(server.bodies)
        ended = number >= server.turns
        arguments = server.last if ended else server.arguments
        function = {"name": server.tool, "arguments": json.dumps(arguments)}
        call = {"id": f"c{number}", "type": "function", "function": function}
        message: dict[str, Any] = {"role": "assistant", "content": "I look.", "tool_calls": [call]}
        if ended and server.last is None:
            message = {"role": "assistant", "content": "Done."}
        usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105}
        usage |= {"prompt_tokens_details": {"cached_tokens": 40}}  # type: ignore[dict-item]
        said = {
            "id": "x",
            "object": "chat.completion",
            "created": 1,
            "model": body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": usage,
        }
        text = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Recording]:
    made = Recording()
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield made
    made.shutdown()
    made.server_close()


def check_pinned(bodies: list[Any], field: str = "messages") -> None:
    """Each edit is made once and stays: from turn to turn one message at most is another one."""
    for before, after in itertools.pairwise(bodies):
        same = sum(a == b for a, b in zip(before[field], after[field], strict=False))
        assert same >= len(before[field]) - 1
    cut = [item for item in bodies[-1][field] if "characters removed" in json.dumps(item)]
    assert len(cut) >= 3


@pytest.fixture
def pinned() -> Any:
    return check_pinned


@pytest.fixture
def collected() -> Iterator[None]:
    """Collects what a test left behind while its own filter of warnings holds."""
    yield
    gc.collect()
