"""The command line as a user runs it, and an OpenAI-compatible server that answers from a script."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from leyline.backends.mock import tool_call

CODE = "def double(x):\n    return x + 1\n"
TEST = "from code_under_test import double\n\n\ndef test_double():\n    assert double(4) == 8\n"


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """The one line that explains a failure."""
        lines = [line for line in self.err.splitlines() if line.startswith("leyline: ")]
        assert len(lines) == 1, f"one line must explain the failure, not {lines!r}"
        assert "Traceback" not in self.err
        return lines[0]


@pytest.fixture
def leyline(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    """`leyline("run", ...)`: the entry point in this process, with its cache folder under `tmp_path`."""
    from leyline.cli import main

    monkeypatch.setenv("LEYLINE_CACHE", str(tmp_path / "cache"))
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["leyline", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        return Done(int(left.value.code or 0), out, err)

    return call


@dataclass
class Script:
    """What the server answers, in order: a message, an HTTP status, or a number of seconds to wait first."""

    url: str = ""
    answers: list[Any] = field(default_factory=list)
    requests: list[dict[str, Any]] = field(default_factory=list)


def _reply(script: Script, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    script.requests.append(asked)
    answer = script.answers.pop(0) if script.answers else tool_call("submit")
    while isinstance(answer, float):
        time.sleep(answer)
        answer = script.answers.pop(0)
    if isinstance(answer, tuple):
        status, text = answer
        return status, {"error": {"message": text, "type": "invalid_request_error", "code": None}}
    size = len(json.dumps(asked["messages"])) // 4
    usage = {"prompt_tokens": size, "completion_tokens": 5, "total_tokens": size + 5}
    usage["prompt_tokens_details"] = {"cached_tokens": size // 2}  # type: ignore[assignment]
    calls = [{**call, "id": f"call_{len(script.requests)}"} for call in answer.get("tool_calls") or ()]
    message = {**answer, **({"tool_calls": calls} if calls else {})}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}
    return 200, body


@pytest.fixture
def server() -> Iterator[Script]:
    """A server on a free port of this machine; set its `answers`."""
    script = Script()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, body = _reply(script, asked)
            data = json.dumps(body).encode()
            try:
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)
            except OSError:  # the client has gone
                pass

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        script.url = f"http://127.0.0.1:{served.server_address[1]}/v1"
        thread = threading.Thread(target=served.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield script
        served.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A debug-gym task with one wrong line."""
    return make_folder(tmp_path / "doubling")


def make_folder(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "code_under_test.py").write_text(CODE)
    (path / "test.py").write_text(TEST)
    return path


@pytest.fixture
def make_task() -> Callable[[Path], Path]:
    return make_folder


@pytest.fixture
def fix() -> Sequence[dict[str, Any]]:
    """The calls that repair the folder's bug."""
    return [
        tool_call("eval"),
        tool_call("view", path="code_under_test.py", start=1, end=2),
        tool_call("edit", path="code_under_test.py", line=2, new_code="    return x * 2"),
        tool_call("eval"),
        tool_call("submit"),
    ]
