"""`leyline micro show | export | curve`: the generated debugging tasks as files, as debug-gym folders, in numbers."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from leyline.commands.shape import Command, Group
from leyline.commands.sources import UsageError
from leyline.commands.terminal import say, status
from leyline.suites.spec import FIRST_SEED

app = typer.Typer(cls=Group, help="Show, export and measure the generated debugging tasks.", no_args_is_help=True)
LEVEL = typer.Option("short", help="short, long or xlong.")
SPLIT = typer.Option("seen", help="seen, unseen (families that training never saw) or train.")
SEED = typer.Option(FIRST_SEED, min=0, help="The task's seed, or that of the first one.")


@app.command(cls=Command)
def show(
    level: str = LEVEL,
    split: str = SPLIT,
    seed: int = SEED,
    to: Path | None = typer.Option(None, help="Also write the files to this folder, which must not exist."),
    answers: bool = typer.Option(False, help="Say where the bugs are."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object, answers included."),
) -> None:
    """Print a task: what the agent is told, the files, and the first test report.

    Example: leyline micro show --level short --seed 7 --answers
    """
    from leyline.suites import micro

    task = micro.make_task(seed, level, split)
    if to is not None:
        _fresh(to)
        micro.write(task, to)
    if as_json:
        details = {**micro.describe(task), "prompt": micro.user_prompt(task), "files": dict(task.files)}
        say(json.dumps(details))
        return
    say(f"# {task.id}\n\n{micro.user_prompt(task)}")
    for path, text in task.files.items():
        say(f"\n# {path}")
        say("".join(f"{n:>4}  {line}\n" for n, line in enumerate(text.splitlines(), 1)), nl=False)
    say(f"\n# eval\n{task.evaluate(task.files, 1)[0]}")
    for bug in task.bugs if answers else ():
        say(f"\n# {bug.path}:{bug.line} in {bug.unit}: {bug.kind} (family {bug.family})")
    if to is not None:
        say(f"\nWritten to {to}.", err=True)


@app.command(cls=Command)
def export(
    folder: Path = typer.Argument(..., help="Where the task folders go; made if it is not there."),
    count: int = typer.Option(10, "--count", "-n", min=1, help="How many tasks."),
    level: str = LEVEL,
    split: str = SPLIT,
    seed: int = SEED,
) -> None:
    """Write tasks as folders that debug-gym reads, and `leyline run` too.

    Example: leyline micro export tasks -n 5 --level long
    """
    from leyline.suites import micro

    for number in _counted(count, "exporting"):
        task = micro.make_task(seed + number, level, split)
        target = folder / task.id
        _fresh(target)
        micro.export_debug_gym(task, target)
    say(f"{count} task{'s' if count > 1 else ''} in {folder}; try: leyline run {folder}", err=True)


@app.command(cls=Command)
def curve(
    count: int = typer.Option(20, "--count", "-n", min=1, help="Tasks a level."),
    split: str = SPLIT,
    seed: int = SEED,
    policy: list[str] = typer.Option(["keep_all", "truncate_older_than"], help="A policy; may be given several times."),
    as_json: bool = typer.Option(False, "--json", help="Print a JSON list."),
) -> None:
    """Measure the levels with the scripted agent, which makes no mistake: turns, and tokens of the longest prompt.

    Example: leyline micro curve -n 50 --split unseen
    """
    from leyline.models.find import find_tokenizer
    from leyline.suites import micro
    from leyline.suites.micro.curve import TRAINED, measure

    tokenizer = find_tokenizer()

    def count_tokens(text: str) -> int:
        return len(tokenizer.encode(text, add_special_tokens=False).ids)

    rows = []
    for level in _named(micro.LEVELS):
        rows += measure(level, split, range(seed, seed + count), policy, count_tokens)
    if as_json:
        say(json.dumps([row.to_dict() for row in rows]))
        return
    width = max(len(row.policy) for row in rows)
    head = f"{'level':<6} {'policy':<{width}} {'solved':>8} {'bugs':>5} {'files':>5} {'lines':>6} {'turns':>6}"
    say(f"{head} {'context':>8} {'largest':>8} {'>' + str(TRAINED):>6} {'read':>8}")
    for row in rows:
        line = (
            f"{row.level:<6} {row.policy:<{width}} {row.solved:>4}/{row.tasks:<3} {row.bugs:>5.1f} {row.modules:>5.1f}"
        )
        line += f" {row.lines:>6.0f} {row.turns:>6.1f} {row.context:>8.0f} {row.context_max:>8} {row.beyond:>6.0%}"
        say(f"{line} {row.read:>8.0f}")


def _fresh(folder: Path) -> None:
    if folder.exists():
        raise UsageError(f"{folder} is already there; name another folder, or remove it")
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"cannot make {folder}: {error.strerror}") from None


def _counted(count: int, verb: str) -> Iterator[int]:
    """0 to count - 1, with a line of progress on a terminal."""
    for number in range(count):
        if sys.stderr.isatty():
            status(f"{verb} {number + 1} of {count} ...")
        yield number
    if sys.stderr.isatty():
        status("")


def _named(levels: tuple[str, ...]) -> Iterator[str]:
    for level in levels:
        if sys.stderr.isatty():
            status(f"{level} tasks ...")
        yield level
    if sys.stderr.isatty():
        status("")
