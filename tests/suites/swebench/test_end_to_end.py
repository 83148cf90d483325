"""A SWE-format task from issue to verdict: a generated repository, a scripted agent, swebench's grader on the log."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from leyline.backends.mock import tool_call
from leyline.commands.eval import app
from leyline.commands.eval_progress import PlainProgress
from leyline.evals.trials import scoring as swebench_score
from leyline.evals.trials.assemble import assemble
from leyline.evals.trials.config import EvalConfig
from leyline.evals.trials.journal import load
from leyline.evals.trials.record import TrialOutcome
from leyline.evals.trials.run_eval import Summary, run_eval
from leyline.evals.trials.scoring import batches, harness_command, log_folder, score_run
from leyline.harness.trajectory import read_trajectory
from leyline.suites.suite import SuiteError
from leyline.suites.swebench import grade as swebench_grade
from leyline.suites.swebench.grade import grade
from leyline.suites.swebench.swebench_suite import SwebenchSuite

from .conftest import FIXED_LINE

pytest.importorskip("swebench", reason="grading needs swebench")

SOLVES = [
    tool_call("bash", command="python -m pytest -q -p no:cacheprovider tests; git log --oneline | wc -l"),
    tool_call("edit", path="stats.py", line=3, new_code=FIXED_LINE),
    tool_call("submit"),
]
GIVES_UP = [tool_call("view", path="stats.py", start=1, end=4), tool_call("submit")]
BREAKS = [tool_call("edit", path="stats.py", line=4, new_code="    return None"), tool_call("submit")]


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    for name, script in (("solves", SOLVES), ("gives_up", GIVES_UP), ("breaks", BREAKS)):
        (tmp_path / f"{name}.json").write_text(json.dumps(script))
    return tmp_path


def run(rows: Path, repos: Path, scripts: Path, score: str, *names: str) -> tuple[EvalConfig, Summary]:
    config = assemble(
        "swebench",
        {"workers": 0},
        arms=[f"{name}=keep_all,options.script={scripts / name}.json" for name in names],
        arm_fields={"backend": "mock"},
        options=[f"dataset={rows}", f"repos={repos}", "environment=checkout", f"score={score}"],
    )
    return config, run_eval(config, scripts / "run", PlainProgress(quiet=True))


def test_from_issue_to_verdict(rows_file: Path, repositories: Path, scripts: Path) -> None:
    _, summary = run(rows_file, repositories, scripts, "here", "solves", "gives_up", "breaks")
    assert "swebench: 1 of 3 patches resolve their issue" in summary.notes
    found = {record.arm: record for record in summary.records}
    assert {name: record.outcome for name, record in found.items()} == {
        "solves": TrialOutcome.SOLVED,
        "gives_up": TrialOutcome.FAILED,
        "breaks": TrialOutcome.FAILED,
    }
    assert found["gives_up"].detail == "not resolved: the patch is empty"
    assert found["breaks"].detail == "not resolved: FAIL_TO_PASS 0/1, PASS_TO_PASS 0/1"
    assert {record.attempt for record in summary.records} == {1}
    directory = scripts / "run"
    log = (log_folder(directory, "solves", "acme__stats-1") / "test_output.txt").read_text()
    assert "PASSED tests/test_stats.py::test_unsorted" in log
    predictions = json.loads((directory / "swebench" / "solves" / "preds.json").read_text())
    prediction = predictions["acme__stats-1"]
    assert set(prediction) == {"instance_id", "model_patch", "model_name_or_path"}
    assert f"+{FIXED_LINE}\n" in prediction["model_patch"]
    assert "tests/" not in prediction["model_patch"]

    trajectory = read_trajectory(directory / found["solves"].trajectory)  # type: ignore[arg-type]
    request, shown = trajectory.turns[0]["input"]["messages"][1]["content"], trajectory.turns[0]["tool"]["output"]
    assert "It should sort first." in request
    assert shown.strip().endswith("1")  # one commit: the fix is not in the history
    assert "1 passed" in shown  # the failing test is not in the checkout

    suite = SwebenchSuite(str(rows_file), repos=str(repositories), environment="checkout")
    assert "no patch waits for a verdict" in score_run(directory, suite, how="here")
    assert len(load(directory).records) == 3


def test_stored_logs_are_graded_without_docker(rows_file: Path, repositories: Path, scripts: Path) -> None:
    _, summary = run(rows_file, repositories, scripts, "none", "solves", "breaks")
    logs = scripts / "logs"
    for name, status in (("solves", "PASSED"), ("breaks", "FAILED")):
        folder = logs / name / "acme__stats-1"
        folder.mkdir(parents=True)
        (folder / "test_output.txt").write_text(
            "+ : '>>>>> Start Test Output'\n"
            f"{status} tests/test_stats.py::test_unsorted\nPASSED tests/test_stats.py::test_odd\n"
            "+ : '>>>>> End Test Output'\n"
        )
    suite = SwebenchSuite(str(rows_file), repos=str(repositories), environment="checkout", score="none")
    assert "swebench: 1 of 2 patches resolve their issue" in score_run(summary.directory, suite, how="logs", logs=logs)
    outcomes = {record.arm: record.outcome for record in load(summary.directory).records}
    assert outcomes == {"solves": TrialOutcome.SOLVED, "breaks": TrialOutcome.FAILED}


def test_two_logs_of_one_instance_are_not_guessed_at(rows_file: Path, repositories: Path, scripts: Path) -> None:
    _, summary = run(rows_file, repositories, scripts, "none", "solves")
    for name in ("a", "b"):
        (scripts / "logs" / name / "acme__stats-1").mkdir(parents=True)
        (scripts / "logs" / name / "acme__stats-1" / "test_output.txt").write_text("")
    suite = SwebenchSuite(str(rows_file), repos=str(repositories), environment="checkout")
    with pytest.raises(SuiteError, match="2 logs below"):
        score_run(summary.directory, suite, how="logs", logs=scripts / "logs")
    assert load(summary.directory).records[0].outcome is TrialOutcome.UNSCORED


def test_a_patch_at_the_limit_counts_when_it_resolves(rows_file: Path, repositories: Path, scripts: Path) -> None:
    (scripts / "late.json").write_text(json.dumps([*SOLVES[1:2], tool_call("view", path="stats.py", start=1, end=2)]))
    config = assemble(
        "swebench",
        {"workers": 0, "limits.turns": 3},
        arms=[f"late=keep_all,options.script={scripts / 'late.json'}"],
        arm_fields={"backend": "mock"},
        options=[f"dataset={rows_file}", f"repos={repositories}", "environment=checkout", "score=here"],
    )
    summary = run_eval(config, scripts / "run", PlainProgress(quiet=True))
    assert summary.records[0].outcome is TrialOutcome.SOLVED
    attempts = (summary.directory / "records.jsonl").read_text().splitlines()
    assert [json.loads(line)["outcome"] for line in attempts] == ["limit", "solved"]


def test_the_harness_gets_the_flags_of_both_releases(rows_file: Path) -> None:
    suite = SwebenchSuite(str(rows_file), environment="checkout", score="none")
    command = harness_command(suite, "arm", workers=3, seconds=60)
    assert command[1:] == [
        *("-m", "swebench.harness.run_evaluation", "-d", str(rows_file), "-s", "test", "-p", "arm/preds.json"),
        *("-id", "leyline", "--max_workers", "3", "-t", "60"),
    ]


def test_batches_hold_one_prediction_an_instance(rows_file: Path, repositories: Path, scripts: Path) -> None:
    config, _ = run(rows_file, repositories, scripts, "none", "solves")
    summary = run_eval(config.model_copy(update={"seeds": (0, 1)}), scripts / "run", PlainProgress(quiet=True))
    assert [batch.name for batch in batches(summary.records)] == ["solves-seed0", "solves-seed1"]


def test_the_score_command(rows_file: Path, repositories: Path, scripts: Path) -> None:
    _, summary = run(rows_file, repositories, scripts, "none", "solves", "gives_up")
    folder = scripts / "logs" / "acme__stats-1"
    folder.mkdir(parents=True)
    (folder / "test_output.txt").write_text(
        ">>>>> Start Test Output\nFAILED tests/test_stats.py::test_unsorted - no\n>>>>> End Test Output\n"
    )
    words = ["score", str(summary.directory), "--logs", str(scripts / "logs")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "swebench: 0 of 2 patches resolve their issue" in result.output
    details = {record.arm: record.detail for record in load(summary.directory).records}
    assert details == {
        "solves": "not resolved: FAIL_TO_PASS 0/1, PASS_TO_PASS 0/1",
        "gives_up": "not resolved: the patch is empty",
    }
    assert not (summary.directory / "preds.json").exists()  # two arms: one file each
    missing = CliRunner().invoke(app, ["score", str(scripts)])
    assert "is no run directory: it has no config.json" in str(missing.exception)


def test_a_log_without_test_results_is_no_verdict_of_the_patch(row: dict[str, Any], tmp_path: Path) -> None:
    rows = {**row, "FAIL_TO_PASS": ["a"], "PASS_TO_PASS": []}
    prediction = {"instance_id": row["instance_id"], "model_patch": "x", "model_name_or_path": "m"}
    log = tmp_path / "test_output.txt"
    log.write_text(">>>>> Patch Apply Failed:\nerror: corrupt patch")
    found = grade(rows, prediction, log)
    assert (found.resolved, found.applied) == (False, False)
    assert "the patch did not apply, or the tests did not run" in str(found.detail)
    with pytest.raises(SuiteError, match="swebench cannot grade"):
        grade(rows, prediction, tmp_path / "none.txt")
    with pytest.raises(SuiteError, match="no log parser 'parse_nothing'"):
        grade({**rows, "log_parser": "parse_nothing"}, prediction, log)
    with pytest.raises(SuiteError, match="swebench 5 needs eval_type in the row"):
        grade({**rows, "eval_type": ""}, prediction, log)


def test_reports_of_the_harness_become_verdicts(
    rows_file: Path, repositories: Path, scripts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What swebench's harness leaves is read; the harness itself needs Docker and is not run here."""
    _, summary = run(rows_file, repositories, scripts, "none", "solves", "breaks")
    name = "acme__stats-1"

    def harness(directory: Path, suite: SwebenchSuite, batch: str, *, workers: int, seconds: float) -> None:
        predictions = json.loads((directory / "swebench" / batch / "preds.json").read_text())
        if batch == "solves":  # the other one ends in an error there, which leaves no report
            folder = log_folder(directory, batch, name)
            folder.mkdir(parents=True)
            report = {"patch_successfully_applied": True, "resolved": bool(predictions[name]["model_patch"])}
            (folder / "report.json").write_text(json.dumps({name: report}))

    monkeypatch.setattr(swebench_score, "run_harness", harness)
    monkeypatch.setattr(swebench_grade, "docker_missing", lambda: None)
    said: list[str] = []
    suite = SwebenchSuite(str(rows_file), repos=str(repositories), environment="checkout")
    lines = score_run(summary.directory, suite, how="docker", say=said.append)
    assert "swebench: 1 of 1 patch resolves its issue" in lines
    assert "swebench left no report" in said[0]
    outcomes = {record.arm: record.outcome for record in load(summary.directory).records}
    assert outcomes == {"solves": TrialOutcome.SOLVED, "breaks": TrialOutcome.UNSCORED}


def test_scoring_that_fails_leaves_the_trials(
    rows_file: Path, repositories: Path, scripts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object, **more: object) -> None:
        raise SuiteError("the disk is full")

    monkeypatch.setattr(swebench_score, "run_tests", broken)
    _, summary = run(rows_file, repositories, scripts, "here", "solves")
    assert summary.notes == ["not scored: the disk is full"]
    assert [record.outcome for record in load(summary.directory).records] == [TrialOutcome.UNSCORED]
