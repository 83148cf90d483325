"""Recordings of other harnesses, in the forms that those write."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from leyline.evals.replay.traces import TraceError, load_trajectories

CALL = {"id": "c1", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
READ = [
    {"role": "user", "content": "Fix it."},
    {"role": "assistant", "content": "I look.", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c1", "content": "a.py"},
    {"role": "assistant", "content": "Done."},
]


def put(path: Path, *lines: Any) -> Path:
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


def simple(messages: list[Any]) -> list[Any]:
    """Role, text, calls and results: what all forms have."""
    kept = []
    for message in messages:
        content = message.get("content")
        text = "".join(part.get("text", "") for part in content) if isinstance(content, list) else content or ""
        calls = [
            (c["id"], c["function"]["name"], json.loads(c["function"]["arguments"]))
            for c in message.get("tool_calls") or []
        ]
        kept.append((message["role"], text, calls, message.get("tool_call_id")))
    return kept


def claude(kind: str, role: str, content: Any, number: int, **more: Any) -> dict[str, Any]:
    message = {"role": role, "content": content, **({"id": more.pop("id")} if "id" in more else {})}
    return {"type": kind, "uuid": f"u{number}", "parentUuid": None, "sessionId": "s1", "message": message, **more}


USE = {"type": "tool_use", "id": "c1", "name": "bash", "input": {"command": "ls"}}
CLAUDE = [
    {"type": "summary", "summary": "Fixing", "leafUuid": "u9"},
    {"type": "file-history-snapshot", "messageId": "m", "snapshot": {}},
    claude("user", "user", "Fix it.", 1),
    claude("assistant", "assistant", [{"type": "thinking", "thinking": "Hm.", "signature": "s"}], 2, id="m1"),
    claude("assistant", "assistant", [{"type": "text", "text": "I look."}], 3, id="m1"),
    claude("assistant", "assistant", [USE], 4, id="m1"),
    claude("assistant", "assistant", [{"type": "text", "text": "aside"}], 5, id="x", isSidechain=True),
    claude("user", "user", [{"type": "tool_result", "tool_use_id": "c1", "content": "a.py"}], 6),
    {"type": "system", "subtype": "local_command", "content": "x", "uuid": "u7", "sessionId": "s1"},
    claude("assistant", "assistant", [{"type": "text", "text": "Done."}], 8, id="m2"),
]


def test_a_session_of_claude_code(tmp_path: Path) -> None:
    (found,) = load_trajectories(put(tmp_path / "5a5a.jsonl", *CLAUDE, '{"torn'))
    assert found.id == "5a5a"
    assert simple(found.messages) == simple(READ)


def test_a_compacted_session_is_two_trajectories(tmp_path: Path) -> None:
    boundary = {"type": "system", "subtype": "compact_boundary", "uuid": "u9", "sessionId": "s1"}
    after = [claude("user", "user", "This is what was done.", 10, isCompactSummary=True), CLAUDE[-1]]
    first, second = load_trajectories(put(tmp_path / "s.jsonl", *CLAUDE, boundary, *after))
    assert (first.id, second.id) == ("s", "s part 2")
    assert simple(first.messages) == simple(READ)
    assert [m["role"] for m in second.messages] == ["user", "assistant"]


def codex(kind: str, **payload: Any) -> dict[str, Any]:
    return {"timestamp": "2026-01-01T00:00:00Z", "type": kind, "payload": payload}


CODEX = [
    codex("session_meta", id="x", base_instructions={"text": "Be brief."}, cwd="/repo"),
    codex("event_msg", type="task_started"),
    codex("turn_context", model="m"),
    codex("response_item", type="message", role="user", content=[{"type": "input_text", "text": "Fix it."}]),
    codex("response_item", type="reasoning", summary=[], encrypted_content="opaque"),
    codex("response_item", type="message", role="assistant", content=[{"type": "output_text", "text": "I look."}]),
    codex("response_item", type="function_call", name="bash", arguments='{"command": "ls"}', call_id="c1"),
    codex("response_item", type="function_call_output", call_id="c1", output="a.py"),
    codex("response_item", type="ghost_snapshot", ghost_commit={}),
    codex("response_item", type="message", role="assistant", content=[{"type": "output_text", "text": "Done."}]),
]


def test_a_rollout_of_codex(tmp_path: Path) -> None:
    (found,) = load_trajectories(put(tmp_path / "rollout-2026.jsonl", *CODEX))
    assert simple(found.messages) == [("system", "Be brief.", [], None), *simple(READ)]
    compacted = codex("compacted", message="What was done.")
    first, second = load_trajectories(put(tmp_path / "rollout-2.jsonl", *CODEX, compacted, CODEX[-1]))
    assert len(first.messages) == 5
    assert [m["role"] for m in second.messages] == ["system", "user", "assistant"]


SAMPLE = {
    "id": "task-1",
    "epoch": 1,
    "messages": [
        {"role": "user", "content": "Fix it.", "source": "input"},
        {
            "role": "assistant",
            "content": [{"type": "reasoning", "reasoning": "Hm."}, {"type": "text", "text": "I look."}],
            "tool_calls": [{"id": "c1", "type": "function", "function": "bash", "arguments": {"command": "ls"}}],
        },
        {"role": "tool", "tool_call_id": "c1", "function": "bash", "content": "attachment://f00"},
        {"role": "assistant", "content": "Done."},
    ],
    "attachments": {"f00": "a.py"},
}


def test_logs_of_inspect(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "log.eval", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", "{}")
        archive.writestr("samples/task-1_epoch_1.json", json.dumps(SAMPLE))
        archive.writestr("samples/task-1_epoch_2.json", json.dumps({**SAMPLE, "epoch": 2}))
    first, second = load_trajectories(tmp_path / "log.eval")
    assert (first.id, second.id) == ("task-1", "task-1 epoch 2")
    assert simple(first.messages) == simple(second.messages) == simple(READ)
    assert first.messages[1]["reasoning_content"] == "Hm."
    for indent in (None, 2):
        log = tmp_path / "log.json"
        log.write_text(json.dumps({"version": 2, "eval": {"task": "t"}, "samples": [SAMPLE]}, indent=indent))
        (found,) = load_trajectories(log)
        assert simple(found.messages) == simple(READ)


def test_messages_of_anthropics_api_are_read_as_plain_ones(tmp_path: Path) -> None:
    native = [
        {"role": "user", "content": "Fix it."},
        {"role": "assistant", "content": [{"type": "text", "text": "I look."}, USE]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "a.py"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "Done."}]},
    ]
    for data in ({"id": "x", "messages": native}, native):
        (found,) = load_trajectories(put(tmp_path / "x.jsonl", data))
        assert simple(found.messages) == simple(READ)


OPENHANDS = [
    {"id": 0, "source": "user", "action": "message", "args": {"content": "Fix it."}},
    {"id": 1, "source": "agent", "observation": "run", "content": "a.py"},
]


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize(
    ("data", "said"),
    [
        (OPENHANDS, "trajectory of OpenHands"),
        ({"instance_id": "x", "history": OPENHANDS}, "trajectory of OpenHands"),
        ({"kind": "MessageEvent", "source": "user", "id": "1"}, "trajectory of OpenHands"),
        ({"conversations": [{"from": "human", "value": "x"}]}, "ShareGPT"),
        ({"schema_version": "ATIF-v1.4", "steps": []}, "ATIF"),
        ({"instance_id": "x", "model_patch": ""}, "a file of predictions"),
        ({"format": "leyline-replay/1"}, "leyline-replay/1"),
    ],
)
def test_what_is_not_read_is_refused_by_name(tmp_path: Path, data: Any, said: str, indent: int | None) -> None:
    file = tmp_path / "x.json"
    file.write_text(json.dumps(data, indent=indent))
    with pytest.raises(TraceError, match=said) as caught:
        load_trajectories(file)
    assert "\n" not in str(caught.value)


def test_damaged_and_empty_ones_are_said_in_one_line(tmp_path: Path) -> None:
    bad = tmp_path / "bad.eval"
    bad.write_bytes(b"PK\x03\x04nonsense")
    with pytest.raises(TraceError, match="damaged zip"):
        load_trajectories(bad)
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "x")
    with pytest.raises(TraceError, match="no log of Inspect"):
        load_trajectories(tmp_path / "other.zip")
    with pytest.raises(TraceError, match="Claude Code without an answer"):
        load_trajectories(put(tmp_path / "s.jsonl", *CLAUDE[:3]))
    with pytest.raises(TraceError, match="line 2: not JSON"):
        load_trajectories(put(tmp_path / "t.jsonl", CLAUDE[0], "torn", CLAUDE[2]))
    lost = [codex("response_item", type="message", role="assistant", content=5)]
    with pytest.raises(TraceError, match="a session of Codex"):
        load_trajectories(put(tmp_path / "u.jsonl", CODEX[0], *lost))
