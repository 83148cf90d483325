"""A control group for the processes of one command, where the system lets us make one: the kernel counts them."""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "leyline-"


class Group:
    """A group of at most `processes` processes and threads. The launcher enters it by writing to `entrance`."""

    def __init__(self, above: Path, processes: int) -> None:
        self._folder = above / f"{PREFIX}{os.getpid()}-{secrets.token_hex(6)}"
        self._folder.mkdir()
        try:
            (self._folder / "pids.max").write_text(str(processes), "ascii")
        except OSError:
            self.close()
            raise

    @property
    def entrance(self) -> str:
        return str(self._folder / "cgroup.procs")

    def members(self) -> list[int]:
        """The ids of its processes."""
        try:
            return [int(line) for line in Path(self.entrance).read_text("ascii").split()]
        except (OSError, ValueError):
            return []

    def close(self) -> None:
        """End the processes that are left in it, and remove it."""
        for _ in range(1000):
            try:
                self._folder.rmdir()
                return
            except FileNotFoundError:
                return
            except OSError:  # some of them are still on their way out
                for pid in self.members():
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                time.sleep(0.005)


@functools.cache
def above() -> Path | None:
    """The folder in which groups can be made; None where there is none. Removes what killed processes left there."""
    if sys.platform != "linux":
        return None
    for folder in _candidates():
        for left in folder.glob(f"{PREFIX}*"):
            owner = left.name.split("-")[1]
            if owner.isdigit() and not Path("/proc", owner).exists():
                with contextlib.suppress(OSError):
                    left.rmdir()
        try:
            Group(folder, 8).close()
        except OSError:
            continue
        if os.access(folder / "cgroup.procs", os.W_OK):
            return folder
    return None


def _candidates() -> Iterator[Path]:
    """Our own group and those around it, nearest first, as far as they count processes for the groups below them."""
    try:
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text("utf-8").splitlines()]
        groups = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines()]
    except OSError:
        return
    for fields in mounts:
        root, place, (kind, _, options) = fields[3], Path(fields[4]), fields[fields.index("-") + 1 :][:3]
        for _, controllers, path in groups:
            old = kind == "cgroup" and "pids" in controllers.split(",") and "pids" in options.split(",")
            if not old and not (kind == "cgroup2" and not controllers):
                continue
            inside = path.removeprefix(root.rstrip("/")).strip("/")
            own = place / inside if inside and ".." not in inside else place
            if old:
                yield own
                continue
            for folder in (own, *own.parents):
                with contextlib.suppress(OSError):
                    if "pids" in (folder / "cgroup.subtree_control").read_text("ascii").split():
                        yield folder
                if folder == place:
                    break
