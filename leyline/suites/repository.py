"""A repository and a request: the agent's work is a patch, judged by a test command where there is one."""

from __future__ import annotations

import functools
import hashlib
import re
import secrets
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import pathspec

from leyline.harness.sandbox.sandbox import CommandLimits, HarnessError, Result, run
from leyline.harness.tasks import Task
from leyline.harness.verdict.shadows import cut_short
from leyline.harness.workspace.snapshot import walk
from leyline.harness.workspace.workspace import JUNK, DiskWorkspace, WorkspaceError, patterns_of
from leyline.suites.shell_test import NOT_STARTED, programs, watched
from leyline.suites.suite import SuiteError

TOOLS = ("bash", "view", "grep", "edit", "submit")
MOST_LISTED = 60
# The bare name or the whole path of the program that a shell command starts first. A path in the repository may be a
# file that the agent is to write, and what is behind an expansion, a quote, a PATH or a function is for the shell to
# say when it comes to it.
_FIRST_PROGRAM = re.compile(
    r"\s*(?:(?!PATH=)[A-Za-z_]\w*=[\w.,:/-]*[ \t]+)*([A-Za-z_][\w.+-]*|/[\w./+-]+)(?=[\s;&|<>]|$)(?![ \t]*\()"
)
COMMIT = (
    "command -v git >/dev/null && git init -q && git add -A && "
    "git -c user.name=leyline -c user.email=leyline@localhost commit -q -m start"
)
SYSTEM = """You are a software engineer in a copy of a repository. Do what the request asks by changing its files.
Call one tool at a time. Look before you edit, and check what you changed. When you are done, submit."""


class _Answer(NamedTuple):
    """What a test command says of files. answered: its status is a yes or a no; told: its last line.

    cut_short: as of `Judged`.
    """

    passed: bool
    answered: bool
    told: str
    cut_short: bool = False


@dataclass(frozen=True)
class RepositoryTask(Task):
    """A folder, usually a git checkout, and what to do in it.

    request: the text of the request. test: a shell command whose exit code 0 says that it is done; without one there
    is no verdict, only a patch. protect: gitignore-style patterns of files the agent may not edit and that are
    restored before the verdict, such as the tests. What `.gitignore` names is there but not shown.
    """

    folder: Path
    request: str
    test: str | None = None
    protect: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    max_turns: int = 80
    limits: CommandLimits = field(default_factory=lambda: CommandLimits(seconds=300))
    network: bool = False
    env: Mapping[str, str] = field(default_factory=dict)
    system: str = SYSTEM

    def __post_init__(self) -> None:
        if not self.folder.is_dir():
            raise SuiteError(f"no folder {self.folder}; give the repository to work on")
        if not self.request.strip():
            raise SuiteError("the request is empty; say what is to be done")
        if self.test is not None and all(line.strip()[:1] in ("", "#") for line in self.test.splitlines()):
            raise SuiteError("the test command is empty, which would pass whatever was done; give one, or none at all")
        if not self.tools:
            tools = TOOLS if self.test is None else (*TOOLS[:-1], "eval", TOOLS[-1])
            object.__setattr__(self, "tools", tools)

    @property
    def id(self) -> str:  # type: ignore[override]
        return f"{self.folder.resolve().name}-{hashlib.sha256(self.request.encode()).hexdigest()[:8]}"

    @functools.cached_property
    def user(self) -> str:  # type: ignore[override]
        ignore = pathspec.GitIgnoreSpec.from_lines((*JUNK, *self._ignored()))
        paths = [path for path in walk(self.folder, ignore) if not ignore.match_file(path)]
        listed = [f"- {path}" for path in paths[:MOST_LISTED]]
        if len(paths) > MOST_LISTED:
            listed.append(f"({len(paths) - MOST_LISTED} more)")
        return f"{self.request.strip()}\n\nFiles:\n" + "\n".join(listed)

    def workspace(self) -> DiskWorkspace:
        """A copy without the history; where git is installed it is a repository of one commit."""
        workspace = DiskWorkspace(self.folder, ignore=self._ignored(), readonly=self.protect)
        try:
            self.sandbox(workspace).run(COMMIT)
        except BaseException:
            workspace.close()
            raise
        return workspace

    def _ignored(self) -> tuple[str, ...]:
        return patterns_of(self.folder / ".gitignore")

    def eval_command(self, number: int) -> Sequence[str] | None:
        return None if self.test is None else ["/bin/sh", "-c", self.test]

    def verdict(self, workspace: DiskWorkspace) -> bool | None:
        """Whether the test command ends with 0; a program that did not start is no verdict, whatever is made of it.

        Raises HarnessError when the command comes to no answer on the files as they were at first either.
        """
        if self.test is None:
            return None
        found = self._tested(workspace)
        if not found.answered:
            self._need_start()
        if found.passed and found.cut_short:
            with self.workspace() as fresh:  # a command may end like this by itself, whatever is tested
                if not self._tested(fresh).cut_short:
                    return False
        if not found.passed or not (missing := self._missing()):
            return found.passed
        with self.workspace() as fresh:
            if self._tested(fresh).passed:
                raise HarnessError(
                    f"the test command passes on the files as they were at first, without {missing[0]!r}, which the "
                    "sandbox does not have; install it, or give a command that does without"
                )
        return True

    def _tested(self, workspace: DiskWorkspace) -> _Answer:
        try:
            with self.untouched(workspace) as (copy, sandbox):
                note = copy.home / secrets.token_hex(8)
                test = watched(self.test or "", str(note))
                if guard := sandbox.env.get("PYTHONPATH"):  # a command that sets a path of its own keeps what it had
                    test = re.sub(r"""\bPYTHONPATH=(["']?)""", rf"PYTHONPATH=\1{guard}:", test)
                result = self.run_tests(sandbox, ["/bin/sh", "-c", test])
                answered = result.exit_code not in NOT_STARTED and not note.exists()
                passed = result.exit_code == 0 and answered and not result.killed
                said = answered or result.killed is not None
                return _Answer(passed, said, result.last_line(), cut_short(sandbox))
        except WorkspaceError:
            return _Answer(False, True, "its files cannot be copied")

    def _missing(self) -> list[str]:
        """The programs of the test command that the sandbox does not find."""
        names = list(dict.fromkeys(programs(self.test or "")))
        if not names:
            return []
        asked = 'for name in "$@"; do command -v "$name" >/dev/null || echo "$name"; done'
        return self._probe("-c", asked, "sh", *names).output.split()

    def check_test(self) -> None:
        """Find what would keep the test command from starting, without running it. Raises SuiteError, HarnessError."""
        if self.test is None:
            return
        read = self._probe("-n", "-c", self.test)
        if read.exit_code != 0:
            raise SuiteError(f"the shell cannot read the test command {self.test!r}: {read.last_line()}")
        first = _FIRST_PROGRAM.match(self.test)
        if first and self._probe("-c", 'command -v "$1"', "sh", first[1]).exit_code != 0:
            raise SuiteError(
                f"the test command does not start: the sandbox has no {first[1]!r}; it looks beside its own python and "
                "in the system's folders and sees no others, so install it there (or run without: --no-sandbox)"
            )

    def _probe(self, *words: str) -> Result:
        """Run the shell as the tests do, in an empty folder."""
        with tempfile.TemporaryDirectory(prefix="leyline-probe-", ignore_cleanup_errors=True) as folder:
            return run(["/bin/sh", *words], folder, env=self.env)

    def _need_start(self) -> None:
        """Raise HarnessError unless the test command answers on the files as they were: then the agent broke it."""
        with self.workspace() as fresh:
            found = self._tested(fresh)
        if not found.answered:
            raise HarnessError(
                f"the test command does not start, with the files as they were at first either: {found.told}"
            )


def request_of(text: str) -> str:
    """A request given as text, or as the path of a file that holds it."""
    try:
        path = Path(text)
        return path.read_text("utf-8") if path.is_file() else text
    except UnicodeDecodeError as error:
        raise SuiteError(f"{text} is not UTF-8 text; give the request as a text file") from error
    except (OSError, ValueError):  # no path: too long, or with a NUL byte
        return text
