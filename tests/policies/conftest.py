"""Small histories in the two dialects: native tool calls, and shell commands in text."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

Message = dict[str, object]
SHARED_TRACES = Path(__file__).resolve().parents[2].parent / "shared" / "traces" / "swebench-verified-60.jsonl.gz"


class Native:
    """Builds a history of native tool calls."""

    def __init__(self) -> None:
        self.messages: list[Message] = [
            {"role": "system", "content": "You are a debugging agent."},
            {"role": "user", "content": "Fix m.py. The key is sk-abc123."},
        ]

    def step(self, *made: tuple[str, dict[str, object], object]) -> Native:
        """One assistant message with these (tool, arguments, output) calls, and its results."""
        start = len(self.messages)
        ids = [f"call_{start}_{k}" for k in range(len(made))]
        calls = [
            {"id": i, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for i, (name, arguments, _) in zip(ids, made, strict=True)
        ]
        self.messages.append({"role": "assistant", "content": "", "tool_calls": calls})
        for i, (_, _, output) in zip(ids, made, strict=True):
            self.messages.append({"role": "tool", "tool_call_id": i, "content": output})
        return self


class Text:
    """Builds a text-only history, as mini-swe-agent writes it."""

    def __init__(self) -> None:
        self.messages: list[Message] = [
            {"role": "system", "content": "Answer with one bash block."},
            {"role": "user", "content": "Fix m.py. The key is sk-abc123."},
        ]

    def step(self, command: str, output: str, code: int = 0) -> Text:
        self.messages.append({"role": "assistant", "content": f"THOUGHT: next.\n\n```bash\n{command}\n```"})
        self.messages.append(
            {"role": "user", "content": f"<returncode>{code}</returncode>\n<output>\n{output}\n</output>"}
        )
        return self


def lines(count: int, word: str = "line") -> str:
    return "\n".join(f"{k}|{word} {k} of the file" for k in range(1, count + 1))


def native_history() -> list[Message]:
    history = Native()
    history.step(("eval", {}, "1 failed\n" + lines(20, "E")))
    history.step(("view", {"path": "n.py", "start": 1, "end": 9}, "Error: no file n.py"))
    history.step(("view", {"path": "m.py", "start": 1, "end": 40}, lines(40)))
    history.step(("view", {"path": "m.py", "start": 10, "end": 20}, lines(11)))
    history.step(("grep", {"pattern": "sk-abc123"}, "m.py:3:key = 'sk-abc123'\n" * 9))
    history.step(("grep", {"pattern": "sk-abc123"}, "m.py:3:key = 'sk-abc123'\n" * 9))
    history.step(("edit", {"path": "m.py", "line": 3, "new_code": "key = 'sk-abc123'"}, "Edited m.py\n" + lines(5)))
    history.step(
        ("view", {"path": "m.py", "start": 1, "end": 40}, lines(40)), ("eval", {}, "1 failed\n" + lines(20, "E"))
    )
    history.step(("eval", {}, "all passed\n" + lines(9)))
    return history.messages


def text_history() -> list[Message]:
    history = Text()
    history.step("nl -ba m.py | sed -n '1,40p'", lines(40))
    history.step("sed -n '10,20p' m.py", lines(11))
    history.step("cat n.py", "cat: n.py: No such file or directory", 1)
    history.step("cat o.py", lines(30, "other"))
    history.step("grep -n key m.py", "3: key = 'sk-abc123'\n" * 9)
    history.step("grep -n key m.py", "3: key = 'sk-abc123'\n" * 9)
    history.step("pytest tests/test_m.py", "1 failed\n" + lines(20, "E"), 1)
    history.step("sed -i '3s/old/new/' m.py", "")
    history.step("pytest tests/test_m.py", "1 passed\n" + lines(9))
    history.step("cat o.py", lines(30, "other"))
    return history.messages


def written_history() -> list[Message]:
    """Calls written into the text, results of role tool without ids: what the bundled tiny agent reads."""
    messages: list[Message] = [
        {"role": "system", "content": "Tools."},
        {"role": "user", "content": "Fix it. sk-abc123"},
    ]
    steps = [
        ("eval", {}, "1 failed\n" + lines(20, "E")),
        ("view", {"path": "m.py", "start": 1, "end": 40}, lines(40)),
        ("edit", {"path": "m.py", "line": 99, "new_code": "x"}, "Error: m.py has 40 lines"),
        ("edit", {"path": "m.py", "line": 3, "new_code": "x"}, "Edited m.py line 3 (40 lines now)\n" + lines(5)),
        ("eval", {}, "1 passed\n" + lines(20, "E")),
    ]
    for name, arguments, output in steps:
        call = json.dumps({"name": name, "arguments": arguments})
        messages.append({"role": "assistant", "content": f"Next.\n<tool_call>\n{call}\n</tool_call>"})
        messages.append({"role": "tool", "content": output})
    return messages


def image_history() -> list[Message]:
    """Outputs of several text parts and images, some the same but for the image."""
    history = Native()
    for data in "ABA":
        image = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}
        history.step(("view", {"path": "m.png"}, [{"type": "text", "text": lines(9)}, image]))
        history.step(("view", {"path": "m.py"}, [{"type": "text", "text": lines(9)}] * 2))
    return history.step(("edit", {"path": "m.png"}, [image])).messages


HISTORIES = {
    "native": native_history,
    "text": text_history,
    "written": written_history,
    "empty": list,
    "task only": lambda: native_history()[:2],
    "call running": lambda: native_history()[:3],
    "chat": lambda: [
        {"role": "user", "content": "hello " * 100},
        {"role": "assistant", "content": "hi " * 100},
        {"role": "user", "content": "bye " * 100},
    ],
    "greeting": lambda: [{"role": "assistant", "content": "What shall I do? " * 9}, *text_history()[1:]],
    "images": image_history,
    "parts": lambda: [
        {
            "role": "user",
            "content": [{"type": "text", "text": "look sk-abc123"}, {"type": "image_url", "image_url": {}}],
        },
        *Native().step(("bash", {"command": "ls"}, "x" * 900)).messages[2:3],
        {"role": "tool", "tool_call_id": "call_2_0", "content": [{"type": "text", "text": "y" * 900}]},
    ],
}


@pytest.fixture(params=list(HISTORIES))
def history(request: pytest.FixtureRequest) -> list[Message]:
    return HISTORIES[request.param]()


@pytest.fixture
def dialects() -> dict[str, list[Message]]:
    return {name: build() for name, build in HISTORIES.items()}


@pytest.fixture
def native() -> type[Native]:
    return Native


@pytest.fixture
def text() -> type[Text]:
    return Text


@pytest.fixture(scope="session")
def shared_traces() -> list[list[Message]]:
    """The histories of the recorded trajectories beside the repository."""
    if not SHARED_TRACES.is_file():
        pytest.skip("the recorded trajectories beside the repository are absent")
    with gzip.open(SHARED_TRACES, "rt", encoding="utf-8") as stream:
        return [json.loads(line)["messages"] for line in stream]
