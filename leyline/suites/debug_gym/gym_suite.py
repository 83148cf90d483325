"""Folders in the format of debug-gym: code with a bug, `test.py`, and two gitignore-style files.

`.debugignore` names what the agent does not see (it is there when code runs); `.debugreadonly` what it sees but may
not edit. The tests are read-only in any case. A task is solved when they pass as they were at the start, by the report
of a runner of ours: neither what the code prints nor the exit code it ends the process with is believed.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import importlib.util
import json
import os
import re
import secrets
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from leyline.harness.sandbox.sandbox import CommandLimits, HarnessError, Result, run
from leyline.harness.tasks import Episode, Task
from leyline.harness.tools import DEFAULT_TOOLS
from leyline.harness.tools.lines import split
from leyline.harness.verdict.runner_settings import settings_file
from leyline.harness.workspace.workspace import DiskWorkspace, WorkspaceError, patterns_of
from leyline.suites.debug_gym import judge as debug_gym_judge
from leyline.suites.debug_gym import plain_runner
from leyline.suites.suite import SuiteError, TaskInfo

TEST = "test.py"
ENV = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
SYSTEM = """You are a debugging agent. Fix the bugs in the Python files so that all tests pass. Do not edit the tests.
Call one tool at a time. When the tests pass, submit."""
USER = "The program does not behave as intended. Files:\n{}\nFind the cause, repair the code, and submit."
LOOK = "look at where the interpreter, pytest and leyline lie, and who may read them"
_COUNTED = r"(?:passed|failed|errors?|skipped|warnings?|deselected|xfailed|xpassed|ran)"
_SECONDS = re.compile(rf"(\b{_COUNTED}) in [\d.]+s(?: \([\d:]+\))?")


@dataclass(frozen=True)
class DebugGymTask(Task):
    """One folder as a task. id: the folder's name; instructions: what the user asks, with the files for `{}`."""

    folder: Path
    id: str = ""
    instructions: str = USER
    tools: tuple[str, ...] = (*DEFAULT_TOOLS[:-1], "pdb", "bash", "submit")
    max_turns: int = 50
    limits: CommandLimits = field(default_factory=lambda: CommandLimits(seconds=60))
    network: bool = False
    env: Mapping[str, str] = field(default_factory=lambda: dict(ENV))
    system: str = SYSTEM

    def __post_init__(self) -> None:
        if not (self.folder / TEST).is_file():
            raise SuiteError(f"{self.folder} has no {TEST}; give a debug-gym task folder")
        object.__setattr__(self, "id", self.id or self.folder.resolve().name)

    @functools.cached_property
    def user(self) -> str:  # type: ignore[override]
        with self.workspace() as workspace:
            return self.instructions.format("\n".join(_described(workspace)))

    def workspace(self) -> DiskWorkspace:
        ignore, readonly = (patterns_of(self.folder / name) for name in (".debugignore", ".debugreadonly"))
        marks = ("/.debugignore", "/.debugreadonly")
        return DiskWorkspace(self.folder, ignore=(*ignore, *marks), readonly=(*readonly, f"/{TEST}", *marks))

    def eval_command(self, number: int) -> Sequence[str]:
        return test_command(TEST, self.env)

    def verdict(self, workspace: DiskWorkspace) -> bool:
        """Whether every test of a run to its end passes, on files of which only the agent's own work differs.

        The report is signed with a key that the judge takes from a file and removes before any test is loaded. Code
        that looks for it in the memory of the process it is tested in can still deceive: a verdict tells mistakes and
        shortcuts, it is no security boundary. Raises HarnessError when the run did not come as far as the files.
        """
        try:
            with self.untouched(workspace) as (copy, sandbox):
                report = copy.home / f"{secrets.token_hex(16)}.json"
                key = secrets.token_hex(32)
                report.with_suffix(".key").write_text(key, "ascii")
                settings = ["-c", settings_file(copy.root) or os.devnull, "--rootdir=.", "--confcutdir=."]
                command = ["python", debug_gym_judge.__file__, str(report), TEST, *settings]
                result = self.run_tests(sandbox, command)
                if f"{report.name}\n" not in result.output and sandbox.accessible():
                    raise HarnessError(f"the judge of the tests does not start: {result.last_line()}; {LOOK}")
                return result.exit_code == 0 and result.killed is None and all_passed(report, key)
        except WorkspaceError:
            return False

    def show(self, result: Result) -> str:
        return without_times(result.report())


class DebugGymSuite:
    """Task folders as an eval suite: a folder with `test.py`, or a folder of such folders."""

    default_n = None
    score = None

    def __init__(self, folder: str | Path, *, network: bool = False) -> None:
        self._folders = {found.resolve().name: found for found in task_folders(folder)}
        self._network = network
        self.name = Path(folder).resolve().name

    def tasks(self) -> Sequence[TaskInfo]:
        return [TaskInfo(name) for name in self._folders]

    def task(self, name: str) -> DebugGymTask:
        if name not in self._folders:
            raise SuiteError(f"no task {name!r} in {self.name}; it has {', '.join(self._folders)}")
        return DebugGymTask(self._folders[name], network=self._network)

    def digest(self, task: str) -> str:
        found = hashlib.sha256()
        folder = self.task(task).folder
        for path in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
            data = path.read_bytes()
            found.update(f"{path.relative_to(folder).as_posix()}\0{len(data)}\0".encode() + data)
        return found.hexdigest()

    def open(self, task: str, seed: int) -> Episode:
        """The files and tests of a folder do not depend on the seed."""
        return self.task(task).open()

    def preflight(self) -> Sequence[str]:
        """Raises SuiteError or HarnessError where a test that passes is not found to pass."""
        try_runner()
        if has_pytest(frozenset(ENV.items())):
            return []
        plain = "tests run on a plain runner without fixtures"
        if importlib.util.find_spec("pytest") is None:
            return [f"pytest is not installed: {plain} (pip install pytest)"]
        return [
            f"pytest lies where the sandbox does not look (PYTHONPATH, --user): {plain} (install it in {sys.prefix})"
        ]


def task_folders(folder: str | Path) -> list[Path]:
    """The task folders at `folder`: itself when it holds `test.py`, else those right below it, by name."""
    folder = Path(folder)
    if not folder.is_dir():
        raise SuiteError(f"no folder {folder}")
    if (folder / TEST).is_file():
        return [folder]
    found = sorted(path for path in folder.iterdir() if (path / TEST).is_file())
    if not found:
        raise SuiteError(f"{folder} has no {TEST}, and no folder in it has one; give a debug-gym task folder")
    return found


def load(folder: str | Path) -> list[DebugGymTask]:
    """The tasks at `folder` (see `task_folders`)."""
    return [DebugGymTask(path) for path in task_folders(folder)]


def test_command(path: str, env: Mapping[str, str]) -> list[str]:
    """The command that runs a test file in a sandbox with `env`: pytest where it is seen there, else the plain runner.

    Raises HarnessError.
    """
    if has_pytest(frozenset(env.items())):
        return ["python", "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", path]
    return ["python", str(Path(plain_runner.__file__).resolve()), path]


@functools.cache
def has_pytest(env: frozenset[tuple[str, str]]) -> bool:
    """Whether the sandbox's interpreter imports pytest: it does not see all that this one does, found once by trying.

    Raises HarnessError when the interpreter does not start or comes to no answer.
    """
    code = "try:\n    import pytest\nexcept ImportError:\n    print('no')\nelse:\n    print('yes')"
    with tempfile.TemporaryDirectory(prefix="leyline-probe-", ignore_cleanup_errors=True) as folder:
        result = run(["python", "-c", code], folder, env=dict(env))
    answer = (result.output.split() or [""])[-1]
    if result.exit_code != 0 or answer not in ("yes", "no"):
        raise HarnessError(f"the runner of the tests does not start: {result.last_line()}; {LOOK}")
    return answer == "yes"


def try_runner() -> None:
    """Test a folder whose test passes as a trial would. Raises SuiteError or HarnessError when that goes wrong."""
    with tempfile.TemporaryDirectory(prefix="leyline-probe-", ignore_cleanup_errors=True) as folder:
        Path(folder, TEST).write_text("def test_nothing():\n    pass\n", "utf-8")
        with DebugGymTask(Path(folder)).open() as episode:
            if (last := episode.probe()) is not None:
                raise SuiteError(f"a test that does nothing does not pass in the sandbox: {last}; {LOOK}")


def all_passed(report: Path, key: str = "") -> bool:
    """Whether the judge, which knew `key`, left a report there with a pass, no failure, and no test missing."""
    try:
        found = json.loads(report.read_text("utf-8"))
        if not hmac.compare_digest(found.pop("sign"), debug_gym_judge.signed(found, key)):
            return False
        ended = found["passed"] + found["skipped"]
        return bool(found["status"] == 0 and found["failed"] == 0 < found["passed"] and ended == found["collected"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # there is none, or not of its making
        return False


def without_times(text: str) -> str:
    """A report without how long it took, so that equal runs read equal."""
    return _SECONDS.sub(r"\1", text)


def _described(workspace: DiskWorkspace) -> list[str]:
    """The list of files for the prompt, with their lengths."""
    lines = []
    for path in workspace.files():
        try:
            length = f"{len(split(workspace.read(path)))} lines"
        except WorkspaceError:
            length = "no text"
        lines.append(f"- {path} ({length}{'' if workspace.writable(path) else ', read-only'})")
    return lines
