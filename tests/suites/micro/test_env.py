"""The in-process environment gives the texts of the harness, word for word."""

from __future__ import annotations

from typing import Any

import pytest

from leyline.suites import micro
from leyline.suites.micro.env import MicroEnv
from leyline.suites.micro.episodes import as_task
from leyline.suites.micro.oracle import Action
from leyline.suites.micro.rollout import attempt


def odd_calls(task: micro.MicroTask) -> list[tuple[str, Any]]:
    path, test = task.modules[0], task.test_path
    return [
        ("view", {"path": path, "start": -3, "end": 10_000}),
        ("view", {"path": f"./{path}", "start": 1, "end": 3}),
        ("view", f'{{"path": "./{path}", "start": 1, "end": 3}}'),
        ("view", {"path": [path], "start": 1, "end": 3}),
        ("view", {"path": "nowhere.py", "start": 1, "end": 3}),
        ("view", {"path": "../etc/passwd", "start": 1, "end": 3}),
        ("view", {"path": "tests", "start": 1, "end": 3}),
        ("view", {"path": path, "start": "x", "end": 3}),
        ("view", {"path": path}),
        ("view", {"path": test, "start": 3, "end": 1}),
        ("grep", {"pattern": "def "}),
        ("grep", {"pattern": "no such text"}),
        ("grep", {}),
        ("edit", {"path": test, "line": 1, "new_code": "x"}),
        ("edit", {"path": path, "line": 0, "new_code": "x"}),
        ("edit", {"path": path, "line": 10_000, "new_code": "x"}),
        ("edit", {"path": f"./{path}", "line": 1, "new_code": '"""Changed."""\n# twice'}),
        ("edit", {"path": path, "line": 2, "new_code": ""}),
        ("edit", {"path": path, "line": 1, "new_code": "def broken("}),
        ("eval", {}),
        ("edit", {"path": path, "line": 1, "new_code": "import os"}),
        ("eval", {"verbose": True}),
        ("edit", {"path": path, "line": 1, "new_code": "while True: pass"}),
        ("eval", "{}"),
        ("bash", {"command": "ls"}),
        ("view", "[1]"),
        ("view", "{"),
        ("eval", "[]"),
        ("view", '"text"'),
        ("submit", {}),
    ]


@pytest.mark.parametrize(("seed", "level"), [(0, "short"), (1, "long")])
def test_texts_equal_the_harness(seed: int, level: str) -> None:
    task = micro.make_task(seed, level)
    env = MicroEnv(task)
    with as_task(task).open() as episode:
        assert env.messages == episode.messages
        for name, arguments in odd_calls(task):
            expected = episode.call(name, arguments)
            assert env.call(name, arguments) == expected.text, (name, arguments)
            assert env.done is expected.done
        assert env.files == {path: episode.workspace.read(path) for path in episode.workspace.files()}


def test_an_episode_reads_the_same_in_the_sandbox() -> None:
    run = attempt(micro.make_task(2, "long", "unseen"), mistakes=1.0)
    with as_task(run.task).open() as episode:
        assert not episode.solved()
        for message, answer in zip(run.messages, run.messages[1:], strict=False):
            if message["role"] == "assistant":
                function = message["tool_calls"][0]["function"]
                assert episode.call(function["name"], function["arguments"]).text == answer["content"]
        assert episode.solved() is run.solved


def test_changed_tests_do_not_count() -> None:
    task = micro.make_task(3)
    assert not task.solved({**task.files, task.test_path: "def test_x():\n    assert True == True\n"})
    assert task.solved({**task.files, **task.reference})


def test_an_action_reads_as_the_parser_reads_it() -> None:
    from leyline.rendering.toolcalls import parse_output

    action = Action('Say "it".', "edit", {"path": "a.py", "line": 3, "new_code": "    x = 'é\\n'\n"})
    parsed = parse_output(action.text).message()
    made = action.message("call_1")
    assert parsed["content"] == made["content"]
    assert parsed["tool_calls"][0]["function"] == made["tool_calls"][0]["function"]
