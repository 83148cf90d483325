import codecs
import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from leyline.backends.mock import MockBackend
from leyline.directives import Message
from leyline.evals.replay.traces import TraceError, load_trajectories, pick_trajectory, trace_files
from leyline.evals.trials.turns import answer_places
from leyline.harness.session.session import Session
from leyline.harness.trajectory import TrajectoryWriter

TALK: list[Message] = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "go"},
    {"role": "assistant", "content": "ls"},
    {"role": "user", "content": "a.py"},
]


def write(path: Path, data: Any, **options: Any) -> Path:
    path.write_text(json.dumps(data, **options), encoding="utf-8")
    return path


@pytest.mark.parametrize("packed", [False, True])
def test_one_object_or_list_a_line(tmp_path: Path, packed: bool) -> None:
    lines = [{"instance_id": "one", "exit_status": "Submitted", "messages": TALK, "cost": 3}, TALK]
    text = "\n".join(json.dumps(line) for line in lines) + "\n\n"
    path = tmp_path / "t.jsonl"
    path.write_bytes(gzip.compress(text.encode()) if packed else text.encode())
    first, second = load_trajectories(path)
    assert (first.id, first.exit_status, first.messages, first.meta["cost"]) == ("one", "Submitted", TALK, 3)
    assert (second.id, second.exit_status, second.messages) == ("line 2", None, TALK)


@pytest.mark.parametrize("indent", [None, 2])
def test_mini_swe_agent_saves_one_object_named_by_its_file(tmp_path: Path, indent: int | None) -> None:
    data = {"info": {"exit_status": "Submitted"}, "messages": TALK, "trajectory_format": "mini-swe-agent-1"}
    (found,) = load_trajectories(write(tmp_path / "django__django-1.traj.json", data, indent=indent))
    assert (found.id, found.exit_status, found.messages) == ("django__django-1", "Submitted", TALK)


@pytest.mark.parametrize("indent", [None, 2])
def test_plain_lists(tmp_path: Path, indent: int | None) -> None:
    (alone,) = load_trajectories(write(tmp_path / "chat.json", TALK, indent=indent))
    assert (alone.id, alone.messages) == ("chat", TALK)
    several = load_trajectories(write(tmp_path / "chats.json", [{"id": 7, "messages": TALK}, TALK], indent=indent))
    assert [t.id for t in several] == ["7", "item 1"]


def test_swe_agent_history_becomes_chat_messages(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "bash", "arguments": '{"command": "ls"}'}}
    history = [
        {"role": "system", "content": "s", "agent": "main", "message_type": "system_prompt"},
        {"role": "user", "content": [{"type": "text", "text": "go"}], "agent": "main", "tags": []},
        {"role": "assistant", "content": "look", "thought": "look", "action": "ls", "tool_calls": [call]},
        {"role": "tool", "content": "a.py", "tool_call_ids": ["c1"], "message_type": "observation"},
    ]
    data = {"trajectory": [{"action": "ls"}], "history": history, "info": {"exit_status": "submitted"}}
    (found,) = load_trajectories(write(tmp_path / "x__y-2.traj", data, indent=1))
    assert (found.id, found.exit_status) == ("x__y-2", "submitted")
    assert found.messages == [
        {"role": "system", "content": "s"},
        {"role": "user", "content": [{"type": "text", "text": "go"}]},
        {"role": "assistant", "content": "look", "tool_calls": [call]},
        {"role": "tool", "content": "a.py", "tool_call_id": "c1"},
    ]
    assert "history" not in found.meta


def test_our_own_format(tmp_path: Path) -> None:
    with TrajectoryWriter(tmp_path / "r.jsonl", task="micro-1") as writer:
        session = Session(MockBackend(["ls", "done"]), "keep_all")
        first = session.turn(TALK[:2])
        writer.turn(first, TALK[:2])
        writer.tool(0, "", None, "a.py", 0.1)
        second = session.turn([*TALK[:2], first.message, TALK[3]])
        writer.turn(second, TALK[3:])
        writer.end("solved")
    (found,) = load_trajectories(tmp_path / "r.jsonl")
    assert (found.id, found.exit_status) == ("micro-1", "solved")
    assert [m["content"] for m in found.messages] == ["be brief", "go", "ls", "a.py", "done"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["t.jsonl", "t.json"])
def test_a_byte_order_mark_is_passed_over(tmp_path: Path, name: str, packed: bool) -> None:
    text = json.dumps({"messages": TALK}, indent=None if name == "t.jsonl" else 2) + "\n"
    data = codecs.BOM_UTF8 + text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
    (found,) = load_trajectories(tmp_path / name)
    assert (found.id, found.messages) == ("t", TALK)


def test_a_byte_order_mark_before_our_own_format(tmp_path: Path) -> None:
    with TrajectoryWriter(tmp_path / "r.jsonl", task="micro-1") as writer:
        writer.turn(Session(MockBackend(["ls"]), "keep_all").turn(TALK[:2]), TALK[:2])
    (tmp_path / "r.jsonl").write_bytes(codecs.BOM_UTF8 + (tmp_path / "r.jsonl").read_bytes())
    (found,) = load_trajectories(tmp_path / "r.jsonl")
    assert (found.id, [m["content"] for m in found.messages]) == ("micro-1", ["be brief", "go", "ls"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("\n \n", "empty"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "no messages"),
        ('{"messages": 3}', "no messages"),
        ('{"messages": [{"role": "user"}, {"content": "x"}]}', "message 1"),
        ('{"messages": []}\nnonsense', "line 2"),
        ('{"type": "header", "format": "leyline-trajectory/9"}', "leyline-trajectory/9"),
        ("\x1f\x8bnot gzip", "damaged gzip"),
    ],
)
def test_what_is_no_trajectory_is_named(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(TraceError, match=said):
        load_trajectories(path)


def test_a_binary_file_and_a_missing_one(tmp_path: Path) -> None:
    path = tmp_path / "bin"
    path.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(TraceError, match="UTF-8"):
        load_trajectories(path)
    with pytest.raises(TraceError, match="No such file"):
        load_trajectories(tmp_path / "none")


def test_picking(tmp_path: Path) -> None:
    path = write(tmp_path / "t.json", [{"id": name, "messages": TALK} for name in "abc"])
    assert pick_trajectory(path).id == "a"
    assert pick_trajectory(path, index=2).id == "c"
    assert pick_trajectory(path, id="b").id == "b"
    with pytest.raises(TraceError, match="from 0 to 2"):
        pick_trajectory(path, index=3)
    with pytest.raises(TraceError, match="it has a, b, c"):
        pick_trajectory(path, id="z")
    with pytest.raises(TraceError, match=r"holds 1 trajectory; its index is 0$"):
        pick_trajectory(write(tmp_path / "one.json", TALK), index=1)


def test_folders_are_searched_for_the_known_forms(tmp_path: Path) -> None:
    for name in ("b/x.traj", "a/y.traj.json", "c.jsonl", "notes.md", "preds.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, TALK)
    assert {f.name for f in trace_files([tmp_path])} == {"x.traj", "y.traj.json", "c.jsonl"}
    (tmp_path / "empty").mkdir()
    with pytest.raises(TraceError, match="no trajectory file"):
        trace_files([tmp_path / "empty"])
    with pytest.raises(TraceError, match="there is no"):
        trace_files([tmp_path / "missing"])


def test_a_turn_is_an_answer_that_has_a_prompt() -> None:
    assert answer_places(TALK) == [2]
    assert answer_places([{"role": "assistant", "content": "hi"}, *TALK]) == [3]
    assert answer_places([]) == []


CALL = {"id": "1", "type": "function", "function": {"name": "bash", "arguments": "{}"}}
SAID = {"role": "assistant", "content": None, "tool_calls": [CALL]}
ANSWERED = [{"role": "tool", "tool_call_id": "1", "content": "x" * 900}, {"role": "assistant", "content": "Done."}]
TASK = {"role": "user", "content": "Fix it."}


def saved(tmp_path: Path, messages: Any) -> Path:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"messages": messages}))
    return path


@pytest.mark.parametrize("given", [json.dumps([CALL]), json.dumps(CALL), {"0": CALL}, CALL, [CALL]])
def test_calls_that_an_export_kept_in_another_form_are_calls(tmp_path: Path, given: Any) -> None:
    read = load_trajectories(saved(tmp_path, [TASK, {**SAID, "tool_calls": given}, *ANSWERED]))[0]
    assert read.messages == [TASK, SAID, *ANSWERED]


@pytest.mark.parametrize("given", [None, "", " "])
def test_no_calls_are_no_calls(tmp_path: Path, given: Any) -> None:
    said = {"role": "assistant", "content": "hm", "tool_calls": given}
    assert "tool_calls" not in load_trajectories(saved(tmp_path, [TASK, said]))[0].messages[1]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("oops", "message 1 has tool_calls that are a str"),
        (5, "message 1 has tool_calls that are a int"),
        ([1], "message 1 has a int as tool call 0"),
        ([[CALL]], "message 1 has a list as tool call 0"),
        ({"0": "ls"}, "message 1 has a str as tool call 0"),
    ],
)
def test_calls_that_are_none_name_their_message(tmp_path: Path, given: Any, said: str) -> None:
    with pytest.raises(TraceError, match=said) as caught:
        load_trajectories(saved(tmp_path, [TASK, {**SAID, "tool_calls": given}, *ANSWERED]))
    assert "\n" not in str(caught.value)


def test_blocks_and_items_of_other_apis_are_read(tmp_path: Path) -> None:
    output = "x" * 900
    blocks = [
        TASK,
        {"role": "assistant", "content": [{"type": "tool_use", "id": "1", "name": "bash", "input": {}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": output}]},
        {"role": "assistant", "content": "Done."},
    ]
    items = [
        TASK,
        {"type": "function_call", "call_id": "1", "name": "bash", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": output},
        {"role": "assistant", "content": "Done."},
    ]
    for given in (blocks, items):
        read = load_trajectories(saved(tmp_path, given))[0]
        assert [m["role"] for m in read.messages] == ["user", "assistant", "tool", "assistant"]
        assert read.messages[2]["content"] == output


def test_a_form_that_is_not_read_is_named(tmp_path: Path) -> None:
    for given in ([{"role": "user", "content": [{"toolResult": {}}]}], [{"role": "user", "parts": [{"text": "hi"}]}]):
        with pytest.raises(TraceError, match=r"Bedrock|Gemini|not a chat message"):
            load_trajectories(saved(tmp_path, given))


def test_a_name_that_no_file_can_hold_is_one_that_can(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text(json.dumps({"messages": [TASK, SAID, *ANSWERED], "id": "caf\udce9"}))
    assert load_trajectories(path)[0].id == "caf?"
