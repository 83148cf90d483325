"""`leyline proxy` as a process in front of a server: sessions at once, a kill, a start with the same ledger."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("uvicorn", reason="the proxy needs pip install 'leyline-kv[proxy]'")

LONG = "output " * 60
Start = Callable[..., str]


class Recording(ThreadingHTTPServer):
    """A chat server that keeps what came."""

    daemon_threads = True
    request_queue_size = 512

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        assert isinstance(self.server, Recording)
        self.server.bodies.append(body)
        said = {"choices": [{"message": {"role": "assistant", "content": body["messages"][0]["content"]}}]}
        text = json.dumps(said).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def upstream() -> Iterator[Recording]:
    server = Recording()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def start(upstream: Recording, tmp_path: Path) -> Iterator[Start]:
    """`start(*options)`: run the command and wait for it; `start.processes` are those that run."""
    processes: list[subprocess.Popen[bytes]] = []

    def run(*options: str) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        words = ["proxy", "--upstream", f"http://127.0.0.1:{upstream.server_address[1]}", "--port", str(port), *options]
        code = "from leyline.cli import main; main()"
        with (tmp_path / "log").open("ab") as log:
            processes.append(subprocess.Popen([sys.executable, "-c", code, *words], stdout=log, stderr=log))
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and processes[-1].poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{url}/healthz", timeout=5).status_code == 200:
                    return url
            time.sleep(0.1)
        raise RuntimeError((tmp_path / "log").read_text())

    run.processes = processes  # type: ignore[attr-defined]
    yield run
    for process in processes:
        process.kill()
        process.wait(30)


def history(name: str, turns: int) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": f"task {name}"}]
    for k in range(turns):
        call = {"id": f"c{k}", "type": "function", "function": {"name": "bash", "arguments": "{}"}}
        messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        messages.append({"role": "tool", "tool_call_id": f"c{k}", "content": f"{name}.{k} {LONG}"})
    return {"model": "m", "messages": messages}


RULE = """
import os

from leyline import rule


@rule(roles="tool")
def stamp(message, ctx):
    if ctx.newer_tool_messages >= 1:
        return {**message, "content": f"{message['content'][:9]} cut in process {os.getpid()}"}
"""


def test_200_sessions_at_once_stay_apart_and_a_kill_in_between_loses_no_edit(
    start: Start, upstream: Recording, tmp_path: Path
) -> None:
    """Edits say which process made them, so that one which was made again shows."""
    (tmp_path / "rule.py").write_text(RULE)
    options = ("--policy", f"{tmp_path / 'rule.py'}:stamp", "--ledger", str(tmp_path / "ledger.sqlite"))
    url = start(*options)
    process = start.processes[-1]  # type: ignore[attr-defined]
    names = [f"s{number:03}" for number in range(200)]
    acknowledged = dict.fromkeys(names, -1)

    def talk(name: str, last: int) -> None:
        host, port = url.removeprefix("http://").split(":")
        headers = {"authorization": "Bearer sk-very-secret", "x-session-id": name}
        with contextlib.closing(http.client.HTTPConnection(host, int(port), timeout=120)) as connection:
            for turns in range(acknowledged[name] + 1, last):
                connection.request("POST", "/v1/chat/completions", json.dumps(history(name, turns)), headers)
                with connection.getresponse() as response:
                    answer = json.load(response)
                assert answer["choices"][0]["message"]["content"] == f"task {name}"
                acknowledged[name] = turns
                if last == 4 and sum(acknowledged.values()) >= 300:
                    process.kill()

    def tried(name: str) -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            talk(name, 4)

    with ThreadPoolExecutor(32) as pool:
        list(pool.map(tried, names))
    process.wait(30)
    was = dict(acknowledged)
    assert 300 <= sum(was.values()) < 400
    assert set(was.values()) > {-1, 3}
    before = {(body["messages"][0]["content"], len(body["messages"])): body["messages"] for body in upstream.bodies}
    upstream.bodies.clear()
    url = start(*options)
    with ThreadPoolExecutor(32) as pool:
        list(pool.map(lambda name: talk(name, 5), names))
    assert set(acknowledged.values()) == {4}
    for body in upstream.bodies:
        task = body["messages"][0]["content"]
        assert all(task[5:] in str(message["content"]) for message in body["messages"][2::2])
        if (len(body["messages"]) - 1) // 2 == was[task[5:]] + 1 > 0:
            held = before[task, len(body["messages"]) - 2]
            shared = sum(a == b for a, b in zip(held, body["messages"], strict=False))
            assert shared >= len(held) - 1, "an edit of before the kill was made otherwise"
    assert "sk-very-secret" not in (tmp_path / "log").read_text()


def test_each_request_is_a_line_of_the_records(start: Start, tmp_path: Path) -> None:
    file = tmp_path / "week" / "traffic.jsonl"
    url = start("--policy", "truncate_older_than(n=0, max_chars=40)", "--records", str(file))
    for turns in (1, 2):
        httpx.post(f"{url}/v1/chat/completions", json=history("a", turns), timeout=60).raise_for_status()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["number"] for line in lines] == [0, 1]
    assert lines[1]["shed"] > 0


def test_what_cannot_be_started_is_one_line(tmp_path: Path) -> None:
    def said(*words: str) -> str:
        code = "from leyline.cli import main; main()"
        command = [sys.executable, "-c", code, "proxy", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 2
        return done.stderr

    assert "--token" in said("--upstream", "http://localhost:1", "--host", "0.0.0.0")
    assert "http://HOST:PORT" in said("--upstream", "localhost:1")
    assert "unknown policy 'drop_stal'" in said("--upstream", "http://localhost:1", "--policy", "drop_stal")
    (tmp_path / "l").write_text("no database " * 100)
    assert "give another file" in said("--upstream", "http://localhost:1", "--ledger", str(tmp_path / "l"))
