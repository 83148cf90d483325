import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leyline.backends.mock import MockBackend, tool_call
from leyline.evals.report import build, write_report
from leyline.evals.report.tokens import decode, tokenizer_of
from leyline.evals.report.viewer import pack, view
from leyline.evals.trials.record import TrialRecord
from leyline.harness.session.session import Session
from leyline.harness.trajectory import TrajectoryWriter, read_trajectory

Make = Callable[..., TrialRecord]
Write = Callable[..., Path]


def texts(packed: dict[str, Any]) -> list[str]:
    """The prompts, put together as the page does it."""
    held: list[int] = []
    found = []
    for turn in packed["turns"]:
        held = held[: turn["share"]] + turn["lines"]
        found.append("\n".join(packed["lines"][line] for line in held))
    return found


@pytest.fixture
def tokens_file(tmp_path: Path) -> Path:
    """A trajectory with exact tokens: an output that is cut in the third turn, with everything behind it spliced."""
    tokenizer = tokenizer_of("tiny-mla")
    assert tokenizer is not None

    def ids(text: str) -> list[int]:
        return list(tokenizer.encode(text).ids)

    head, old, rest, stub = ids("system 🙂\nrules\n"), ids("old output\n" * 30), ids("the rest\n"), ids("[cut]\n")
    prompts = [head, head + old + rest, head + stub + rest + ids("new\n")]
    cut = {"start": len(head), "end": len(head) + len(old), "replacement": stub, "mode": "amortize"}
    moved = len(head) + len(stub)
    receipts = [
        (0, []),
        (len(head), []),
        (len(head), [{"start": moved, "end": moved + len(rest), "delta": len(stub) - len(old), "seconds": 0.0}]),
    ]
    path = tmp_path / "run" / "trajectories" / "keep_all" / "task-000.jsonl"
    path.parent.mkdir(parents=True)
    events: list[dict[str, Any]] = [{"type": "header", "format": "leyline-trajectory/1", "model": "tiny-mla"}]
    for number, (prompt, (prefix, splices)) in enumerate(zip(prompts, receipts, strict=True)):
        spliced = sum(s["end"] - s["start"] for s in splices)
        counts = {"prompt_tokens": len(prompt), "prefix_tokens": prefix, "spliced_tokens": spliced}
        counts["prefilled_tokens"] = len(prompt) - prefix - spliced
        events.append(
            {
                "type": "turn",
                "turn": number,
                "messages_added": [],
                "edits": [{"message_index": 1}] if number == 2 else [],
                "input": {"messages": [], "ids": prompt},
                "directives": [cut] if number == 2 else [],
                "receipt": {
                    **counts,
                    "splices": splices,
                    "approximate_from": moved if number == 2 else None,
                    "fallback": None,
                },
                "output": {"role": "assistant", "content": f"answer {number} </script>"},
                "timings": {"ttft": 0.25},
            }
        )
        events.append({"type": "tool", "turn": number, "name": "view", "output": "seen"})
    events.append({"type": "end", "outcome": "solved", "reason": ""})
    path.write_text("".join(json.dumps(event) + "\n" for event in events))
    return path


def test_the_exact_input_comes_back_from_the_packed_form(tokens_file: Path) -> None:
    tokenizer = tokenizer_of("tiny-mla")
    assert tokenizer is not None
    packed = json.loads(pack(read_trajectory(tokens_file), tokenizer))
    turns = read_trajectory(tokens_file).turns
    assert texts(packed) == [decode(tokenizer, turn["input"]["ids"]) for turn in turns]
    assert len(packed["lines"]) < 12  # thirty equal lines are one
    for turn, text in zip(packed["turns"], texts(packed), strict=True):
        assert sum(length for length, _, _ in turn["runs"]) == len(text.encode("utf-16-le")) // 2
    last = packed["turns"][2]
    kinds = [(state, mark) for _, state, mark in last["runs"]]
    assert kinds == [(0, -1), (2, 0), (1, -1), (2, -1)]
    [[made, mode, removed, text]] = last["marks"]
    assert (made, mode, text) == (2, "amortize", "old output\n" * 30)
    assert removed > 30
    assert packed["ended"] == "solved"


def test_without_a_tokenizer_the_messages_are_shown(tmp_path: Path) -> None:
    backend = MockBackend([tool_call("view", path="a.py"), tool_call("view", path="b.py"), "Done."])
    session = Session(backend, policy="truncate_older_than(n=1, max_chars=40)")
    history: list[dict[str, Any]] = [{"role": "user", "content": "Fix a.py."}]
    with TrajectoryWriter(tmp_path / "t.jsonl", model="m") as writer:
        seen = 0
        for _ in range(3):
            turn = session.turn(history)
            writer.turn(turn, history[seen:])
            history.append(turn.message)
            seen = len(history)
            for call in turn.message.get("tool_calls") or []:
                history.append({"role": "tool", "tool_call_id": call["id"], "content": "a long output\n" * 30})
        writer.end("solved")
    packed = json.loads(pack(read_trajectory(tmp_path / "t.jsonl"), None))
    last = packed["turns"][-1]
    assert not last["exact"]
    assert [mark[0] for mark in last["marks"]] == [2]
    assert {state for _, state, _ in last["runs"]} == {3}
    assert "characters removed" in texts(packed)[-1]
    assert "[user]\nFix a.py." in texts(packed)[0]
    marked = [run for run in last["runs"] if run[2] == 0]
    assert len(marked) == 1


def test_unequal_tasks_come_first_and_bad_files_are_named(
    tmp_path: Path, trial: Make, write_run: Write, tokens_file: Path
) -> None:
    rng = random.Random(1)
    good = "trajectories/keep_all/task-000.jsonl"
    records = [
        trial("keep_all", 0, 0, rng, outcome="failed", trajectory=good),
        trial("truncate", 0, 0, rng, outcome="failed", trajectory="trajectories/gone.jsonl"),
        trial("keep_all", 1, 0, rng, outcome="failed", trajectory=good),
        trial("truncate", 1, 0, rng, outcome="solved", trajectory="trajectories/odd.jsonl"),
        trial("keep_all", 2, 0, rng),
    ]
    run = write_run(tmp_path / "run", records)
    odd = '{"type": "header", "format": "leyline-trajectory/1"}\n{"type": "turn", "turn": 0}\n'
    (run / "trajectories" / "odd.jsonl").write_text(odd)
    viewer = view(build([run]), 10)
    assert viewer.recorded == 4
    assert [(entry["task"], entry["arm"]) for entry in viewer.entries] == [
        ("micro/task-001", "keep_all"),
        ("micro/task-000", "keep_all"),
    ]
    assert [entry["edit"] for entry in viewer.entries] == [2, 2]  # the third turn has the first edit
    assert len(viewer.unreadable) == 2
    assert "odd.jsonl: KeyError" in viewer.unreadable[0]
    assert "gone.jsonl" in viewer.unreadable[1]
    assert len(view(build([run]), 1).packed) == 1
    page = write_report([run], tmp_path / "out").html.read_text()
    assert "answer 0 \\u003c/script>" in page
    assert "2 could not be read" in page
    assert "The page holds 2 of 4" in page
