"""What a command may use, and what of that the kernel is told."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from leyline.harness.sandbox.isolation import Isolation

SLACK = 16  # processes above the limit that the kernel lets start, so that the watch sees a tree go over it


@dataclass(frozen=True, slots=True)
class CommandLimits:
    """What a command may use.

    seconds: wall time. memory: bytes, of address space per process, resident over all of them, and of a private
    /dev/shm. processes: of the whole tree, threads counted; a tree that goes over it is stopped, and the kernel lets no
    more than a few above it start where the system allows such a limit. output: characters kept. file_bytes: the
    largest file it may write. disk: bytes by which all commands of a sandbox together may grow the files of its
    workspace and home; looked at every half second or less often, so a fast writer gets somewhat further before it is
    stopped.
    """

    seconds: float = 60.0
    memory: int = 4 << 30
    processes: int = 128
    output: int = 20_000
    file_bytes: int = 256 << 20
    disk: int = 1 << 30


def resource_limits(limits: CommandLimits, confined: Isolation) -> dict[str, int]:
    """What the kernel is told of a command's limits, by the names of `resource`."""
    found = {
        "RLIMIT_AS": limits.memory,
        "RLIMIT_CPU": math.ceil(limits.seconds) * (os.cpu_count() or 1) + 5,  # should the watcher die
        "RLIMIT_FSIZE": limits.file_bytes,
        "RLIMIT_CORE": 0,
        "RLIMIT_NOFILE": 1024,
    }
    # Counted over all that this user runs, it would stop one worker for what the others do.
    return {**found, "RLIMIT_NPROC": limits.processes + SLACK} if confined.processes == "namespace" else found
