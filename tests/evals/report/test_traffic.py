"""A page of a harness's own traffic, beside that of an eval."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from leyline.evals.report import build, write_report
from leyline.evals.trials.record import TrialRecord
from leyline.harness import Editor

CUT = "truncate_older_than(n=0, max_chars=40)"


def traffic(file: Path) -> None:
    """Two conversations under each of two policies; a file is read again after it was cut."""
    for policy in (CUT, "keep_all"):
        editor = Editor(policy, records=file)
        for task in range(2):
            history: list[dict[str, object]] = [{"role": "user", "content": f"Fix bug {task}."}]
            for number in range(4):
                usage = {"prompt_tokens": 1000, "prompt_tokens_details": {"cached_tokens": 250}}
                editor.plan(history).served({"usage": usage})
                call = {
                    "id": f"c{number}",
                    "function": {"name": "view", "arguments": f'{{"path": "{"ab"[number % 2]}.py"}}'},
                }
                history += [
                    {"role": "assistant", "content": None, "tool_calls": [call]},
                    {"role": "tool", "tool_call_id": f"c{number}", "content": "text " * 100},
                ]


def test_a_file_of_traffic_gives_the_page_of_an_eval(tmp_path: Path) -> None:
    traffic(tmp_path / "week" / "traffic.jsonl")
    written = write_report([tmp_path / "week"], tmp_path / "page")
    report = written.report
    cut, kept = report.arms
    assert (cut.trials, cut.turns, cut.tokens.prompt, cut.tokens.prefix) == (2, 8, 8000, 2000)
    assert cut.hit_rate is not None
    assert cut.hit_rate.estimate == 0.25
    assert cut.solve_rate is None
    assert cut.tokens.shed > 0 == kept.tokens.shed
    assert any("read again" in note for note in report.notes)
    assert any("estimated from characters" in note for note in report.notes)
    for text in (written.markdown.read_text(), written.html.read_text()):
        assert "What the requests met" in text
        assert "policy 4" in text
    assert report.lines.counted == 16
    assert report.lines.superseded == 16
    assert build([tmp_path / "week" / "traffic.jsonl"]).lines == report.lines


def test_traffic_stands_beside_an_eval(
    tmp_path: Path, trial: Callable[..., TrialRecord], write_run: Callable[..., Path]
) -> None:
    import random

    traffic(tmp_path / "week" / "traffic.jsonl")
    run = write_run(tmp_path / "run", [trial("keep_all", task, 0, random.Random(task)) for task in range(3)])
    report = build([run, tmp_path / "week"])
    assert [arm.label for arm in report.arms] == [
        *("keep_all [micro] @ run", f"{CUT} [traffic]", "keep_all [traffic] @ week")
    ]
