"""Commands of a trial in a container of the row's image; the files stay on this side and are mounted there."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from leyline.harness.sandbox.process import TOKEN, Process
from leyline.harness.sandbox.sandbox import CommandLimits, Sandbox, SandboxError
from leyline.harness.workspace.workspace import DiskWorkspace
from leyline.suites.suite import SuiteError

TESTBED = "/testbed"  # where SWE-bench's images hold the repository
LIFETIME = 4 * 3600  # seconds after which a container ends whose owner was killed
_ACTIVATE = (
    "if [ -f /opt/miniconda3/bin/activate ]; then . /opt/miniconda3/bin/activate && conda activate testbed; fi "
    ">/dev/null 2>&1; "
)
_KEPT = (
    *("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY"),
    *("CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "CONTAINER_HOST", "XDG_RUNTIME_DIR", "TMPDIR"),
)
# Run in the container: ends what carries the mark of one command in its environment, and nothing else. What forks
# while it looks is found the next time.
_END = (
    'n=0; while [ $n -lt 50 ]; do n=$((n+1)); found=; for p in /proc/[0-9]*; do if grep -zqxF "$0" "$p/environ" '
    '2>/dev/null; then found=1; kill -9 "${p#/proc/}" 2>/dev/null; fi; done; [ -n "$found" ] || exit 0; done'
)


def docker_missing() -> str | None:
    """Why Docker cannot be used here, or None when it can."""
    if shutil.which("docker") is None:
        return "Docker is not installed"
    try:
        _call("docker", "info", "--format", "{{.ServerVersion}}", seconds=20)
    except SuiteError as error:
        return f"the Docker daemon does not answer ({error})"
    return None


def engine_missing() -> str | None:
    """Why no container can be run here, or None when one can: by Docker, else by podman."""
    missing = docker_missing()
    return None if missing is None or _engine() == "podman" else missing


def _engine() -> str:
    """The command that runs containers here: podman where it works and Docker does not."""
    return _chosen(shutil.which("docker"), shutil.which("podman"))


@functools.cache
def _chosen(docker_at: str | None, podman_at: str | None) -> str:
    if podman_at is None or (docker_at is not None and docker_missing() is None):
        return "docker"
    try:
        _call("podman", "info", "--format", "{{.Version.Version}}", seconds=60)
    except SuiteError:
        return "docker"
    return "podman"


def image_of(row: Mapping[str, object]) -> str:
    """The image that a row names, else the published one of its instance."""
    named = row.get("image")
    if named:
        return str(named)
    return f"swebench/sweb.eval.x86_64.{str(row['instance_id']).replace('__', '_1776_')}:latest".lower()


@contextlib.contextmanager
def image_files(image: str) -> Iterator[Path]:
    """A temporary copy of the repository as the image holds it, build products included. Raises SuiteError."""
    created = docker("create", image, "true").strip().splitlines()[-1]
    try:
        with tempfile.TemporaryDirectory(prefix="leyline-image-", ignore_cleanup_errors=True) as folder:
            docker("cp", f"{created}:{TESTBED}/.", folder)
            yield Path(folder)
    finally:
        with contextlib.suppress(SuiteError):
            docker("rm", "-f", created)


class ContainerSandbox(Sandbox):
    """Runs commands in a container that sees the workspace as /testbed, as the user who owns it, without a network."""

    def __init__(self, workspace: DiskWorkspace, image: str, *, limits: CommandLimits | None = None) -> None:
        super().__init__(workspace.root, workspace.home, limits=limits)
        self._engine = _engine()
        self._id = _call(
            self._engine,
            "run",
            "--detach",
            "--rm",
            "--init",
            "--network=none",
            f"--user={os.getuid()}:{os.getgid()}",
            *(["--userns=keep-id"] if self._engine == "podman" and os.getuid() else []),
            f"--memory={self.limits.memory}",
            f"--pids-limit={self.limits.processes}",
            "--cap-drop=ALL",
            "--security-opt=no-new-privileges",
            f"--volume={self.root}:{TESTBED}",
            f"--workdir={TESTBED}",
            "--env=HOME=/tmp",
            image,
            "sleep",
            str(LIFETIME),
        ).strip()

    def start(self, command: str | Sequence[str], *, seconds: float | None = None, stdin: bool = False) -> Process:
        limit = f"{self._limits(seconds).seconds:g}"
        argv = ["bash", "-c", _ACTIVATE + command] if isinstance(command, str) else list(command)
        inside = ["timeout", "-k", "5", limit, *argv]
        token = secrets.token_hex(8)
        mark = f"{TOKEN}={token}"
        try:
            return _Command(
                self._engine,
                self._id,
                mark,
                [self._engine, "exec", f"--env={mark}", *(["-i"] if stdin else []), self._id, *inside],
                cwd=self.root,
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
                token=token,
                namespace=False,
                stdin=stdin,
            )
        except OSError as error:
            raise SandboxError(f"cannot run {self._engine} exec: {error.strerror or error}") from error

    def relative(self, text: str) -> str:
        return super().relative(text.replace(f"{TESTBED}/", ""))

    def close(self) -> None:
        with contextlib.suppress(SuiteError):
            _call(self._engine, "rm", "-f", self._id)


class _Command(Process):
    """A command in a container. The process here is the engine's client: its end is not the end of what runs there."""

    def __init__(self, engine: str, container: str, mark: str, argv: Sequence[str], **rest: Any) -> None:
        self._there = (engine, "exec", container, "sh", "-c", _END, mark)
        super().__init__(argv, **rest)

    def kill(self) -> None:
        super().kill()
        with contextlib.suppress(SuiteError):
            _call(*self._there, seconds=120)


def docker(*arguments: str, seconds: float = 1800) -> str:
    """Run the engine's command and return what it printed. Raises SuiteError with the last line of its error."""
    return _call(_engine(), *arguments, seconds=seconds)


def _call(engine: str, *arguments: str, seconds: float = 1800) -> str:
    try:
        done = subprocess.run(
            [engine, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except OSError as error:
        raise SuiteError(f"cannot run {engine}: {error.strerror or error}") from None
    except subprocess.TimeoutExpired:
        raise SuiteError(f"{engine} {arguments[0]} took over {seconds:g} s") from None
    if done.returncode:
        raise SuiteError(f"{engine} {arguments[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return done.stdout
