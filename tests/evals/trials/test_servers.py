"""An eval against an OpenAI-compatible server: a real one on a socket, whose answers are scripted."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from leyline.backends.contract import BackendError
from leyline.commands.eval_progress import PlainProgress
from leyline.evals.trials.arms import Arm, ArmError
from leyline.evals.trials.assemble import assemble
from leyline.evals.trials.config import ConfigError
from leyline.evals.trials.record import TrialOutcome
from leyline.evals.trials.run_eval import run_eval
from leyline.evals.trials.schedule import TrialSpec, check_same, planned_trials
from leyline.evals.trials.serving import check_backends, name_served
from leyline.suites import load_suite


class Server(ThreadingHTTPServer):
    """Calls `eval` until there are three answers in the history, then submits; half of every prompt is cached."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[dict[str, Any]] = []
        self.serves: str | None = "org/first"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/server_info":
            assert isinstance(self.server, Server)
            self.answer({"model_path": "/models/m", "served_model_name": self.server.serves})
            return
        self.answer({"object": "list", "data": [{"id": "scripted", "object": "model"}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.server, Server)
        self.server.requests.append(request)
        answers = sum(message["role"] == "assistant" for message in request["messages"])
        call = {"name": "submit" if answers == 3 else "eval", "arguments": "{}"}
        message = {"role": "assistant", "content": None}
        calls = [{"id": f"call_{answers}", "type": "function", "function": call}]
        size = sum(len(str(m.get("content") or "")) for m in request["messages"])
        usage = {"prompt_tokens": size, "completion_tokens": 7, "total_tokens": size + 7}
        head = {"id": "r", "created": 1, "model": "scripted"}
        usage["prompt_tokens_details"] = {"cached_tokens": size // 2}  # type: ignore[assignment]
        if not request.get("stream"):
            choice = {"index": 0, "message": {**message, "tool_calls": calls}, "finish_reason": "tool_calls"}
            self.answer({**head, "object": "chat.completion", "choices": [choice], "usage": usage})
            return
        delta = {**message, "tool_calls": [{**calls[0], "index": 0}]}
        chunks: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
            {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
            {"choices": [], "usage": usage},
        ]
        lines = [f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', **chunk})}\n\n" for chunk in chunks]
        self.send("".join([*lines, "data: [DONE]\n\n"]).encode(), "text/event-stream")

    def answer(self, data: dict[str, Any]) -> None:
        self.send(json.dumps(data).encode(), "application/json")

    def send(self, body: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_arms_against_a_server(server: Server, tmp_path: Path) -> None:
    config = assemble(
        "micro",
        {"n": 1, "workers": 0},
        arms=["keep_all", "truncate_older_than(n=1, max_chars=40)"],
        models=["scripted"],
        arm_fields={"backend": "openai", "url": server.url},
    )
    summary = run_eval(config, tmp_path, PlainProgress(quiet=True))
    kept, cut = summary.records
    for record in (kept, cut):
        assert record.outcome is TrialOutcome.FAILED, record.detail
        assert [turn.completion for turn in record.turns] == [7] * 4
        assert all(turn.balanced for turn in record.turns)
        assert record.turns[1].prefix == record.turns[1].prompt // 2
        assert record.total("spliced") == 0
    assert kept.total("edits") == 0
    assert [turn.edits for turn in cut.turns] == [0, 0, 1, 1]
    assert cut.turns[3].prompt < kept.turns[3].prompt
    assert {request["model"] for request in server.requests} == {"scripted"}
    assert [tool["function"]["name"] for tool in server.requests[0]["tools"]][-1] == "submit"


def test_a_server_that_is_not_there_is_said_before_anything_runs(tmp_path: Path) -> None:
    config = assemble(
        "micro",
        {"n": 1},
        arms=["keep_all"],
        models=["m"],
        arm_fields={"backend": "openai", "url": "http://127.0.0.1:9/v1"},
    )
    with pytest.raises(BackendError, match=r"arm 'keep_all': no server answers at http://127\.0\.0\.1:9/v1"):
        run_eval(config, tmp_path / "run", PlainProgress(quiet=True))
    assert not (tmp_path / "run").exists()


def test_an_arm_that_names_no_model_is_named_by_its_server(server: Server, tmp_path: Path) -> None:
    config = assemble("micro", {"n": 1}, arms=["keep_all"], arm_fields={"backend": "sglang", "url": server.url[:-3]})

    def planned() -> list[TrialSpec]:
        arms = tuple(name_served(config.arms))
        assert [arm.model for arm in arms] == [server.serves]
        return planned_trials(config.model_copy(update={"arms": arms}), load_suite(config.suite), tmp_path)

    (record,) = (spec.record(TrialOutcome.SOLVED) for spec in planned())
    assert record.model == "org/first"
    check_same(planned(), [record])
    server.serves = "org/second"
    with pytest.raises(ConfigError, match="with other settings"):
        check_same(planned(), [record])
    named = Arm(name="a", backend="sglang", url="http://127.0.0.1:9", model="m")
    assert name_served([named]) == [named]  # nobody is asked


def test_what_else_is_looked_for_before_anything_runs(server: Server) -> None:
    check_backends([Arm(name="a", backend="openai", url=server.url), Arm(name="b", backend="sglang", url=server.url)])
    assert server.requests == []
    with pytest.raises(Exception, match="no model 'no-such'; give a model folder"):
        check_backends([Arm(name="a", model="no-such")])
    with pytest.raises(BackendError, match="cannot read the script"):
        check_backends([Arm(name="a", backend="mock", options={"script": "none.json"})])
    with pytest.raises(ArmError, match="--model NAME"):
        assemble("micro", {}, arm_fields={"backend": "openai", "url": server.url})
