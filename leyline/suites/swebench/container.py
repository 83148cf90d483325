"""Commands of a trial in a container of the row's image; the files stay on this side and are mounted there."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from leyline.harness.sandbox.process import Process
from leyline.harness.sandbox.sandbox import Limits, Result, Sandbox, SandboxError
from leyline.harness.workspace.workspace import DiskWorkspace
from leyline.suites.suite import SuiteError

TESTBED = "/testbed"  # where SWE-bench's images hold the repository
LIFETIME = 4 * 3600  # seconds after which a container ends whose owner was killed
_ACTIVATE = (
    "if [ -f /opt/miniconda3/bin/activate ]; then . /opt/miniconda3/bin/activate && conda activate testbed; fi "
    ">/dev/null 2>&1; "
)
_KEPT = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_CERT_PATH", "DOCKER_TLS_VERIFY")


def docker_missing() -> str | None:
    """Why Docker cannot be used here, or None when it can."""
    if shutil.which("docker") is None:
        return "Docker is not installed"
    try:
        docker("info", "--format", "{{.ServerVersion}}", seconds=20)
    except SuiteError as error:
        return f"the Docker daemon does not answer ({error})"
    return None


def image_of(row: Mapping[str, Any]) -> str:
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

    def __init__(self, workspace: DiskWorkspace, image: str, *, limits: Limits | None = None) -> None:
        super().__init__(workspace.root, workspace.home, limits=limits)
        self._id = docker(
            "run",
            "--detach",
            "--rm",
            "--init",
            "--network=none",
            f"--user={os.getuid()}:{os.getgid()}",
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

    def run(self, command: str | Sequence[str], *, seconds: float | None = None) -> Result:
        try:
            return super().run(command, seconds=seconds)
        finally:
            with contextlib.suppress(SuiteError):  # what the command left running
                docker("exec", self._id, "sh", "-c", "kill -9 -1")

    def start(self, command: str | Sequence[str], *, seconds: float | None = None, stdin: bool = False) -> Process:
        limit = f"{self._limits(seconds).seconds:g}"
        argv = ["bash", "-c", _ACTIVATE + command] if isinstance(command, str) else list(command)
        inside = ["timeout", "-k", "5", limit, *argv]
        try:
            return Process(
                ["docker", "exec", *(["-i"] if stdin else []), self._id, *inside],
                cwd=self.root,
                env={name: os.environ[name] for name in _KEPT if name in os.environ},
                token=secrets.token_hex(8),
                namespace=False,
                stdin=stdin,
            )
        except OSError as error:
            raise SandboxError(f"cannot run docker exec: {error.strerror or error}") from error

    def relative(self, text: str) -> str:
        return super().relative(text.replace(f"{TESTBED}/", ""))

    def close(self) -> None:
        with contextlib.suppress(SuiteError):
            docker("rm", "-f", self._id)


def docker(*arguments: str, seconds: float = 1800) -> str:
    """Run the docker command and return what it printed. Raises SuiteError with the last line of its error."""
    try:
        done = subprocess.run(
            ["docker", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except OSError as error:
        raise SuiteError(f"cannot run docker: {error.strerror or error}") from None
    except subprocess.TimeoutExpired:
        raise SuiteError(f"docker {arguments[0]} took over {seconds:g} s") from None
    if done.returncode:
        raise SuiteError(f"docker {arguments[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return done.stdout
