"""Commands under limits: time, memory, processes, output, disk; no secrets, and no network where the system allows it.

A command is started through `_confine.py`, which sets the resource limits and, on Linux, enters namespaces of its own:
no network, no foreign processes, and of the file system only the workspace, the interpreter and the system's folders.
The kernel counts its processes. What the system refuses is left out; `isolation()` says what is in force.
"""

from __future__ import annotations

import errno
import functools
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from leyline.directives import LeylineError
from leyline.harness.sandbox.cgroup import Group, above
from leyline.harness.sandbox.disk import DiskWatch
from leyline.harness.sandbox.isolation import Isolation, capabilities, file_system, isolation, launcher
from leyline.harness.sandbox.limits import SLACK, CommandLimits, resource_limits
from leyline.harness.sandbox.process import FLOOD, WATCH_SECONDS, Capture, Process, capped, uninterrupted

__all__ = [
    "CommandLimits",
    "HarnessError",
    "Isolation",
    "Result",
    "Sandbox",
    "SandboxError",
    "capabilities",
    "capped",
    "isolation",
    "run",
]

SYSTEM_PATH = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin")
CONFINED = "confined"  # what the launcher tells when nothing but the command itself is left to start


class SandboxError(LeylineError):
    """A command could not be started at all."""


class HarnessError(LeylineError):
    """The harness failed, not the agent: its trial is void. The message says what to look at."""


@dataclass(frozen=True, slots=True)
class Result:
    """What a command did.

    exit_code: 128 + n for signal n. killed: why it was stopped ("time", "memory", "processes", "output", "disk"), or
    None. "disk" also says that it ended by itself and left too much. refused: why its program could not be started.
    """

    exit_code: int
    output: str
    seconds: float
    truncated: bool = False
    killed: str | None = None
    limits: CommandLimits = field(default_factory=CommandLimits)
    refused: str | None = None

    @property
    def timed_out(self) -> bool:
        return self.killed == "time"

    def report(self, *, status: bool = False) -> str:
        """The output as a model reads it, with a last line that says what stopped it; `status`: or its exit code."""
        notes = {
            "time": f"[stopped after {self.limits.seconds:g} s]",
            "memory": f"[stopped: over {self.limits.memory >> 20} MiB of memory]",
            "processes": f"[stopped: over {self.limits.processes} processes]",
            "output": "[stopped: too much output]",
            "disk": f"[stopped: over {self.limits.disk >> 20} MiB of new files; remove some]",
        }
        note = notes.get(self.killed or "", f"[exit code {self.exit_code}]" if status and self.exit_code else "")
        text = self.output.rstrip("\n")
        return "\n".join(part for part in (text, note) if part) or "(no output)"

    def last_line(self) -> str:
        """The last line of a run that came to nothing, or how it ended."""
        return self.report(status=not self.output.strip()).splitlines()[-1]


class Sandbox:
    """Runs commands in `root`, with `home` as their home and the place for temporary files.

    network: leave the network on. env: variables beside the fixed, scrubbed set.
    """

    def __init__(
        self,
        root: str | Path,
        home: str | Path,
        *,
        limits: CommandLimits | None = None,
        network: bool = False,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.root, self.home = Path(os.path.realpath(root)), Path(os.path.realpath(home))
        self.limits = limits or CommandLimits()
        self._network = network
        self.env = dict(env or {})
        (self.home / "tmp").mkdir(parents=True, exist_ok=True)
        self.disk = DiskWatch(self.root, self.home)

    def run(self, command: str | Sequence[str], *, seconds: float | None = None) -> Result:
        """Run a shell command line, or a program with arguments, to its end or to the first limit it meets.

        Everything it started is gone when this returns. Raises ValueError for a command no system takes (a NUL byte),
        SandboxError when nothing can be started, and HarnessError when that is not the agent's doing.
        """
        limits = self._limits(seconds)
        capture = Capture(limits.output)
        process: Process | None = None
        killed: str | None = None
        told: str | None = None
        try:
            with uninterrupted():
                process = self.start(command, seconds=seconds)
            deadline, watch = process.started + limits.seconds, process.started + WATCH_SECONDS
            while process.exit_code() is None and killed is None:
                now = time.monotonic()
                capture.feed(process.read(min(deadline, watch) - now))
                now = time.monotonic()
                if now >= deadline:
                    killed = "time"
                elif capture.received > FLOOD:
                    killed = "output"
                elif now >= watch:
                    killed = process.over(limits.processes, limits.memory)
                    killed = killed or ("disk" if self.disk.full(limits.disk) else None)
                    watch = time.monotonic() + WATCH_SECONDS
            code = process.exit_code()
            while data := process.read(0):  # what was written before the end
                capture.feed(data)
            elapsed = time.monotonic() - process.started
            told = process.told() if killed is None else None
        finally:
            if process is not None:
                process.kill()
        full = self.disk.full(limits.disk, end=True)
        killed = killed or ("disk" if full else None)
        capture.feed(b"", final=True)
        code = 137 if code is None else code
        output = self.relative(capture.text())
        if told is not None and not told.startswith(CONFINED) and self.accessible():
            raise _broken(told or (output.strip().splitlines() or [f"status {code}"])[-1])
        refused = told.removeprefix(CONFINED) if told is not None else ""
        return Result(code, output, elapsed, bool(capture.removed), killed, limits, refused or None)

    def start(self, command: str | Sequence[str], *, seconds: float | None = None, stdin: bool = False) -> Process:
        """Start a command and return at once; the caller watches its time and must `kill()` it.

        Raises SandboxError and HarnessError.
        """
        argv = [_shell(), "-c", command] if isinstance(command, str) else list(command)
        limits = self._limits(seconds)
        confined = isolation()
        env = self._environment(confined)
        group = _group(confined, limits)
        report = os.pipe()
        spec = {
            **file_system(self.root, self.home, network=self._network),
            "report": report[1],
            "group": group and group.entrance,
            "user": confined.user,
            "net": confined.net and not self._network,
            "pid": confined.pid,
            "mounts": confined.mounts,
            "limits": resource_limits(limits, confined),
        }
        try:
            return Process(
                launcher(spec, argv),
                cwd=self.root,
                env=env,
                token=secrets.token_hex(8),
                namespace=confined.pid,
                stdin=stdin,
                report=report,
                group=group,
            )
        except OSError as error:
            if error.errno != errno.E2BIG and self.accessible():
                raise _broken(f"{sys.executable}: {error.strerror or error}") from error
            raise SandboxError(f"cannot start a command in {self.root}: {error.strerror or error}") from error

    def accessible(self) -> bool:
        """Whether the folders can be entered: a command may have locked or removed its own."""
        return all(os.access(folder, os.R_OK | os.W_OK | os.X_OK) for folder in (self.root, self.home))

    def _limits(self, seconds: float | None) -> CommandLimits:
        return self.limits if seconds is None else replace(self.limits, seconds=seconds)

    def _environment(self, confined: Isolation) -> dict[str, str]:
        here = Path(sys.executable).parent
        if not (here / "python").exists():  # an installation that only has python3
            here = self.home / "bin"
            _write_program(here, "python", f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        return {
            "PATH": os.pathsep.join([str(here), *SYSTEM_PATH]),
            "HOME": str(self.home),
            "TMPDIR": "/tmp" if confined.tmp else str(self.home / "tmp"),
            "LANG": "C.UTF-8",
            "LC_ALL": "C.UTF-8",
            "TERM": "dumb",
            "COLUMNS": "80",
            "NO_COLOR": "1",
            "PAGER": "cat",
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONNOUSERSITE": "1",
            "PYTHONIOENCODING": "utf-8:replace",
            "OMP_NUM_THREADS": "1",
            **self.env,
        }

    def relative(self, text: str) -> str:
        """The output with paths below the root as the tools take them: no trial reads the name of its own folder."""
        text = text.replace(f"{self.root}/", "").replace(str(self.root), ".")
        return text.replace(str(self.home), "~")


def run(
    command: str | Sequence[str],
    cwd: str | Path,
    *,
    limits: CommandLimits | None = None,
    network: bool = False,
    env: Mapping[str, str] | None = None,
) -> Result:
    """Run one command in `cwd` with a home that is removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="leyline-home-", ignore_cleanup_errors=True) as home:
        return Sandbox(cwd, home, limits=limits, network=network, env=env).run(command)


def _broken(reason: str) -> HarnessError:
    return HarnessError(f"the sandbox cannot start a command: {reason} (`leyline doctor` tries it)")


def _write_program(folder: Path, name: str, text: str) -> None:
    """Put a script there, anew. Commands write there too: a link that one of them left is not followed."""
    if folder.is_symlink() or not folder.is_dir():
        folder.unlink(missing_ok=True)
        folder.mkdir()
    scratch = f".{secrets.token_hex(8)}"
    where = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755, dir_fd=where), "w") as file:  # noqa: PTH123
            file.write(text)
        os.replace(scratch, name, src_dir_fd=where, dst_dir_fd=where)
    finally:
        os.close(where)


@functools.cache
def _shell() -> str:
    return shutil.which("bash") or "/bin/sh"


def _group(confined: Isolation, limits: CommandLimits) -> Group | None:
    """A control group for one command, where that is what bounds its processes."""
    folder = above() if confined.processes == "group" else None
    try:
        return None if folder is None else Group(folder, limits.processes + SLACK)
    except OSError as error:
        raise _broken(f"no control group: {error.strerror or error}") from error
