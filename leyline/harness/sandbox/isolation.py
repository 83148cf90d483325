"""What this system allows for confining a command, found by trying it."""

from __future__ import annotations

# ruff: noqa: PTH100, PTH111, PTH112, PTH113, PTH118
import contextlib
import functools
import json
import os
import pwd
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from leyline.harness.sandbox.cgroup import above

NO_SANDBOX = "LEYLINE_NO_SANDBOX"  # in the environment: commands run unconfined, as --no-sandbox has it
CONFINE = Path(__file__).with_name("_confine.py")


# What a system has for everybody, where it has it.
SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/etc", "/opt"),
    *("/nix/store", "/gnu/store", "/run/current-system", "/sys/devices/system"),
)


@dataclass(frozen=True, slots=True)
class Isolation:
    """What confines a command on this system. reason: why something is missing, or None.

    user, net, pid: namespaces of its own; mounts: of the file system only the workspace, the interpreter and the
    system's folders are there, and all but the first is read-only; tmp: a private /tmp. processes: by what the kernel
    bounds their number: "namespace", a count of its own in the user namespace, "group", a control group, or None.
    """

    user: bool = False
    net: bool = False
    pid: bool = False
    mounts: bool = False
    tmp: bool = False
    processes: str | None = None
    reason: str | None = None


@functools.cache
def isolation() -> Isolation:
    """What this system allows, found once by trying."""
    group = None if above() is None else "group"
    if os.environ.get(NO_SANDBOX):
        return Isolation(processes=group, reason="switched off")
    if sys.platform != "linux":
        return Isolation(reason="namespaces are a Linux feature")
    reason: str | None = None
    for wanted in (
        Isolation(user=True, net=True, pid=True, mounts=True, tmp=True),
        Isolation(net=True, pid=True, mounts=True, tmp=True),
        Isolation(user=True, net=True, pid=True),
        Isolation(user=True, net=True),
    ):
        failure = _probe(wanted, [sys.executable, "-I", "-c", "print('ready')"])
        if failure is None:
            counted = "namespace" if wanted.user and _probe(wanted, _FORKS, {"RLIMIT_NPROC": 8}) is None else group
            return replace(wanted, processes=counted, reason=reason)
        reason = reason or failure
    return Isolation(processes=group, reason=reason)


# Whether a limit of 8 lets some processes start, whatever else this user runs, and not 12 of them.
_FORKS = [
    *(sys.executable, "-I", "-S", "-c"),
    """
import os, signal
children = []
try:
    for _ in range(12):
        children.append(os.fork())
        if not children[-1]:
            signal.pause()
except BlockingIOError:
    pass
for child in children:
    os.kill(child, signal.SIGKILL)
print("ready" if 3 <= len(children) < 12 else f"{len(children)} processes started")
""",
]


@functools.cache
def visible() -> tuple[str, ...]:
    """The folders beside the system's that commands need to see: those of the interpreter, and this package.

    Under the names they go by and the real ones; none lies in another. Of an installation right in somebody's home
    only its parts are taken.
    """
    package = Path(__file__).parents[2]
    folders = {Path(p) for p in (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix)}
    homes = _homes()
    for folder in [folder for folder in folders if any(_within(home, str(folder)) for home in homes)]:
        folders.remove(folder)
        folders |= {Path(path) for name, path in sysconfig.get_paths().items() if name not in ("data", "include")}
    folders.add(package)
    program = Path(sys.executable)
    for _ in range(40):  # every link on the way to the interpreter
        folders.add(program.parent)
        if not program.is_symlink():
            break
        program = program.parent / program.readlink()
    folders = {Path(os.path.abspath(path)) for path in folders}
    folders |= {Path(os.path.realpath(path)) for path in folders}
    kept = [str(path) for path in folders if path.is_dir() and not any(_within(home, str(path)) for home in homes)]
    found = [path for path in kept if not any(_within(path, top) for top in system())]
    return tuple(sorted(path for path in found if not any(_within(path, other) for other in found if other != path)))


@functools.cache
def system() -> tuple[str, ...]:
    """The folders of the system that there are, links among them."""
    return tuple(path for path in SYSTEM if Path(path).is_dir())


@functools.cache
def hidden() -> tuple[str, ...]:
    """What is covered of the system's folders: a home in them, and for the superuser what others may not read."""
    found = [home for home in _homes() if any(_within(home, top) for top in system())]
    if os.getuid() == 0:
        found += _private("/etc")
    return tuple(found)


def _homes() -> set[str]:
    homes = {os.path.expanduser("~")}
    with contextlib.suppress(KeyError):
        homes.add(pwd.getpwuid(os.getuid()).pw_dir)
    return {path for home in homes for path in (home, os.path.realpath(home)) if os.path.isdir(path)} - {"/"}


def _private(top: str) -> Iterator[str]:
    """The files and folders below `top` that are not for everybody to read, those in such a folder aside."""
    for folder, below, names in os.walk(top):
        for name in (*below, *names):
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                mode = os.lstat(path).st_mode
                wanted = stat.S_IROTH | stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
                if (stat.S_ISDIR(mode) or stat.S_ISREG(mode)) and mode & wanted != wanted:
                    yield path
                    if name in below:
                        below.remove(name)


def _within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def resolver() -> tuple[str, ...]:
    """The file that names the servers of the network, where it lies outside the system's folders."""
    real = os.path.realpath("/etc/resolv.conf")
    outside = os.path.isfile(real) and not any(_within(real, top) for top in system())
    return (real,) if outside else ()


def file_system(root: str | Path, home: str | Path, *, network: bool = False) -> dict[str, object]:
    """What the launcher needs to know to show a command only what it needs."""
    return {
        "root": str(root),
        "home": str(home),
        "system": system(),
        "visible": visible(),
        "hidden": hidden(),
        "files": resolver() if network else (),
    }


def _probe(wanted: Isolation, command: Sequence[str], limits: Mapping[str, int] | None = None) -> str | None:
    """Why a command cannot be confined so, or None when it can."""
    with tempfile.TemporaryDirectory(prefix="leyline-probe-", ignore_cleanup_errors=True) as folder:
        root, home = Path(os.path.realpath(folder), "work"), Path(os.path.realpath(folder), "home")
        root.mkdir()
        (home / "tmp").mkdir(parents=True)
        spec = {**asdict(wanted), **file_system(root, home), "limits": limits or {}}
        try:
            done = subprocess.run(
                launcher(spec, command),
                cwd=root,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=60,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        if done.stdout.strip() == b"ready":
            return None
        text = done.stderr.decode("utf-8", "replace").strip() or done.stdout.decode("utf-8", "replace").strip()
        return text or f"status {done.returncode}"


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
        "hidden home": found.mounts,
        "private /tmp": found.tmp,
        "process limit": found.processes is not None,
    }
