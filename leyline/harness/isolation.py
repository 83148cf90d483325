"""What this system allows for confining a command, found by trying it."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

CONFINE = Path(__file__).with_name("_confine.py")


@dataclass(frozen=True, slots=True)
class Isolation:
    """What confines a command on this system. reason: why something is missing, or None.

    user, net, pid: namespaces of its own; mounts: a read-only file system around the workspace; tmp: a private /tmp.
    """

    user: bool = False
    net: bool = False
    pid: bool = False
    mounts: bool = False
    tmp: bool = False
    reason: str | None = None


@functools.cache
def isolation() -> Isolation:
    """What this system allows, found once by trying."""
    if sys.platform != "linux":
        return Isolation(reason="namespaces are a Linux feature")
    # /tmp is replaced unless the interpreter itself lives there.
    tmp = not any(os.path.realpath(path).startswith("/tmp/") for path in (sys.prefix, sys.base_prefix, sys.executable))
    reason: str | None = None
    for wanted in (
        Isolation(user=True, net=True, pid=True, mounts=True, tmp=tmp),
        Isolation(user=True, net=True, pid=True),
        Isolation(net=True, pid=True, mounts=True, tmp=tmp),
        Isolation(user=True, net=True),
    ):
        failure = _probe(wanted)
        if failure is None:
            return replace(wanted, reason=reason)
        reason = reason or failure
    return Isolation(reason=reason)


def _probe(wanted: Isolation) -> str | None:
    """Why a command cannot be confined so, or None when it can."""
    with tempfile.TemporaryDirectory(prefix="leyline-probe-", ignore_cleanup_errors=True) as folder:
        root, home = Path(folder, "work"), Path(folder, "home")
        root.mkdir()
        (home / "tmp").mkdir(parents=True)
        spec = {**asdict(wanted), "root": str(root), "home": str(home), "limits": {}}
        try:
            done = subprocess.run(
                launcher(spec, ["/bin/sh", "-c", "echo ready"]),
                cwd=root,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=10,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.stdout.strip() == b"ready":
            return None
        return done.stderr.decode("utf-8", "replace").strip() or f"status {done.returncode}"


def launcher(spec: Mapping[str, object], argv: Sequence[str]) -> list[str]:
    """The program that confines itself as `spec` says (see `_confine.py`) and becomes `argv`."""
    return [sys.executable, "-I", "-S", "-B", str(CONFINE), json.dumps(spec), *argv]


def capabilities() -> dict[str, bool]:
    """What is in force here, by name, for a person to read."""
    found = isolation()
    return {
        "no network": found.net,
        "own process tree": found.pid,
        "read-only file system": found.mounts,
        "private /tmp": found.tmp,
    }
