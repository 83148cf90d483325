"""One wiring of an agent run: what a command and a trial both get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from leyline.backends import MockBackend, Sampling, tool_call
from leyline.directives import Message, Mode
from leyline.harness import read_trajectory
from leyline.harness.tools.tool import ToolResult
from leyline.harness.work import Setup, work


class Task:
    messages: Sequence[Message] = [{"role": "user", "content": "go"}]
    tools: Sequence[Mapping[str, Any]] = [{"type": "function", "function": {"name": "look", "parameters": {}}}]

    def __init__(self, turns: int | None = None) -> None:
        self.turns = turns

    def call(self, name: str, arguments: Mapping[str, Any]) -> ToolResult:
        return ToolResult("x" * 200, done=name == "submit")

    def solved(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("own", "asked", "ends"), [(3, None, "turns: 3"), (3, 2, "turns: 2"), (None, None, "turns: 40")]
)
def test_the_limit_is_what_was_asked_for_else_the_tasks_own(own: int | None, asked: int | None, ends: str) -> None:
    result = work(Task(own), MockBackend(lambda messages: tool_call("look")), Setup(turns=asked))
    assert (result.outcome, result.reason) == ("limit", ends)


def test_settings_reach_the_session_and_the_header(tmp_path: Path) -> None:
    backend = MockBackend([tool_call("look"), tool_call("look"), tool_call("submit")])
    setup = Setup("truncate_older_than(n=1, max_chars=20)", Mode.FORGET, seam=3, sampling=Sampling(max_tokens=7))
    path = tmp_path / "t.jsonl"
    with setup.trajectory(path, backend, task="mine", model="another") as writer:
        result = work(Task(), backend, setup, trajectory=writer, session_id="s", tenant="t")
    assert result.outcome == "solved"
    last = backend.requests[-1]
    assert last.session.sampling.max_tokens == 7
    assert (last.session.seam, last.session.session_id, last.session.tenant) == (3, "s", "t")
    header = read_trajectory(path).header
    assert (header["task"], header["model"], header["mode"], header["seam"]) == ("mine", "another", "forget", 3)
    assert header["policy"].startswith("truncate_older_than")
    assert [edit["mode"] for turn in read_trajectory(path).turns for edit in turn["edits"]] == ["forget"]
