"""What a person sees while an eval runs, on standard error: a live table, or a line a trial where it is no terminal."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from leyline.commands.terminal import safe, say
from leyline.directives.counts import count
from leyline.evals.trials.record import TrialOutcome, TrialRecord
from leyline.evals.trials.schedule import TrialSpec
from leyline.evals.trials.tally import ArmTally, tally

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

LIVE_COLUMNS = ("arm", "trials", "solved", "rate", "hit rate", "limit", "errors")


class Eta:
    """Seconds left, from the wall time that finished trials took; the parallelism is in it."""

    def __init__(self, total: int) -> None:
        self._total, self._done = total, 0
        self._started = time.monotonic()

    def step(self) -> None:
        self._done += 1

    @property
    def seconds(self) -> float | None:
        if not self._done:
            return None
        return (time.monotonic() - self._started) / self._done * (self._total - self._done)


class PlainProgress:
    """A line a trial."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._done = self._total = 0

    def notes(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._say(f"note: {line}")

    def planning(self) -> None:
        self._say("planning ...")

    def begin(self, specs: Sequence[TrialSpec], recorded: Sequence[TrialRecord], todo: int) -> None:
        self._total, self._eta = todo, Eta(todo)
        self._say(f"{count(len(specs), 'trial')}: {len(recorded)} recorded, {todo} to run")

    def trial(self, record: TrialRecord) -> None:
        self._done += 1
        self._eta.step()
        seconds = self._eta.seconds
        left = f", {span(seconds)} left" if seconds else ""
        reason = f"  {record.detail}" if record.outcome is TrialOutcome.ERROR else ""
        self._say(
            f"[{self._done:>{len(str(self._total))}}/{self._total}{left}] {record.outcome.value:<8} {record.arm}"
            f"  {record.task}  seed {record.seed}  {count(len(record.turns), 'turn')}  {record.wall_s:.1f} s{reason}"
        )

    def end(self) -> None:
        pass

    def _say(self, text: str) -> None:
        if not self._quiet:
            say(text, err=True)


class LiveProgress:
    """A table of the arms over a progress bar, redrawn in place."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        self._console = Console(stderr=True)
        self._bar = Progress(BarColumn(None), TextColumn("{task.completed}/{task.total}  {task.fields[left]}"))
        self._arms: dict[str, ArmTally] = {}
        self._last = ""

    def notes(self, lines: Sequence[str]) -> None:
        for line in lines:
            self._console.print(safe(f"note: {line}"), markup=False, highlight=False)

    def planning(self) -> None:
        self._console.print("planning ...")

    def begin(self, specs: Sequence[TrialSpec], recorded: Sequence[TrialRecord], todo: int) -> None:
        from rich.live import Live

        self._arms = tally((spec.arm.name for spec in specs), recorded)
        self._eta = Eta(todo)
        self._task = self._bar.add_task("", total=len(specs), completed=len(specs) - todo, left="")
        self._live = Live(console=self._console, get_renderable=self._draw, refresh_per_second=4, transient=True)
        self._live.start()

    def trial(self, record: TrialRecord) -> None:
        self._eta.step()
        self._arms[record.arm].add(record)
        self._bar.advance(self._task)
        self._last = safe(f"{record.outcome.value}  {record.arm}  {record.task}  {record.wall_s:.1f} s")
        if record.outcome is TrialOutcome.ERROR:
            said = safe(f"{record.arm}  {record.task}: {record.detail}")
            self._live.console.print(said, markup=False, highlight=False)

    def end(self) -> None:
        self._live.stop()

    def _draw(self) -> Group:
        from rich.console import Group
        from rich.text import Text

        seconds = self._eta.seconds
        self._bar.update(self._task, left=f"about {span(seconds)} left" if seconds else "")
        return Group(arm_table(self._arms), Text(self._last, no_wrap=True, overflow="ellipsis", style="dim"), self._bar)


def make_progress(*, plain: bool, quiet: bool = False) -> PlainProgress | LiveProgress:
    """Live on a terminal unless `plain`."""
    return PlainProgress(quiet=quiet) if plain or quiet or not sys.stderr.isatty() else LiveProgress()


def arm_table(arms: dict[str, ArmTally]) -> Table:
    """The arms so far as a rich table, with the columns that fit a narrow terminal."""
    from rich.table import Table
    from rich.text import Text

    head, *rows = table_rows(arms)
    shown = [index for index, title in enumerate(head) if title in LIVE_COLUMNS]
    table = Table(box=None, pad_edge=False)
    for index in shown:
        table.add_column(head[index], justify="right" if index else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(safe(row[index])) for index in shown))  # a name may hold brackets, which are no markup
    return table


def table_rows(arms: dict[str, ArmTally]) -> Iterator[tuple[str, ...]]:
    """The header and a row for each arm, as text."""
    yield ("arm", "trials", "solved", "rate", "hit rate", "spliced", "uncached", "shed", "limit", "errors", "unscored")
    for name, arm in arms.items():
        rate = f"{arm.solved / arm.scored:.1%}" if arm.scored else "-"
        hit = f"{arm.hit_rate:.1%}" if arm.hit_rate is not None else "-"
        counts = [arm.outcomes[kind] for kind in (TrialOutcome.LIMIT, TrialOutcome.ERROR, TrialOutcome.UNSCORED)]
        tokens = [f"{n:,}" for n in (arm.spliced, arm.prefilled, arm.shed)]
        yield (name, f"{arm.done}/{arm.planned}", str(arm.solved), rate, hit, *tokens, *map(str, counts))


def plain_table(arms: dict[str, ArmTally]) -> str:
    """The same table as aligned text."""
    rows = list(table_rows(arms))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        first, *rest = (cell.rjust(width) for cell, width in zip(row, widths, strict=True))
        lines.append("  ".join([first.strip().ljust(widths[0]), *rest]).rstrip())
    return "\n".join(lines)


def span(seconds: float) -> str:
    """A length of time for a person: 40 s, 12 min, 3 h 05 min."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
