"""A micro task: a few small modules with bugs, visible tests that fail, and hidden tests that decide."""

from __future__ import annotations

import base64
import functools
import inspect
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from leyline.suites.micro import outcome, runner
from leyline.suites.micro.units import Unit


@dataclass(frozen=True, slots=True)
class Bug:
    """One injected bug; `line` is 1-based in the task's file, at the first line that differs from the correct unit."""

    path: str
    line: int
    unit: str
    family: str
    kind: str


@dataclass(frozen=True)
class MicroTask:
    """A generated debugging task.

    id: `micro-LEVEL-SPLIT-SEED`; files: buggy sources and visible tests by path, in name order; hidden: the text of the
    hidden tests; noise: 0 to 3, how much captured log a failing run shows; budget: turns an agent gets.
    program: the correct units in module order, where: the module of each by name, and reference: the correct modules by
    path (for the scripted oracle).
    """

    id: str
    seed: int
    level: str
    split: str
    files: Mapping[str, str]
    test_path: str
    hidden: str
    noise: int
    bugs: tuple[Bug, ...]
    program: tuple[Unit, ...] = field(repr=False, default=())
    where: Mapping[str, str] = field(repr=False, default_factory=dict)
    reference: Mapping[str, str] = field(repr=False, default_factory=dict)

    @property
    def budget(self) -> int:
        return 18 + 12 * len(self.bugs)

    @property
    def read_only(self) -> frozenset[str]:
        """Paths an agent may not edit."""
        return frozenset({self.test_path})

    @property
    def modules(self) -> list[str]:
        """The source files, without the tests."""
        return [p for p in self.files if p != self.test_path]

    def evaluate(self, files: Mapping[str, str], run_number: int) -> tuple[str, bool]:
        """What the `eval` tool shows for `files` at the run_number-th run (from 1), executed in this process.

        Returns the report and whether all visible tests passed.
        """
        text, report = runner.evaluate(self._honest(files), self.test_path, self.id, run_number, self.noise)
        return text, report.ok

    def solved(self, files: Mapping[str, str]) -> bool:
        """Whether visible and hidden tests pass; changed test files are ignored. Executed in this process."""
        return runner.passes(self._honest(files), self.test_path, self.files[self.test_path], self.hidden)

    def eval_command(self, run_number: int, folder: str = ".") -> list[str]:
        """The command that prints what `evaluate` returns, for a sandbox; exit code 0 when all visible tests pass."""
        arguments = ["--id", self.id, "--run", str(run_number), "--noise", str(self.noise)]
        return [*_runner_command(folder, self.test_path), *arguments]

    def check_command(self, folder: str = ".") -> list[str]:
        """The command whose exit code is 0 exactly when visible and hidden tests pass."""
        blobs = (
            base64.b64encode(zlib.compress(t.encode(), 9)).decode() for t in (self.files[self.test_path], self.hidden)
        )
        return [*_runner_command(folder, self.test_path), "--hidden", ",".join(blobs)]

    def _honest(self, files: Mapping[str, str]) -> dict[str, str]:
        return {**files, self.test_path: self.files[self.test_path]}


def _runner_command(folder: str, test_path: str) -> list[str]:
    return [sys.executable, "-I", "-c", _runner_text(), "--folder", folder, "--test", test_path]


_PROGRAM = """import sys, types
for name, text in {modules!r}.items():
    module = sys.modules[name] = types.ModuleType(name)
    exec(compile(text, name, "exec"), vars(module))
exec(compile({main!r}, "runner.py", "exec"), globals())
"""


@functools.cache
def _runner_text() -> str:
    """The runner goes along as text: a sandbox need not see this package, nor be allowed to read it."""
    modules = {outcome.__name__: inspect.getsource(outcome)}
    return _PROGRAM.format(modules=modules, main=inspect.getsource(runner))
