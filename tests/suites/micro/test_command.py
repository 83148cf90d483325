"""`leyline micro`, and the folders it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from leyline.cli import app
from leyline.commands.sources import UsageError
from leyline.suites import micro
from leyline.suites.debug_gym import gym_suite as debug_gym
from leyline.suites.micro.generate import TaskError

run = CliRunner().invoke


def test_show_prints_what_an_agent_gets() -> None:
    task = micro.make_task(7)
    out = run(app, ["micro", "show", "--seed", "7"]).output
    assert micro.user_prompt(task) in out
    assert task.evaluate(task.files, 1)[0] in out
    for path, text in task.files.items():
        assert f"# {path}\n" in out
        assert f"   1  {text.splitlines()[0]}\n" in out
    assert "family" not in out
    bug = task.bugs[0]
    with_answers = run(app, ["micro", "show", "--seed", "7", "--answers"]).output
    assert f"{bug.path}:{bug.line} in {bug.unit}: {bug.kind}" in with_answers


def test_show_writes_files_and_json(tmp_path: Path) -> None:
    result = run(app, ["micro", "show", "--seed", "8", "--split", "unseen", "--to", str(tmp_path / "t"), "--json"])
    made = json.loads(result.stdout)
    task = micro.make_task(8, "short", "unseen")
    assert made["files"] == dict(task.files)
    assert made["bugs"][0]["kind"] == task.bugs[0].kind
    for path, text in task.files.items():
        assert (tmp_path / "t" / path).read_text() == text


def test_export_gives_folders_that_debug_gym_reads(tmp_path: Path) -> None:
    assert run(app, ["micro", "export", str(tmp_path / "all"), "-n", "2", "--seed", "3"]).exit_code == 0
    names = [f"micro-short-seen-{seed:06d}" for seed in (3, 4)]
    suite = debug_gym.DebugGymSuite(tmp_path / "all")
    assert [info.id for info in suite.tasks()] == names
    task = micro.make_task(3)
    with suite.open(names[0], 0) as episode:
        assert sorted(episode.workspace.files()) == sorted([*task.modules, "test.py"])
        assert not episode.workspace.writable("test.py")
        assert not episode.solved()
        for path, text in task.reference.items():
            episode.workspace.write(path, text)
        assert episode.solved()


def test_bugs_are_where_it_says() -> None:
    for seed in range(6):
        task = micro.make_task(seed, "long", "train")
        for bug in task.bugs:
            now, right = (files[bug.path].split("\n") for files in (task.files, task.reference))
            others = [b for b in task.bugs if b.path == bug.path and b.line < bug.line]
            if not others:
                assert now[: bug.line - 1] == right[: bug.line - 1]
                assert now[bug.line - 1] != right[bug.line - 1]


def test_curve_counts_what_an_agent_reads() -> None:
    result = run(app, ["micro", "curve", "-n", "1", "--json", "--split", "train", "--seed", "5"])
    rows = {(row["level"], row["policy"]): row for row in json.loads(result.stdout)}
    assert list(rows) == [(level, p) for level in micro.LEVELS for p in ("keep_all", "truncate_older_than")]
    assert all(row["solved"] == row["tasks"] == 1 and row["failing"] for row in rows.values())
    assert rows["xlong", "keep_all"]["beyond"] == 1
    assert rows["xlong", "truncate_older_than"]["beyond"] == 0
    contexts = [rows[level, "keep_all"]["context"] for level in micro.LEVELS]
    assert contexts == sorted(contexts)
    assert "largest" in run(app, ["micro", "curve", "-n", "1", "--policy", "keep_all", "--seed", "5"]).output


def test_bad_input(tmp_path: Path) -> None:
    assert isinstance(run(app, ["micro", "show", "--level", "tiny"]).exception, TaskError)
    here = run(app, ["micro", "show", "--to", str(tmp_path)]).exception
    assert isinstance(here, UsageError)
    assert "is already there" in str(here)
    (tmp_path / "file").write_text("")
    below = run(app, ["micro", "export", str(tmp_path / "file")]).exception
    assert isinstance(below, UsageError)
    assert "cannot make" in str(below)


@pytest.mark.parametrize("noise", [0, 3])
def test_the_runner_is_one_file_that_needs_nothing(tmp_path: Path, noise: int) -> None:
    """What the sandbox runs: the same report, and an exit code that says whether all passed."""
    task = micro.make_task(9)
    micro.write(task, tmp_path)
    command = [*task.eval_command(3, str(tmp_path)), "--noise", str(noise)]
    assert command[0] == sys.executable
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env={})
    from leyline.suites.micro import runner

    expected, report = runner.evaluate(task.files, task.test_path, task.id, 3, noise)
    assert done.stdout == expected
    assert not report.ok
    assert done.returncode == 1
    assert subprocess.run(task.check_command(str(tmp_path)), cwd=tmp_path, env={}).returncode == 1
    for path, text in task.reference.items():
        (tmp_path / path).write_text(text)
    assert subprocess.run(task.check_command(str(tmp_path)), cwd=tmp_path, env={}).returncode == 0
