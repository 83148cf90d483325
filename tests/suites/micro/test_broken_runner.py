"""A test runner that does not run is an error of the harness; one that the code under test ends is the agent's."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import leyline
from leyline.cli import app
from leyline.commands.eval_progress import PlainProgress
from leyline.evals.trials.config import EvalConfig
from leyline.evals.trials.record import TrialOutcome
from leyline.evals.trials.run_eval import run_eval
from leyline.harness.sandbox import sandbox
from leyline.harness.sandbox.isolation import Isolation
from leyline.harness.sandbox.sandbox import CommandLimits, HarnessError
from leyline.harness.tasks import Episode, FilesTask
from leyline.suites.micro import MicroTask, make_task, runner
from leyline.suites.micro.episodes import as_task
from leyline.suites.micro.micro_suite import MicroSuite
from leyline.suites.spec import FIRST_SEED
from leyline.suites.suite import TaskInfo

EXIT = "[c for c in object.__subclasses__() if c.__name__ == '_wrap_close'][0].__init__.__globals__['{}']({})\n"
ENDINGS = {
    "the import ends the process with 0": EXIT.format("_exit", 0),
    "the import ends the process with 3": EXIT.format("_exit", 3),
    "the import crashes": EXIT.format("abort", ""),
    "the import takes for ever": "while True:\n    pass\n",
    "one instruction takes for ever": "sum(range(10 ** 15))\n",
    "the import takes all memory": "x = []\nwhile True:\n    x.append('x' * (1 << 27))\n",
    "the import exhausts the stack": "def f():\n    f()\n\n\nf()\n",
}


class Lost:
    """A suite whose runner is not where the task says."""

    name, default_n, score = "lost", None, None

    def tasks(self) -> list[TaskInfo]:
        return [TaskInfo(f"t{number}") for number in range(6)]

    def digest(self, task: str) -> str:
        return "1"

    def open(self, task: str, seed: int) -> Episode:
        command = [sys.executable, "-I", "/no/runner.py"]
        files = {"a.py": "x = 1\n"}
        return FilesTask(task, "s", "u", files, lambda number: command, command, mark="m").open()

    def preflight(self) -> list[str]:
        return []


def called(tool: str) -> dict[str, Any]:
    call = {"id": "", "type": "function", "function": {"name": tool, "arguments": "{}"}}
    return {"role": "assistant", "content": None, "tool_calls": [call]}


def edited(task: MicroTask, text: str) -> Episode:
    """The repaired task with `text` at the top of its modules, and ten seconds for a run."""
    episode = dataclasses.replace(as_task(task), limits=CommandLimits(seconds=10, memory=1 << 30)).open()
    for path in task.modules:
        episode.workspace.write(path, text + task.reference[path])
    return episode


@pytest.mark.parametrize("how", ENDINGS)
def test_what_the_code_under_test_does_to_the_run_is_the_agents_failure(how: str) -> None:
    with edited(make_task(FIRST_SEED), ENDINGS[how]) as episode:
        result = episode.call("eval", {})
        assert result.meta["passed"] is False
        assert result.text != "(no output)"
        assert episode.task.mark not in result.text  # type: ignore[attr-defined]
        assert episode.solved() is False


def test_an_agent_reads_why_its_run_has_no_report() -> None:
    with edited(make_task(FIRST_SEED), EXIT.format("_exit", 3)) as episode:
        assert episode.call("eval", {}).text.endswith("[the run ended before its report, with exit code 3]")
    with edited(make_task(FIRST_SEED), "sum(range(10 ** 15))\n") as episode:
        assert episode.call("eval", {}).text.endswith("[stopped after 10 s]")


def test_a_report_names_no_file_of_the_installation() -> None:
    files = {
        "a.py": "def f():\n    import nothing\n",
        "tests/test_a.py": "from a import f\n\n\ndef test_f():\n    assert f() == 1\n",
    }
    text, report = runner.evaluate(files, "tests/test_a.py", "t", 1, 0)
    assert report.failed == ["test_f"]
    assert "a.py:2: in f\n    import nothing\nE   ImportError: No module named 'nothing'" in text
    assert "runner.py" not in text


def test_a_runner_that_cannot_be_opened_is_the_harnesss_failure() -> None:
    with Lost().open("t0", 0) as episode:
        with pytest.raises(HarnessError, match=r"tests cannot be run here: .*can't open file '/no/runner\.py'.*doctor"):
            episode.call("eval", {})
        with pytest.raises(HarnessError, match="tests cannot be run here"):
            episode.solved()


def test_an_interpreter_that_is_missing_is_the_harnesss_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    with as_task(make_task(FIRST_SEED)).open() as episode:
        assert episode.call("eval", {}).meta["passed"] is False
        monkeypatch.setattr(sys, "executable", "/no/python")
        with pytest.raises(HarnessError, match=r"/no/python: No such file or directory .*doctor"):
            episode.call("eval", {})
    task = dataclasses.replace(as_task(make_task(FIRST_SEED)), check=["/no/python", "runner.py"])
    monkeypatch.undo()
    with task.open() as episode, pytest.raises(HarnessError, match="/no/python: No such file"):
        episode.solved()


def test_a_runner_with_no_time_to_start_is_the_harnesss_failure() -> None:
    slow = [sys.executable, "-I", "-c", "import time; time.sleep(20); print('m')"]
    task = FilesTask(
        "t", "s", "u", {"a.py": ""}, lambda number: slow, slow, mark="m", limits=CommandLimits(seconds=0.5)
    )
    with task.open() as episode, pytest.raises(HarnessError, match=r"stopped after 0\.5 s"):
        episode.call("eval", {})


def test_a_verdict_without_room_for_a_copy_is_the_harnesss_failure() -> None:
    passing = [sys.executable, "-I", "-c", "print('m\\n\\nm 0')"]
    task = FilesTask("t", "s", "u", {"a.py": "x" * 100_000}, lambda number: passing, passing, mark="m")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    with task.open() as episode:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, limits[1]))
        try:
            with pytest.raises(
                HarnessError, match=r"no room in .* for the files to be judged: .*File too large.*; free some"
            ):
                episode.solved()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert episode.solved() is True


def test_an_agent_that_removes_its_own_folder_has_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "isolation", lambda: Isolation(reason="switched off"))  # a mount could not be removed
    passing = [sys.executable, "-I", "-c", "print('m\\n\\nm 0')"]
    task = FilesTask("t", "s", "u", {"a.py": ""}, lambda number: passing, passing, tools=("bash", "eval"), mark="m")
    with task.open() as episode:
        assert episode.call("eval", {}).meta["passed"] is True
        episode.call("bash", {"command": 'rm -r "$PWD"'})
        assert episode.call("eval", {}).text.startswith("Error: cannot start a command in ")
        assert episode.solved() is False


@pytest.mark.parametrize("tools", [["eval"], ["submit"]])
def test_trials_without_a_runner_are_errors_and_stop_the_eval(tmp_path: Path, tools: list[str]) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps([called(tool) for tool in tools]))
    arm = {"name": "a", "backend": "mock", "model": "mock", "options": {"script": str(script)}}
    settings = {"suite": {"name": f"{__name__}:Lost"}, "arms": [arm], "workers": 0, "budget": {"errors": 3}}
    summary = run_eval(EvalConfig.model_validate(settings), tmp_path / "run", PlainProgress(quiet=True))
    assert [record.outcome for record in summary.records] == [TrialOutcome.ERROR] * 3
    assert [len(record.turns) for record in summary.records] == [1] * 3, "the first call that needs the runner ends it"
    assert summary.missing == 3
    assert summary.stopped is not None
    assert summary.stopped.startswith("3 trials in a row ended in an error, the last one with: the task's tests cannot")
    again = EvalConfig.model_validate({**settings, "redo": "errors", "budget": {"errors": 1}})
    summary = run_eval(again, tmp_path / "run", PlainProgress(quiet=True))
    assert summary.ran == 1
    assert str(summary.stopped).startswith("1 trial in a row ended in an error")


def test_a_runner_that_fails_is_found_before_any_trial(tmp_path: Path) -> None:
    """A copy of the package whose runner works when it is imported, and not when it is run."""
    ignored = shutil.ignore_patterns("__pycache__", "*.bin")
    copy = shutil.copytree(Path(leyline.__file__).parent, tmp_path / "leyline", ignore=ignored)
    file = copy / "suites" / "micro" / "runner.py"
    whole = file.read_text()
    code = "from leyline.suites.micro.micro_suite import MicroSuite\ntry:\n    print(MicroSuite().preflight())\n"
    code += "except Exception as error:\n    print(type(error).__name__, error)"
    head, future, rest = whole.partition("from __future__ import annotations\n")
    broken = f"{head}{future}if __name__ == '__main__':\n    raise SystemExit('no luck')\n{rest}"
    cases = {
        whole: "[]",
        broken: "HarnessError the task's tests cannot be run here: no luck (`leyline doctor` tries them)",
        whole.replace("return 0 if report.ok else 1", "return 1"): "SuiteError the tests of a task do not pass in the",
    }
    assert len(cases) == 3
    for text, told in cases.items():
        file.write_text(text)
        env = {"PATH": os.defpath, "PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
        assert done.stdout.startswith(told), done.stdout + done.stderr


def test_preflight_and_doctor_say_that_the_runner_works(monkeypatch: pytest.MonkeyPatch) -> None:
    assert MicroSuite().preflight() == []
    checks = {
        check["name"]: check for check in json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)["checks"]
    }
    assert checks["test runner"]["ok"]
    monkeypatch.setattr(sys, "executable", "/no/python")
    with pytest.raises(HarnessError, match="/no/python"):
        MicroSuite().preflight()
    result = CliRunner().invoke(app, ["doctor", "--json"])
    checks = {check["name"]: check for check in json.loads(result.stdout)["checks"]}
    assert not checks["test runner"]["ok"]
    assert "/no/python" in checks["test runner"]["found"]
    assert result.exit_code == 2


def test_the_runner_needs_nothing_but_the_standard_library(tmp_path: Path) -> None:
    task = make_task(FIRST_SEED)
    for path, text in task.files.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    python, *rest = task.eval_command(1)
    done = subprocess.run([python, "-S", *rest], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout == task.evaluate(task.files, 1)[0]
