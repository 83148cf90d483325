"""Folders are read for what they hold, whatever else stands in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from leyline.backends.mock import MockBackend, tool_call
from leyline.cli import app
from leyline.evals.replay.replayed import read_records
from leyline.evals.replay.traces import TraceError, iter_trajectories, trace_files
from leyline.evals.trials.journal import Journal
from leyline.evals.trials.record import TrialOutcome, TrialRecord, TurnRecord
from leyline.harness.session.session import Session
from leyline.harness.trajectory import TrajectoryWriter

TALK = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "done"}]


def put(path: Path, *lines: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((line if isinstance(line, str) else json.dumps(line)) + "\n" for line in lines))
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """What `leyline eval` leaves: records, a configuration, and trajectories of two arms, one that never began."""
    folder = tmp_path / "runs" / "micro"
    folder.mkdir(parents=True)
    turn = TurnRecord(prompt=1, prefix=0, spliced=0, prefilled=1)
    with Journal(folder) as journal:
        values = {"suite": "s", "task": "t", "arm": "a", "seed": 0, "digest": "d"}
        journal.append(TrialRecord(**values, outcome=TrialOutcome.SOLVED, turns=(turn,)))
    put(folder / "config.json", {"format": "leyline-eval/1"})
    put(folder / "fidelity.jsonl", {"format": "leyline-fidelity/1"})
    for arm, answers in (("keep_all", 3), ("drop_stale", 2), ("broken", 0)):
        session = Session(MockBackend([tool_call("view")] * answers))
        with TrajectoryWriter(folder / "trajectories" / arm / "t-0.jsonl", task="t") as writer:
            history: list[Any] = [{"role": "user", "content": "go " * 20}]
            for _ in range(answers):
                done = session.turn(history)
                writer.turn(done, history[-1:])
                call = done.message["tool_calls"][0]
                history += [done.message, {"role": "tool", "tool_call_id": call["id"], "content": "text " * 30}]
    return tmp_path / "runs"


def test_a_folder_that_an_eval_left(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "replayed.jsonl"
    done = CliRunner().invoke(
        app, ["replay", str(runs), "--policy", "keep_all", "--cache", "radix", "--workers", "1", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    # Two arms worked on one task: their trajectories are told apart.
    assert {record.trajectory for record in read_records(out)} == {"t (keep_all/t-0.jsonl)", "t (drop_stale/t-0.jsonl)"}
    for name, why in (("records.jsonl", "records of a run"), ("broken/t-0.jsonl", "no turn"), ("fidelity", "records")):
        assert any("passed over" in line and name in line and why in line for line in done.stderr.splitlines())


def test_the_savings_of_one_trajectory_are_counted_against_its_own(runs: Path) -> None:
    args = ["replay", str(runs), "--policy", "keep_all", "--cache", "radix", "--workers", "1", "--json"]
    (row,) = json.loads(CliRunner().invoke(app, args).stdout)["rows"]
    assert (row["trajectories"], row["saved"]) == (2, 0)


@pytest.mark.parametrize(
    "other",
    [
        {"model_name_or_path": "m", "instance_id": "x", "model_patch": ""},
        {"outcome": "solved", "arm": "a", "suite": "s"},
        {"format": "leyline-replay/1"},
        {"anything": 1},
        [1, 2],
        "not JSON",
        "",
    ],
)
def test_what_is_no_trajectory_is_passed_over(tmp_path: Path, other: Any) -> None:
    put(tmp_path / "deep" / "x.traj", {"history": TALK})
    put(tmp_path / "other.jsonl", other)
    passed: list[TraceError] = []
    assert trace_files([tmp_path], passed=passed) == [tmp_path / "deep" / "x.traj"]
    assert ["other.jsonl" in str(error) for error in passed] == [True]
    with pytest.raises(TraceError):  # named itself it is not passed over
        list(iter_trajectories(tmp_path / "other.jsonl"))


def test_plain_json_is_looked_at_where_nothing_else_is(tmp_path: Path) -> None:
    put(tmp_path / "chat.json", TALK)
    put(tmp_path / "settings.json", {"a": 1})
    assert trace_files([tmp_path]) == [tmp_path / "chat.json"]
    put(tmp_path / "x.jsonl", TALK)
    assert trace_files([tmp_path]) == [tmp_path / "x.jsonl"]


def test_a_folder_without_a_trajectory_says_why(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="holds no trajectory file"):
        trace_files([tmp_path])
    put(tmp_path / "all_preds.jsonl", {"instance_id": "x", "model_patch": ""})
    with pytest.raises(TraceError, match=r"holds no trajectory: .*all_preds.jsonl.* a file of predictions"):
        trace_files([tmp_path])


def test_records_that_share_a_name_in_one_file(tmp_path: Path) -> None:
    file = put(
        tmp_path / "t.jsonl",
        {"id": "a", "messages": TALK},
        {"id": "a", "messages": TALK},
        {"id": "b", "messages": TALK},
    )
    out = tmp_path / "out.jsonl"
    args = ["replay", str(file), "--policy", "keep_all", "--cache", "radix", "--workers", "1", "--out", str(out)]
    done = CliRunner().invoke(app, args)
    assert done.exit_code == 0, done.output
    place = f"{tmp_path.name}/t.jsonl"
    assert [record.trajectory for record in read_records(out)] == [f"a ({place})", f"a ({place}) #2", "b"]
    assert CliRunner().invoke(app, [*args, "--id", "a"]).exit_code == 0
