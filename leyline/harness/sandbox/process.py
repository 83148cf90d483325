"""One confined process tree: started in its own session, watched while it runs, killed whole."""

# ruff: noqa: PTH116, PTH123, PTH208

from __future__ import annotations

import codecs
import contextlib
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from leyline.harness.sandbox.cgroup import Group

PAGE = os.sysconf("SC_PAGE_SIZE")
TOKEN = "LEYLINE_SANDBOX"
WATCH_SECONDS = 0.1
FLOOD = 64_000_000  # bytes of output after which a command is stopped


def capped(text: str, limit: int) -> str:
    """`text`, or its head and tail of `limit` // 2 characters each with a note between them."""
    if len(text) <= limit:
        return text
    half = limit // 2
    return f"{text[:half]}\n[... {len(text) - 2 * half} characters removed ...]\n{text[len(text) - half :]}"


class Capture:
    """The head and the tail of a stream of bytes, decoded, in bounded memory."""

    def __init__(self, limit: int) -> None:
        self._half = limit // 2
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._head = ""
        self._tail = ""
        self.removed = 0
        self.received = 0

    def feed(self, data: bytes, *, final: bool = False) -> None:
        self.received += len(data)
        text = self._decoder.decode(data, final)
        room = self._half - len(self._head)
        self._head += text[:room]
        self._tail += text[room:]
        if len(self._tail) > 16 * self._half or final:
            cut = max(0, len(self._tail) - self._half)
            self.removed += cut
            self._tail = self._tail[cut:]

    def text(self) -> str:
        note = f"\n[... {self.removed} characters removed ...]\n" if self.removed else ""
        return self._head + note + self._tail


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block ends, so that a process that was started is known to whoever must end it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[tuple[int, FrameType | None]] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: waiting.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before if before is not None else signal.default_int_handler)
        if waiting and callable(before):
            before(*waiting[0])


@dataclass(frozen=True, slots=True)
class Member:
    """A process of a tree: its id, threads and resident bytes."""

    pid: int
    threads: int
    resident: int


class Process:
    """A running command. `namespace`: it has a process namespace of its own, so its end is the end of its children.

    report: a pipe on whose writing end the launcher tells how far it came. Both ends are this object's to close, and so
    is group, the control group that the launcher enters.
    """

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        token: str,
        namespace: bool,
        stdin: bool = False,
        report: tuple[int, int] | None = None,
        group: Group | None = None,
    ) -> None:
        self.started = time.monotonic()
        self._report = report
        self._group = group
        self._token = f"{TOKEN}={token}".encode()
        self._namespace = namespace
        try:
            self._popen = subprocess.Popen(
                list(argv),
                cwd=cwd,
                env={**env, TOKEN: token},
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
                start_new_session=True,
                pass_fds=report[1:] if report else (),
            )
        except BaseException:
            self._release()
            raise
        assert self._popen.stdout is not None
        self._out = self._popen.stdout
        os.set_blocking(self._out.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._out, selectors.EVENT_READ)
        self._open = True

    @property
    def pid(self) -> int:
        return self._popen.pid

    def exit_code(self) -> int | None:
        """The status of the command, 128 + n for signal n, or None while it runs."""
        code = self._popen.poll()
        return code if code is None or code >= 0 else 128 - code

    def told(self) -> str | None:
        """What the launcher told so far; None where it has no way to."""
        if self._report is None:
            return None
        os.set_blocking(self._report[0], False)
        try:
            return os.fsdecode(os.read(self._report[0], 4096))
        except BlockingIOError:
            return ""

    def send(self, data: bytes) -> int:
        """Write what it takes now to the command's standard input (only with `stdin`); how many bytes that were.

        Raises OSError when nothing reads there any more.
        """
        assert self._popen.stdin is not None
        os.set_blocking(self._popen.stdin.fileno(), False)
        try:
            return os.write(self._popen.stdin.fileno(), data) if data else 0
        except BlockingIOError:  # the pipe is full: it does not read
            return 0

    def read(self, seconds: float) -> bytes:
        """What the command wrote, waiting at most `seconds` for it; empty when it wrote nothing."""
        if not self._open:
            time.sleep(min(seconds, 0.005))
            return b""
        if not self._selector.select(max(0.0, seconds)):
            return b""
        data = self._out.read(65536)
        if data == b"":
            self._selector.unregister(self._out)
            self._open = False
        return data or b""

    def members(self) -> list[Member]:
        """The processes of the tree that can be found."""
        inside = frozenset(self._group.members()) if self._group else frozenset()
        return list(_members(self._popen.pid, self._token, inside))

    def over(self, processes: int, memory: int) -> str | None:
        """The limit the tree is over, if any."""
        members = self.members()
        if sum(member.threads for member in members) > processes:
            return "processes"
        if sum(member.resident for member in members) > memory:
            return "memory"
        return None

    def kill(self) -> None:
        """End every process of the tree, those that left its session too, and release what it held."""
        with uninterrupted():
            self._kill()

    def _kill(self) -> None:
        _kill_group(self._popen.pid)
        if not self._namespace:
            for _ in range(50):  # one that forks while we look is found the next time
                left = [member.pid for member in self.members()]
                for pid in left:
                    with contextlib.suppress(OSError):
                        os.kill(pid, signal.SIGKILL)
                if not left:
                    break
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(5)
        self._selector.close()
        if self._popen.stdin is not None:
            with contextlib.suppress(OSError):
                self._popen.stdin.close()
        self._out.close()
        self._release()

    def _release(self) -> None:
        for end in self._report or ():
            os.close(end)
        self._report = None
        if self._group is not None:
            self._group.close()


def _kill_group(group: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(group, signal.SIGKILL)


def _members(leader: int, token: bytes, inside: Collection[int]) -> Iterator[Member]:
    """The processes `inside`, and those that carry `token` in their environment or share the leader's session."""
    if sys.platform != "linux":
        yield from _listed(leader)
        return
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as file:
                fields = file.read().rpartition(b") ")[2].split()
            if fields[0] in b"ZX":
                continue
            ours = int(fields[3]) == leader or int(entry) in inside
            if not ours and os.stat(f"/proc/{entry}").st_uid == os.getuid():
                with open(f"/proc/{entry}/environ", "rb") as file:
                    ours = token in file.read().split(b"\0")
            if ours:
                yield Member(int(entry), int(fields[17]), int(fields[21]) * PAGE)
        except (OSError, ValueError, IndexError):
            continue  # it ended while we looked, or is not ours to see


def _listed(group: int) -> Iterator[Member]:
    """The members of a process group, where there is no /proc."""
    listing = subprocess.run(["ps", "-axo", "pid=,pgid=,rss="], capture_output=True, text=True, check=False).stdout
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) == 3 and fields[1] == str(group):
            yield Member(int(fields[0]), 1, int(fields[2]) * 1024)
