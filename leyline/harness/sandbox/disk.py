"""How much room the files of a sandbox take, looked at while a command runs."""

# ruff: noqa: PTH118 - tens of thousands of files are looked at

from __future__ import annotations

import os
import time
from pathlib import Path

BLOCK = 4096
LEAST_SECONDS = 0.5
MOST_SHARE = 0.05  # of the time, for looking


def used(*folders: Path) -> int:
    """Bytes that all below the folders takes on disk: a block each at least, hard links once, links not followed."""
    total, seen = 0, set()
    for folder in folders:
        for here, below, names in os.walk(folder):
            for name in (*below, *names):
                try:
                    status = os.lstat(os.path.join(here, name))
                except OSError:
                    continue  # it went while we looked
                if status.st_nlink > 1 and name not in below:
                    if (status.st_dev, status.st_ino) in seen:
                        continue
                    seen.add((status.st_dev, status.st_ino))
                total += max(512 * status.st_blocks, BLOCK)
    return total


class DiskWatch:
    """Tells when files grew by more than they may. What a command removed while it holds it open is not seen."""

    def __init__(self, *folders: Path) -> None:
        self._folders = folders
        self._start = self._before = used(*folders)
        self._next = 0.0

    def full(self, limit: int, *, end: bool = False) -> bool:
        """Whether the files take over `limit` bytes more than at first, and no less than before this command.

        A command that makes room is so left to its work. The answer is False until it is time to look; `end`: the
        command has ended, so look now.
        """
        started = time.monotonic()
        if started < self._next and not end:
            return False
        size = used(*self._folders)
        ended = time.monotonic()
        self._next = ended + max(LEAST_SECONDS, (ended - started) / MOST_SHARE)
        full = size - self._start > limit and size >= self._before
        if end:
            self._before = size
        return full
