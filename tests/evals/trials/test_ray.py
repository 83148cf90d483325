"""Evals on a Ray cluster of several nodes: processors that are not there, a worker and a node that are killed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from leyline.evals.trials import ray_crew
from leyline.evals.trials.config import build_config
from leyline.evals.trials.journal import load
from leyline.evals.trials.pool import Control
from leyline.evals.trials.ray_pool import RayExecutor
from leyline.evals.trials.record import TrialOutcome
from leyline.evals.trials.schedule import TrialSpec
from leyline.suites.suite import TaskInfo

pytest.importorskip("ray", reason="the ray extra is not installed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="Ray's local clusters are tested on Linux"),
]

CLUSTER = """
import sys
from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={
    "num_cpus": 1, "include_dashboard": False, "temp_dir": sys.argv[1], "object_store_memory": 80 << 20})
nodes = []
print(cluster.address, flush=True)
for line in sys.stdin:
    if line == "add\\n":
        nodes.append(cluster.add_node(num_cpus=1, object_store_memory=80 << 20))
    elif line == "lose\\n":
        cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("done", flush=True)
cluster.shutdown()
"""

SUITE = """
import contextlib, os, pathlib, signal, time
from leyline.suites.suite import TaskInfo
from leyline.harness.tools.tool import ToolResult


class Attempt:
    messages = [{"role": "user", "content": "go"}]
    tools = []
    turns = 5

    def __init__(self, folder, task):
        self.folder, self.task = pathlib.Path(folder), task

    def call(self, name, arguments):
        with (self.folder / "log").open("a") as log:
            log.write(f"{self.task} {os.getpid()}\\n")
        once = self.folder / f"died-{self.task}"
        if self.task == "t1" and not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.4)
        return ToolResult("done", done=True)

    def solved(self):
        return True

    def artifacts(self):
        return {}


class Suite:
    name, default_n, score = "quick", None, None

    def __init__(self, *, folder, count):
        self.folder, self.count = folder, count

    def tasks(self):
        return [TaskInfo(f"t{k}") for k in range(self.count)]

    def digest(self, task):
        return task

    @contextlib.contextmanager
    def open(self, task, seed):
        yield Attempt(self.folder, task)

    def preflight(self):
        return []
"""
CALL = {"id": "", "type": "function", "function": {"name": "work", "arguments": "{}"}}


class Nodes:
    """A cluster in a process of its own."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._temporary = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path has at most 107 bytes
        with log.open("w") as said:
            self._process = subprocess.Popen(
                [sys.executable, "-c", CLUSTER, self._temporary],
                env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                text=True,
            )
        self.address = self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        while (line := self._process.stdout.readline()) and not (":" in line or line == "done\n"):
            pass
        return line.strip()

    def ask(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        self._line()

    def stop(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(60)
        finally:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            shutil.rmtree(self._temporary, ignore_errors=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "raysuite.py").write_text(SUITE)
    (tmp_path / "script.json").write_text(json.dumps([{"role": "assistant", "content": None, "tool_calls": [CALL]}]))
    return tmp_path


@pytest.fixture
def nodes(folder: Path) -> Iterator[Nodes]:
    made = Nodes(folder, folder / "cluster.log")
    yield made
    made.stop()


def start(folder: Path, address: str, count: int, out: str, *words: str) -> subprocess.Popen[str]:
    path = folder / f"{out}.json"
    suite = {"name": "raysuite:Suite", "options": {"folder": str(folder), "count": count}}
    defaults = {"backend": "mock", "options": {"script": str(folder / "script.json")}}
    path.write_text(json.dumps({"suite": suite, "arms": ["keep_all"], "arm_defaults": defaults, "seeds": [0, 1]}))
    return subprocess.Popen(
        [
            *(sys.executable, "-c", "from leyline.cli import main; main()"),
            *("eval", str(path), "--executor", "ray", "--out", out, "--json", *words),
        ],
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
            "RAY_ADDRESS": address,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def check_whole(directory: Path, trials: int) -> None:
    """Nothing lost, nothing doubled."""
    records = load(directory).records
    assert Counter(record.key for record in records).most_common(1)[0][1] == 1
    assert [record.outcome for record in records] == [TrialOutcome.SOLVED] * trials
    assert all((directory / str(record.trajectory)).is_file() for record in records)


def test_workers_without_a_processor_and_a_worker_and_a_node_that_are_killed(folder: Path, nodes: Nodes) -> None:
    few = start(folder, nodes.address, 2, "few", "--workers", "2")  # one processor, which the first worker keeps
    _, err = few.communicate(timeout=150)
    assert few.returncode == 0, err
    check_whole(folder / "few", 4)
    nodes.ask("add")
    for left in folder.glob("died-*"):
        left.unlink()
    many = start(folder, nodes.address, 10, "many")  # as many workers as the cluster has processors
    deadline, workers = time.monotonic() + 100, set[str]()
    while time.monotonic() < deadline and len(workers) < 3:  # two, and the one in the place of the killed one
        lines = (folder / "log").read_text().splitlines()[5:]
        workers = {line.split()[1] for line in lines}
        time.sleep(0.1)
    nodes.ask("lose")
    _, err = many.communicate(timeout=150)
    assert many.returncode == 0, err
    check_whole(folder / "many", 20)
    assert len(workers) >= 3, "both nodes worked, and the killed worker was replaced"


class _GoneError(Exception):
    pass


class _Hashed(SimpleNamespace):
    __hash__ = object.__hash__


class Scripted:
    """A cluster of one processor, as far as an executor sees it: what becomes of each trial is scripted."""

    def __init__(self, outcomes: list[str], waiting: int = 0) -> None:
        self.outcomes, self.waiting, self.killed, self.actors = outcomes, waiting, 0, 0
        self.exceptions = type(
            "exceptions",
            (),
            dict.fromkeys(("RayActorError", "ObjectLostError", "NodeDiedError", "WorkerCrashedError"), _GoneError),
        )
        self.alive: list[bool] = []

    def remote(self, **options: Any) -> Any:
        return lambda cls: type("Made", (), {"remote": self._actor})

    def _actor(self, factory: Any) -> Any:
        self.actors += 1
        number, scripted = self.actors, self

        class Method:
            def __init__(self, name: str) -> None:
                self.name = name

            def remote(self, *given: Any) -> Any:
                if self.name == "node":
                    return _Hashed(kind="up", ready=number != scripted.waiting)
                return _Hashed(kind=scripted.outcomes.pop(0), ready=True, spec=given[0])

        return _Hashed(node=Method("node"), run=Method("run"))

    def wait(self, futures: list[Any], *, num_returns: int, timeout: float) -> Any:
        return [future for future in futures if future.ready], [future for future in futures if not future.ready]

    def get(self, future: Any) -> Any:
        if future.kind == "up":
            return "n"
        if future.kind == "ok":
            return future.spec.record(TrialOutcome.SOLVED), None
        self.alive = [future.kind == "worker"] * 2
        raise _GoneError

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": "n", "Alive": self.alive.pop(), "NodeManagerAddress": "", "NodeManagerPort": 0}]

    def kill(self, worker: Any) -> None:
        self.killed += 1

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}

    available_resources = cluster_resources


class _Go(Control):
    def more(self) -> bool:
        return True

    def stopped(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("outcomes", "solved"),
    [
        (["ok"], True),
        (["worker", "ok"], True),
        (["worker", "node", "ok"], True),  # the loss of a node is not the trial's second death
        (["node"] * 4 + ["ok"], True),
        (["worker", "worker"], False),
        (["node"] * 5, False),
    ],
)
def test_what_counts_as_a_trial_s_death(outcomes: list[str], solved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_crew.time, "sleep", lambda seconds: None)
    monkeypatch.setattr(ray_crew.socket, "create_connection", lambda *where: nullcontext())
    executor = RayExecutor(2)
    executor._ray = ray = Scripted([*outcomes])
    records = list(executor._run([spec("t0")], _Go()))
    assert [record.outcome for record in records] == [TrialOutcome.SOLVED if solved else TrialOutcome.ERROR]
    assert ray.outcomes == []
    assert ray.killed == ray.actors, "every worker was ended"


def test_a_worker_without_a_processor_keeps_nobody_up_and_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_crew, "PATIENCE_SECONDS", -1.0)
    executor = RayExecutor(2)
    executor._ray = Scripted(["ok"] * 3, waiting=1)
    records = list(executor._run([spec(f"t{k}") for k in range(3)], _Go()))
    assert [record.outcome for record in records] == [TrialOutcome.SOLVED] * 3
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith("1 of 2 workers run: the others wait for a free processor of the Ray cluster, which has 1")


def spec(task: str) -> TrialSpec:
    arm = {"name": "a", "policy": "keep_all", "mode": "forget", "backend": "mock", "options": {"script": "s"}}
    base = build_config({"suite": {"name": "micro"}, "arms": [arm]})
    return TrialSpec(base.suite, TaskInfo(task), base.arms[0], 0, base.limits, base.sampling, "d")
