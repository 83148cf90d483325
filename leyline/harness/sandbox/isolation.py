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
    reason: str | None = None
    for wanted in (
        Isolation(user=True, net=True, pid=True, mounts=True, tmp=True),
        Isolation(user=True, net=True, pid=True),
        Isolation(net=True, pid=True, mounts=True, tmp=True),
        Isolation(user=True, net=True),
    ):
        failure = _probe(wanted, ["/bin/sh", "-c", "echo ready"])
        if failure is None:
            return replace(wanted, tmp=wanted.tmp and _starts_behind_a_private_tmp(wanted), reason=reason)
        reason = reason or failure
    return Isolation(reason=reason)


@functools.cache
def visible() -> tuple[str, ...]:
    """The folders below /tmp and /dev/shm that commands need: those of the interpreter, and this package.

    Under the names they go by and the real ones; none lies in another.
    """
    package = Path(__file__).parents[1]
    program = Path(sys.executable).parent
    folders = {Path(p) for p in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, program, package)}
    folders |= {Path(os.path.realpath(path)) for path in folders} | {Path(os.path.realpath(sys.executable)).parent}
    covered = tuple(f"{os.path.realpath(path)}/" for path in ("/tmp", "/dev/shm"))
    found = {str(path) for path in folders if path.is_dir() and str(path).startswith(covered)}
    return tuple(sorted(path for path in found if not any(path.startswith(f"{other}/") for other in found)))


def _starts_behind_a_private_tmp(wanted: Isolation) -> bool:
    """Whether the interpreter still starts; links of an installation in /tmp can lead by ways that are not visible."""
    return not visible() or _probe(wanted, [sys.executable, "-I", "-c", "print('ready')"]) is None


def _probe(wanted: Isolation, command: Sequence[str]) -> str | None:
    """Why a command cannot be confined so, or None when it can."""
    with tempfile.TemporaryDirectory(prefix="leyline-probe-", ignore_cleanup_errors=True) as folder:
        root, home = Path(folder, "work"), Path(folder, "home")
        root.mkdir()
        (home / "tmp").mkdir(parents=True)
        spec = {**asdict(wanted), "root": str(root), "home": str(home), "visible": visible(), "limits": {}}
        try:
            done = subprocess.run(
                launcher(spec, command),
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
