"""What an editor leaves of its requests, and the page that is made of it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

import leyline
from leyline.evals.report.traffic import TrafficTurn, read_traffic, traffic_file
from leyline.harness import Editor
from leyline.harness.session.inputs import InputError

CUT = "truncate_older_than(n=1, max_chars=40)"
USAGE = {"usage": {"prompt_tokens": 1000, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 400}}}


def look(number: int, path: str, name: str = "view") -> list[dict[str, Any]]:
    arguments = {"path": path} if name == "view" else {"path": path, "line": 1, "new_code": "x"}
    call = {"id": f"c{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
    return [
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": f"c{number}", "content": f"{number} " + "text " * 100},
    ]


def session(editor: Editor, steps: list[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Serve a turn before each step and one at the end; the files that were read again, by turn."""
    history: list[dict[str, Any]] = [{"role": "user", "content": "Fix it."}]
    found = []
    for number, (path, name) in enumerate([*steps, ("", "")]):
        plan = editor.plan(history)
        plan.served(USAGE)
        found.append(plan.record.reread)
        history += look(number, path, name)
    return found


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("a.py", "view"), ("b.py", "view"), ("c.py", "view"), ("a.py", "view")], [(), (), (), (), ("a.py",)]),
        # It still stood there, or it was written to in between, or it was another file.
        ([("a.py", "view"), ("a.py", "view")], [(), (), ()]),
        ([("a.py", "view"), ("a.py", "edit"), ("c.py", "view"), ("a.py", "view")], [(), (), (), (), ()]),
        ([("a.py", "view"), ("b.py", "view"), ("c.py", "view"), ("d.py", "view")], [(), (), (), (), ()]),
    ],
)
def test_a_file_that_is_read_again_after_an_edit_took_it_away_is_named(
    steps: list[tuple[str, str]], expected: list[tuple[str, ...]], caplog: pytest.LogCaptureFixture
) -> None:
    editor = Editor(CUT)
    with caplog.at_level(logging.WARNING, "leyline.editor"):
        assert session(editor, steps) == expected
    again = sum(map(len, expected))
    assert editor.report().reread == again
    assert len(caplog.records) == min(1, again)
    assert ("read again after an edit" in str(editor.report())) == bool(again)


def test_an_audit_takes_nothing_away(tmp_path: Path) -> None:
    editor = Editor(CUT, audit=True, records=tmp_path / "t.jsonl")
    assert session(editor, [("a.py", "view"), ("b.py", "view"), ("c.py", "view"), ("a.py", "view")]) == [()] * 5
    turns = read_traffic(tmp_path / "t.jsonl").turns
    assert turns[-1].shed > 0
    assert {turn.full for turn in turns} == {1000}


def test_every_request_is_a_line_and_its_usage_another_that_takes_its_place(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "traffic.jsonl"
    for _ in range(2):  # a second editor, as after a restart, goes on in the same file
        editor = Editor(CUT, records=file)
        session(editor, [("a.py", "view"), ("b.py", "view"), ("c.py", "view")])
        editor.plan([{"role": "user", "content": "Another."}]).served()  # no usage
    with file.open("ab") as stream:
        stream.write(b'{"format": "leyline-traffic/1"}\nno line\n{"torn')
    read = read_traffic(file)
    assert traffic_file(tmp_path / "deep") == traffic_file(file) == file
    assert len(read.turns) == 10
    assert len(read.records) == 4
    assert (read.lines.total, read.lines.counted, read.lines.superseded, read.lines.broken, read.lines.torn) == (
        *(20, 10, 8, 2),
        1,
    )
    assert [problem.partition(":")[0] for problem in read.problems] == ["traffic.jsonl", "traffic.jsonl"]
    told = [turn for record in read.records for turn in record.turns]
    assert len(told) == 8
    assert all(turn.balanced for turn in told)
    assert {(turn.prompt, turn.prefix, turn.prefilled) for turn in told} == {(1000, 400, 600)}
    assert [turn.broke_by for turn in read.turns].count("policy") == 4
    last = next(turn for turn in read.turns if turn.turn == 3)
    assert last.full == round(1000 * (last.size + last.shed) / last.size) > 1000


def test_tokens_are_those_of_a_renderer_where_there_is_one() -> None:
    line = {"writer": "w", "number": 0, "policy": "p", "mode": "amortize", "started": 1.0, "conversation": "#1"}
    line |= {"format": "leyline-traffic/1", "turn": 3, "edits": 1, "shed": 50, "unit": "tokens", "prompt": 100}
    assert TrafficTurn.model_validate(line).full == 150


def test_records_that_cannot_be_written_are_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"wrap: cannot write records to .*give another file"):
        leyline.wrap(openai.OpenAI(api_key="x"), CUT, records=tmp_path)


def test_a_wrapped_client_and_a_transport_write_the_same_records(tmp_path: Path) -> None:
    def serve(request: httpx.Request) -> httpx.Response:
        message = {"role": "assistant", "content": "Next."}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        head = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
        return httpx.Response(200, json={**head, "choices": [choice], **USAGE})

    inner: Any = httpx.MockTransport(serve)
    over: Any = httpx.Client
    plain = openai.OpenAI(api_key="x", base_url="http://s/v1", http_client=over(transport=inner))
    wrapped = leyline.wrap(plain, CUT, records=tmp_path / "wrap.jsonl")
    way = leyline.transport(CUT, inner=inner, records=tmp_path / "transport.jsonl")
    other = openai.OpenAI(api_key="x", base_url="http://s/v1", http_client=over(transport=way))
    for client in (wrapped, other):
        history: list[Any] = [{"role": "user", "content": "Fix it."}]
        for number in range(3):
            client.chat.completions.create(model="m", messages=history)
            history += look(number, "a.py")
    one, two = (read_traffic(tmp_path / f"{name}.jsonl").turns for name in ("wrap", "transport"))
    assert len(one) == 3
    ours = {"writer", "started"}
    assert [turn.model_dump(exclude=ours) for turn in one] == [turn.model_dump(exclude=ours) for turn in two]
