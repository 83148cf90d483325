import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from leyline.evals.report import ReportError
from leyline.evals.report.sources import gather
from leyline.evals.trials.record import TrialOutcome, TrialRecord

Make = Callable[..., TrialRecord]
Write = Callable[..., Path]


def trials(trial: Make, arms: list[str], tasks: range, seed: int = 0, **fields: object) -> list[TrialRecord]:
    rng = random.Random(f"{arms}{tasks}{seed}")
    return [trial(arm, task, seed, rng, **fields) for task in tasks for arm in arms]


def test_parts_of_a_run_are_one_arm(tmp_path: Path, trial: Make, write_run: Write) -> None:
    write_run(tmp_path / "a", trials(trial, ["keep_all"], range(3)))
    write_run(tmp_path / "b", trials(trial, ["keep_all"], range(3, 8)))
    data = gather([tmp_path / "a", tmp_path / "b"])
    assert [(arm.label, len(arm.trials)) for arm in data.arms] == [("keep_all", 8)]


def test_runs_of_the_same_trials_are_compared(tmp_path: Path, trial: Make, write_run: Write) -> None:
    write_run(tmp_path / "x" / "run", trials(trial, ["keep_all"], range(3)))
    write_run(
        tmp_path / "y" / "run", [r.model_copy(update={"wall_s": 7.0}) for r in trials(trial, ["keep_all"], range(3))]
    )
    data = gather([tmp_path / "x" / "run", tmp_path / "y" / "run"])
    assert [arm.label for arm in data.arms] == ["keep_all @ x/run", "keep_all @ y/run"]
    assert data.lines.counted == 6


def test_an_arm_that_means_two_things_is_two_arms(tmp_path: Path, trial: Make, write_run: Write) -> None:
    write_run(tmp_path / "a", trials(trial, ["truncate"], range(3)))
    write_run(tmp_path / "b", trials(trial, ["truncate"], range(3, 6), model="other"))
    data = gather([tmp_path / "a", tmp_path / "b"])
    assert [arm.label for arm in data.arms] == ["truncate @ a", "truncate @ b"]


def test_a_copied_run_counts_once(tmp_path: Path, trial: Make, write_run: Write) -> None:
    write_run(tmp_path / "a", trials(trial, ["keep_all"], range(3)))
    write_run(tmp_path / "b", trials(trial, ["keep_all"], range(3)))
    data = gather([tmp_path / "a", tmp_path / "b"])
    assert [(arm.label, len(arm.trials)) for arm in data.arms] == [("keep_all", 3)]
    assert (data.lines.total, data.lines.counted, data.lines.duplicates) == (6, 3, 3)


def test_suites_are_kept_apart(tmp_path: Path, trial: Make, write_run: Write) -> None:
    records = trials(trial, ["keep_all"], range(2)) + trials(trial, ["keep_all"], range(2), suite="swebench")
    data = gather([write_run(tmp_path / "a", records)])
    assert [arm.label for arm in data.arms] == ["keep_all [micro]", "keep_all [swebench]"]


def test_every_line_is_accounted_for(tmp_path: Path, trial: Make, write_run: Write) -> None:
    records = trials(trial, ["keep_all"], range(4))
    again = records[0].model_copy(update={"attempt": 1})
    newer = records[1].model_copy(update={"digest": "newer", "started": records[1].started + 5})
    lines = [again, again, newer]
    tail = "".join(r.model_dump_json() + "\n" for r in lines) + "{}\n\xff\n\n{"
    data = gather([write_run(tmp_path, records, tail.encode("latin-1"))])
    account = data.lines
    assert account.total == 4 + 3 + 2
    assert (account.counted, account.superseded, account.duplicates, account.outdated) == (4, 1, 1, 1)
    assert (account.broken, account.torn) == (2, 1)
    assert len(data.runs[0].problems) == 3
    kept = {t.record.task: t.record for t in data.arms[0].trials}
    assert kept["task-000"].attempt == 1
    assert kept["task-001"].digest == "newer"


def test_interrupted_and_missing_trials(tmp_path: Path, trial: Make, write_run: Write) -> None:
    records = [
        r.model_copy(update={"trajectory": f"trajectories/keep_all/{r.task}.jsonl"})
        for r in trials(trial, ["keep_all"], range(2))
    ]
    write_run(tmp_path, records)
    for name in ("task-000", "task-001", "task-002"):
        file = tmp_path / "trajectories" / "keep_all" / f"{name}.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    asked = {"arms": [{"name": "truncate"}, {"name": "keep_all"}], "seeds": [0]}
    (tmp_path / "config.json").write_text(json.dumps({"config": asked, "tasks": ["task-000", "task-001", "task-002"]}))
    run = gather([tmp_path]).runs[0]
    assert run.lines.interrupted == 1
    assert run.missing == 4


@pytest.mark.parametrize(
    "config", ["", "[]", '{"config": 3}', '{"tasks": [{}], "config": {"seeds": [[]], "arms": [3]}}']
)
def test_a_damaged_config_costs_only_what_it_would_tell(
    tmp_path: Path, trial: Make, write_run: Write, config: str
) -> None:
    write_run(tmp_path, trials(trial, ["keep_all"], range(2)))
    (tmp_path / "config.json").write_text(config)
    data = gather([tmp_path])
    assert data.runs[0].missing is None
    assert len(data.arms[0].trials) == 2


def test_arms_come_in_the_order_of_the_configuration(tmp_path: Path, trial: Make, write_run: Write) -> None:
    write_run(tmp_path, trials(trial, ["truncate", "keep_all"], range(2)))
    asked = {"arms": [{"name": "keep_all"}, {"name": "truncate"}], "seeds": [0]}
    (tmp_path / "config.json").write_text(json.dumps({"config": asked, "tasks": ["task-000", "task-001"]}))
    assert [arm.label for arm in gather([tmp_path]).arms] == ["keep_all", "truncate"]


def test_what_is_no_run_directory_is_named(tmp_path: Path, trial: Make, write_run: Write) -> None:
    run = write_run(tmp_path / "runs" / "one", trials(trial, ["keep_all"], range(1)))
    with pytest.raises(ReportError, match="does not exist"):
        gather([tmp_path / "nope"])
    with pytest.raises(ReportError, match=r"but these do: .*runs/one"):
        gather([tmp_path / "runs"])
    with pytest.raises(ReportError, match="no run directory"):
        gather([tmp_path])
    with pytest.raises(ReportError, match="named twice"):
        gather([run, run / ".." / "one"])
    with pytest.raises(ReportError, match="at least one"):
        gather([])
    assert gather([run / "records.jsonl"]).arms[0].trials[0].record.outcome in TrialOutcome
