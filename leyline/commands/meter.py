"""Progress over a known number of steps, on standard error: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from leyline.commands.terminal import say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

PLAIN_SECONDS = 10.0
PATIENCE = 2.0


class Meter:
    """Counts steps and says how long the rest will take. Use as a context manager.

    Nothing is shown in the first two seconds, nor with `quiet`.
    """

    def __init__(self, title: str, total: int, *, quiet: bool = False) -> None:
        self._title, self._total, self._quiet = title, total, quiet
        self._done = 0
        self._note = ""
        self._started = self._said = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self._title, total=self._total)
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def note(self, text: str) -> None:
        """What else to say beside the steps, such as how much was found; it shows that a long step is not stuck."""
        self._note = f", {text}"
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, description=f"{self._title}{self._note}")
        else:
            self._say()

    def step(self, count: int = 1) -> None:
        """`count` more are done."""
        self._done += count
        if self._bar is not None and self._task is not None:
            self._bar.advance(self._task, count)
            return
        self._say()

    def _say(self) -> None:
        now = time.monotonic()
        first = self._said == self._started
        if self._done and not self._quiet and now - self._said > (PATIENCE if first else PLAIN_SECONDS):
            self._said = now
            left = (now - self._started) / self._done * (self._total - self._done)
            say(f"{self._title}: {self._done}/{self._total}{self._note}, {left:.0f} s left", err=True)
