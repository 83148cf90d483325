"""The loop with scripted answers: what it sends, records and gives back."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from leyline.backends.contract import BackendError, ContextOverflowError
from leyline.directives import Message
from leyline.harness.agent import NO_CALL, Event, Limits, run_agent
from leyline.harness.session.session import Session
from leyline.harness.tasks import Episode, FilesTask
from leyline.harness.trajectory import TrajectoryWriter, read_trajectory
from leyline.policies import PolicyError


@dataclass
class Output:
    text: str
    done: bool = False


@dataclass
class Job:
    """A task and its tools at once: `echo` answers, `submit` ends."""

    passes: bool | None = True
    calls: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    messages: tuple[Message, ...] = ({"role": "system", "content": "S"}, {"role": "user", "content": "U"})

    def call(self, name: str, arguments: Mapping[str, Any]) -> Output:
        self.calls.append((name, arguments))
        if name == "interrupt":
            raise KeyboardInterrupt
        return Output(f"{name} {arguments.get('x', '')}" * int(arguments.get("times", 1)), name == "submit")

    def solved(self) -> bool | None:
        return self.passes


def calls(*wanted: tuple[str, Any]) -> Message:
    made = [
        {"id": f"c{k}", "type": "function", "function": {"name": name, "arguments": arguments}}
        for k, (name, arguments) in enumerate(wanted)
    ]
    return {"role": "assistant", "content": "", "tool_calls": made}


ECHO = calls(("echo", '{"x": "1"}'))
SUBMIT = calls(("submit", "{}"))


def test_a_run_from_task_to_outcome(scripted: Callable[..., Any], tmp_path: Path) -> None:
    job, events = Job(), list[Event]()
    session = Session(scripted([ECHO, SUBMIT]))
    writer = TrajectoryWriter(tmp_path / "t.jsonl", task="job")
    result = run_agent(job, job, session, trajectory=writer, on_event=events.append)
    assert (result.outcome, result.reason, result.turns) == ("solved", "", 2)
    assert job.calls == [("echo", {"x": "1"}), ("submit", {})]
    assert [m["role"] for m in result.messages] == ["system", "user", "assistant", "tool", "assistant", "tool"]
    assert result.messages[3] == {"role": "tool", "tool_call_id": "c0", "content": "echo 1"}
    kinds = ["turn", "text", "receipt", "tool_call", "tool_result"]
    assert [event.kind for event in events] == [*kinds, *kinds, "end"]
    assert [event.turn for event in events[:6]] == [0, 0, 0, 0, 0, 1]
    trajectory = read_trajectory(writer.path)
    assert trajectory.outcome == "solved"
    assert trajectory.messages() == result.messages
    assert trajectory.turns[0]["tool"]["output"] == "echo 1"
    assert trajectory.inputs() == [list(turn.input_messages) for turn in session.turns]
    assert trajectory.end is not None
    assert trajectory.end["totals"] == result.totals.to_dict()


def test_a_submission_that_does_not_pass_has_failed(scripted: Callable[..., Any]) -> None:
    job = Job(passes=False)
    assert run_agent(job, job, Session(scripted([SUBMIT]))).outcome == "failed"


def test_a_submission_that_nothing_can_judge_has_not_failed(scripted: Callable[..., Any], tmp_path: Path) -> None:
    job, writer = Job(passes=None), TrajectoryWriter(tmp_path / "t.jsonl")
    result = run_agent(job, job, Session(scripted([SUBMIT])), trajectory=writer)
    assert (result.outcome, result.reason) == ("unscored", "submitted; no tests were given")
    assert read_trajectory(writer.path).outcome == "unscored"


@pytest.mark.parametrize(
    "answer",
    ["no call at all", calls(("echo", "{not json")), calls(("echo", "[1]")), calls(("echo", '{"a":' * 100_000))],
    ids=["text", "no JSON", "no object", "nested too deep"],
)
def test_a_call_that_cannot_be_read_is_said_to_the_model(scripted: Callable[..., Any], answer: Any) -> None:
    job = Job()
    # A policy that looks at every call reads it too.
    result = run_agent(job, job, Session(scripted([answer, SUBMIT]), "then(drop_stale, redact(pattern='sk-'))"))
    assert result.outcome == "solved"
    assert result.messages[3]["content"] == NO_CALL == "Error: no valid tool call."
    # A native call must be answered under its id; text without a call has none.
    assert result.messages[3]["role"] == ("user" if isinstance(answer, str) else "tool")
    assert job.calls == [("submit", {})]


def test_a_call_with_infinity_leaves_a_trajectory_that_strict_readers_read(
    scripted: Callable[..., Any], tmp_path: Path
) -> None:
    job, writer = Job(), TrajectoryWriter(tmp_path / "t.jsonl")
    answer = calls(("echo", '{"x": 1e999}'), ("echo", '{"x": NaN}'), ("echo", '{"a":' * 985 + "1" + "}" * 985))
    assert run_agent(job, job, Session(scripted([answer, SUBMIT])), trajectory=writer).outcome == "solved"
    for line in writer.path.read_text().splitlines():
        json.loads(line, parse_constant=lambda constant: pytest.fail(f"{constant} is not JSON"))
    tools = read_trajectory(writer.path).turns[0]["tools"]
    assert [tool["arguments"] for tool in tools[:2]] == [{"x": "Infinity"}, {"x": "NaN"}]


def test_several_calls_run_in_order_until_one_ends_the_task(scripted: Callable[..., Any]) -> None:
    job = Job()
    answer = calls(("echo", '{"x": 1}'), ("echo", {"x": 2}), ("submit", ""), ("echo", '{"x": 3}'))
    result = run_agent(job, job, Session(scripted([answer])))
    assert job.calls == [("echo", {"x": 1}), ("echo", {"x": 2}), ("submit", {})]
    assert [m.get("tool_call_id") for m in result.messages[3:]] == ["c0", "c1", "c2"]


def test_turns_run_out(scripted: Callable[..., Any]) -> None:
    job = Job()
    result = run_agent(job, job, Session(scripted([ECHO] * 3)), limits=Limits(turns=3))
    assert (result.outcome, result.reason, result.turns) == ("limit", "turns: 3", 3)


def test_time_runs_out(scripted: Callable[..., Any]) -> None:
    job = Job()
    result = run_agent(job, job, Session(scripted([])), limits=Limits(seconds=0.0))
    assert (result.outcome, result.turns) == ("limit", 0)
    assert result.reason.startswith("time")


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (BackendError("connection refused: start the server"), "error", "connection refused: start the server"),
        (ContextOverflowError("4097 of 4096 tokens"), "limit", "context: 4097 of 4096 tokens"),
    ],
)
def test_a_backend_that_fails_ends_the_run_with_its_reason(
    scripted: Callable[..., Any], tmp_path: Path, error: BackendError, outcome: str, reason: str
) -> None:
    job, writer = Job(), TrajectoryWriter(tmp_path / "t.jsonl")
    result = run_agent(job, job, Session(scripted([ECHO, error])), trajectory=writer)
    assert (result.outcome, result.reason, result.turns) == (outcome, reason, 1)
    assert read_trajectory(writer.path).outcome == outcome


@pytest.mark.parametrize("where", ["model", "tool"])
def test_an_interrupt_closes_the_trajectory_and_goes_on(
    scripted: Callable[..., Any], tmp_path: Path, where: str
) -> None:
    answers = [ECHO, KeyboardInterrupt() if where == "model" else calls(("interrupt", "{}"))]
    job, writer = Job(), TrajectoryWriter(tmp_path / "t.jsonl")
    with pytest.raises(KeyboardInterrupt):
        run_agent(job, job, Session(scripted(answers)), trajectory=writer)
    trajectory = read_trajectory(writer.path)
    assert trajectory.outcome == "interrupted"
    assert len(trajectory.turns) == (1 if where == "model" else 2)


class Broken:
    name = "broken"

    def transform(self, messages: Any, turn: int) -> list[Message]:
        return [m for m in messages if m["role"] != "tool"]


def test_a_policy_error_is_raised_and_recorded(scripted: Callable[..., Any], tmp_path: Path) -> None:
    job, writer = Job(), TrajectoryWriter(tmp_path / "t.jsonl")
    with pytest.raises(PolicyError, match="broken"):
        run_agent(job, job, Session(scripted([ECHO, ECHO]), Broken()), trajectory=writer)
    end = read_trajectory(writer.path).end
    assert end is not None
    assert end["outcome"] == "error"
    assert "broken" in end["reason"]


def test_prewarm_runs_beside_the_tool(scripted: Callable[..., Any]) -> None:
    backend, job = scripted([ECHO, SUBMIT]), Job()
    met = threading.Barrier(2, timeout=10)

    class Waiting(Job):
        def call(self, name: str, arguments: Mapping[str, Any]) -> Output:
            met.wait()
            return super().call(name, arguments)

    class Warm(type(backend)):  # type: ignore[misc]
        def prewarm(self, session: Any) -> None:
            met.wait()
            super().prewarm(session)

    backend = Warm([ECHO, SUBMIT])
    job = Waiting()
    result = run_agent(job, job, Session(backend), prewarm=True)
    assert result.outcome == "solved"
    assert backend.prewarmed[0].prompt.ids == backend.requests[1][1].prompt.ids[: len(backend.prewarmed[0].prompt.ids)]


def test_an_interrupt_does_not_wait_for_a_prewarm(scripted: Callable[..., Any], tmp_path: Path) -> None:
    release, begun = threading.Event(), threading.Event()

    class Slow(type(scripted([]))):  # type: ignore[misc]
        def prewarm(self, session: Any) -> None:
            begun.set()
            release.wait(60)

    class Interrupted(Job):
        def call(self, name: str, arguments: Any) -> Any:
            assert begun.wait(60)
            raise KeyboardInterrupt

    job = Interrupted()
    try:
        with TrajectoryWriter(tmp_path / "t.jsonl") as writer, pytest.raises(KeyboardInterrupt):
            run_agent(job, job, Session(Slow([ECHO, SUBMIT])), trajectory=writer, prewarm=True)
        assert read_trajectory(tmp_path / "t.jsonl").outcome == "interrupted"
        (waiting,) = [thread for thread in threading.enumerate() if thread.name == "leyline-prewarm"]
        assert waiting.is_alive()  # while the backend still answers
        assert waiting.daemon  # so that the program ends without it
    finally:
        release.set()


def test_a_prewarm_that_breaks_is_told(scripted: Callable[..., Any]) -> None:
    class Faulty(type(scripted([]))):  # type: ignore[misc]
        def prewarm(self, session: Any) -> None:
            raise ZeroDivisionError

    job = Job()
    with pytest.raises(ZeroDivisionError):
        run_agent(job, job, Session(Faulty([ECHO, SUBMIT])), prewarm=True)


def test_a_prewarm_that_fails_is_no_reason_to_stop(scripted: Callable[..., Any]) -> None:
    class Cold(type(scripted([]))):  # type: ignore[misc]
        def prewarm(self, session: Any) -> None:
            raise BackendError("not now")

    job = Job()
    assert run_agent(job, job, Session(Cold([ECHO, SUBMIT])), prewarm=True).outcome == "solved"


def test_an_episode_on_disk_is_task_and_toolbox(scripted: Callable[..., Any]) -> None:
    task = FilesTask(
        id="one",
        system="Fix it.",
        user="a.py is wrong.",
        files={"a.py": "x = 1\n"},
        evaluate=lambda number: ["python", "-c", "import a; assert a.x == 2"],
        check=["python", "-c", "import a; assert a.x == 2"],
    )
    edit = {"path": "a.py", "line": 1, "new_code": "x = 2"}
    answers = [calls(("edit", json.dumps(edit))), calls(("eval", "{}")), SUBMIT]
    with Episode(task) as episode:
        session = Session(scripted(answers), tools=episode.tools)
        result = run_agent(episode, episode, session)
    assert result.outcome == "solved"
    assert result.messages[3]["content"].startswith("Edited a.py line 1")
