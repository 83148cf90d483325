"""The runner as a person runs it: real processes, killed and interrupted, and what is recorded afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from leyline.evals.trials.journal import Journal, Loaded, load
from leyline.evals.trials.record import TrialOutcome

# A suite of one's own: tasks that take a moment, so that a kill meets them at work.
SUITE = """
import contextlib, os, pathlib, signal, time
from leyline.suites.suite import TaskInfo
from leyline.harness.tools.tool import ToolResult


class Attempt:
    messages = [{"role": "user", "content": "go"}]
    tools = []
    turns = 5

    def __init__(self, suite, task):
        self.suite, self.task = suite, task

    def call(self, name, arguments):
        folder = pathlib.Path(self.suite.folder)
        with (folder / "log").open("a") as log:
            log.write(f"{self.task} {os.getpid()}\\n")
        time.sleep(self.suite.seconds)
        once = folder / f"died-{self.task}"
        if self.task in self.suite.deadly or (self.task in self.suite.fatal and not once.exists()):
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return ToolResult("done", done=True)

    def solved(self):
        return int(self.task[1:]) % 2 == 0

    def artifacts(self):
        return {}


class Suite:
    name, default_n, score = "quick", None, None

    def __init__(self, *, folder, count=10, seconds=0.02, deadly=(), fatal=()):
        self.folder, self.count, self.seconds, self.deadly, self.fatal = folder, count, seconds, deadly, fatal

    def tasks(self):
        return [TaskInfo(f"t{k}") for k in range(self.count)]

    def digest(self, task):
        return task

    @contextlib.contextmanager
    def open(self, task, seed):
        yield Attempt(self, task)

    def preflight(self):
        return ["quick indeed"]
"""
CALL = {"id": "", "type": "function", "function": {"name": "work", "arguments": "{}"}}
Leyline = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "quicksuite.py").write_text(SUITE)
    (tmp_path / "script.json").write_text(json.dumps([{"role": "assistant", "content": None, "tool_calls": [CALL]}]))
    path = tmp_path / "eval.json"
    write(path, {"folder": str(tmp_path)})
    return path


def write(path: Path, options: dict[str, Any]) -> None:
    arms = ["keep_all", {"name": "last", "policy": "keep_last(n=3)", "mode": "forget"}]
    defaults = {"backend": "mock", "options": {"script": str(path.parent / "script.json")}}
    suite = {"name": "quicksuite:Suite", "options": options}
    path.write_text(json.dumps({"suite": suite, "arms": arms, "arm_defaults": defaults, "seeds": [0, 1]}))


@pytest.fixture
def leyline(config: Path) -> Leyline:
    def start(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", "from leyline.cli import main; main()", "eval", str(config), *words],
            cwd=config.parent,
            env={**os.environ, "PYTHONPATH": str(config.parent), "TMPDIR": str(config.parent)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


def finished(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for(process: subprocess.Popen[str], records: int, directory: Path) -> None:
    """Until that many trials are recorded, or the process has ended."""
    file = directory / "records.jsonl"
    deadline = time.monotonic() + 60
    while process.poll() is None and (not file.exists() or file.read_bytes().count(b"\n") < records):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True
    return state == "Z"


def check_whole(loaded: Loaded, trials: int) -> None:
    assert (loaded.duplicates, loaded.superseded, loaded.broken, loaded.torn) == (0, 0, [], False)
    assert len(loaded.records) == trials
    assert len({(record.arm, record.pair) for record in loaded.records}) == trials
    assert {record.outcome for record in loaded.records} <= {TrialOutcome.SOLVED, TrialOutcome.FAILED}


def test_killed_again_and_again_no_trial_is_lost_or_double(config: Path, leyline: Leyline) -> None:
    directory = config.parent / "run"
    words = ("--out", "run", "--workers", "2")
    seen = 0
    for wanted in (1, 9, 22):
        process = leyline(*words)
        wait_for(process, wanted, directory)
        process.kill()
        finished(process)
        workers = {int(line.split()[1]) for line in (config.parent / "log").read_text().splitlines()}
        deadline = time.monotonic() + 10
        while not all(gone(pid) for pid in workers):  # a worker dies with its parent
            assert time.monotonic() < deadline
            time.sleep(0.02)
        now = len(load(directory).records)
        assert seen <= now < 40
        seen = now
    code, out, _ = finished(leyline(*words))
    assert code == 0
    assert "40 trials are recorded in run" in out
    check_whole(load(directory), 40)
    left = [path.name for path in config.parent.glob("leyline-*")]
    assert left == []  # what the killed runs left in the way of temporary folders is gone as well

    before = (directory / "records.jsonl").read_bytes()
    code, _, err = finished(leyline(*words))
    assert code == 0
    assert "40 trials: 40 recorded, 0 to run" in err
    assert (directory / "records.jsonl").read_bytes() == before


def test_a_killed_worker_costs_no_trial_and_a_deadly_one_is_an_error(config: Path, leyline: Leyline) -> None:
    write(config, {"folder": str(config.parent), "count": 4, "fatal": ["t1"], "deadly": ["t2"]})
    words = ("--out", "run", "--workers", "2", "--seeds", "1", "--arms", "keep_all", "--json")
    code, out, _ = finished(leyline(*words))
    assert code == 1
    result = json.loads(out)
    assert (result["planned"], result["errors"], result["missing"]) == (4, 1, 0)
    records = {record.task: record for record in load(config.parent / "run").records}
    assert {name: record.outcome.value for name, record in records.items()} == {
        "t0": "solved",
        "t1": "failed",
        "t2": "error",
        "t3": "failed",
    }
    assert "SIGKILL" in str(records["t2"].detail)

    write(config, {"folder": str(config.parent), "count": 4, "fatal": ["t1"], "deadly": []})
    code, out, _ = finished(leyline(*words, "--redo", "errors"))
    assert code == 0
    assert json.loads(out)["ran"] == 1
    loaded = load(config.parent / "run")
    assert (loaded.superseded, loaded.duplicates) == (1, 0)
    assert {record.task: record.attempt for record in loaded.records} == {"t0": 0, "t1": 0, "t2": 1, "t3": 0}


@pytest.mark.parametrize("workers", ["2", "0"])
def test_an_interrupt_ends_with_130_and_the_next_run_goes_on(config: Path, leyline: Leyline, workers: str) -> None:
    write(config, {"folder": str(config.parent), "count": 6, "seconds": 0.2})
    words = ("--out", "run", "--workers", workers, "--seeds", "1")
    process = leyline(*words)
    wait_for(process, 2, config.parent / "run")
    process.send_signal(signal.SIGINT)
    code, out, err = finished(process)
    assert code == 130
    assert "stopped: interrupted" in out
    assert "Traceback" not in err
    kept = len(load(config.parent / "run").records)
    assert 2 <= kept < 12
    code, _, err = finished(leyline(*words))
    assert code == 0
    assert f"12 trials: {kept} recorded, {12 - kept} to run" in err
    check_whole(load(config.parent / "run"), 12)


def test_a_spent_budget_stops_and_a_rerun_goes_on(config: Path, leyline: Leyline) -> None:
    words = ("--out", "run", "--workers", "0", "--seeds", "1")
    code, out, _ = finished(leyline(*words, "--max-computed", "1"))
    assert code == 1
    assert "stopped: the budget of 1 token is spent; 19 of 20 trials are still to run." in out
    assert finished(leyline(*words))[0] == 0
    check_whole(load(config.parent / "run"), 20)


def test_two_runs_do_not_write_one_directory(config: Path, leyline: Leyline) -> None:
    with Journal(config.parent / "run"):
        code, _, err = finished(leyline("--out", "run", "--workers", "0"))
    assert code == 2
    assert err.splitlines()[-1] == "leyline: another run is writing run: wait for it, or choose another --out"
    assert not (config.parent / "log").exists()


def test_what_a_run_directory_holds(config: Path, leyline: Leyline) -> None:
    code, _, err = finished(leyline("--out", "run", "--workers", "1", "--filter", "t[0-3]", "--slice", "::2"))
    assert code == 0
    assert err.startswith("note: quick indeed\n")
    data = json.loads((config.parent / "run" / "config.json").read_text())
    assert data["format"] == "leyline-eval/1"
    assert (data["tasks"], data["trials"]) == (["t0", "t2"], 8)
    assert {arm["name"] for arm in data["config"]["arms"]} == {"keep_all", "last"}
    assert data["machine"]["cores"] >= 1
    for record in load(config.parent / "run").records:
        assert record.trajectory is not None
        assert (config.parent / "run" / record.trajectory).is_file()
        assert record.versions["python"]
        assert record.machine == f"{data['machine']['cores']} cores of {data['machine']['cpu']}"


def test_a_dry_run_runs_nothing(config: Path, leyline: Leyline) -> None:
    code, out, _ = finished(leyline("--out", "run", "--dry-run"))
    assert code == 0
    assert "trials 40, 0 of them recorded in run" in out
    assert not (config.parent / "run").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Ray's local cluster is tested on Linux")
def test_the_same_trials_on_a_local_ray_cluster(config: Path, leyline: Leyline) -> None:
    pytest.importorskip("ray", reason="the ray extra is not installed")
    write(config, {"folder": str(config.parent), "count": 3, "fatal": ["t1"]})
    code, out, err = finished(leyline("--out", "run", "--executor", "ray", "--workers", "2", "--seeds", "1", "--json"))
    assert code == 0, err
    assert json.loads(out)["ran"] == 6
    loaded = load(config.parent / "run")
    check_whole(loaded, 6)
    assert all((config.parent / "run" / str(record.trajectory)).is_file() for record in loaded.records)
