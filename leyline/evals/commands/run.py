"""`leyline run`: an agent on tasks, with a policy that edits its context."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from leyline.backends.base import Backend, Sampling
from leyline.directives import Mode
from leyline.evals.commands.progress import Progress
from leyline.evals.commands.sources import (
    BACKENDS,
    DEFAULT_MODEL,
    FIRST_SEED,
    UsageError,
    make_backend,
    micro_tasks,
    path_tasks,
)
from leyline.harness.agent import AgentResult, Limits, run_agent
from leyline.harness.session import Session
from leyline.harness.tasks import Task
from leyline.harness.trajectory import TrajectoryWriter
from leyline.policies import Policy, load_policy

COUNTS = ("prompt_tokens", "cached_tokens", "spliced_tokens", "prefilled_tokens", "edits")


@dataclass(frozen=True)
class Settings:
    """What is the same for every task of a run."""

    policy: str
    mode: Mode
    seam: int
    max_tokens: int
    max_turns: int | None
    out: Path | None
    label: dict[str, Any] = field(default_factory=dict)


def run(
    path: Path | None = typer.Argument(
        None, help="A debug-gym folder (or a folder of them), or a repository.", show_default=False
    ),
    suite: str | None = typer.Option(None, help="Generated tasks instead of a path: micro."),
    tasks: int = typer.Option(1, min=1, help="How many tasks of the suite."),
    level: str = typer.Option("short", help="Level of the micro suite: short, long or xlong."),
    split: str = typer.Option("seen", help="Program families of the micro suite: seen or unseen in training."),
    seed: int = typer.Option(FIRST_SEED, help="Seed of the first task."),
    description: str | None = typer.Option(None, help="What to do in a repository: a text, or a file that holds it."),
    test_command: str | None = typer.Option(None, help="How a repository is tested, for example 'pytest -q'."),
    policy: str = typer.Option(
        "truncate_older_than(n=2, max_chars=200)", help="What to edit; see `leyline policy list`."
    ),
    mode: Mode = typer.Option(Mode.AMORTIZE, help="Contract of the edits."),
    seam: int = typer.Option(0, min=0, help="Tokens recomputed at the start of every reused run."),
    backend: str = typer.Option("local", help=f"Where the model runs: {', '.join(BACKENDS)}."),
    model: str | None = typer.Option(
        None, help=f"A model folder, a bundled model, or the server's name for it. [local: {DEFAULT_MODEL}]"
    ),
    base_url: str | None = typer.Option(None, help="Address of the server, up to and including /v1 for openai."),
    api_key: str | None = typer.Option(None, envvar="OPENAI_API_KEY", help="Key of the server.", show_envvar=True),
    max_tokens: int = typer.Option(512, min=1, help="Tokens an answer may have."),
    max_turns: int | None = typer.Option(None, min=1, help="Turns an agent may take. [default: the task's own limit]"),
    out: Path | None = typer.Option(None, help="Folder for the trajectories, one file a task."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object with totals and a row for each task."),
) -> None:
    """Run an agent on one task or several, editing its context as it goes.

    Example: leyline run --suite micro --tasks 5 --policy "truncate_older_than(n=2, max_chars=200)"

    Example: leyline run ./buggy-folder --backend openai --base-url http://localhost:8000/v1 --model my-model
    """
    load_policy(policy)  # a typo is found before the model loads
    todo = _tasks(path, suite, tasks, level, split, seed, description, test_command)
    progress = Progress(quiet=False)
    progress.say(
        f"loading {model or DEFAULT_MODEL} ..."
        if backend == "local"
        else f"connecting to {base_url or 'the server'} ..."
    )
    settings = Settings(policy, mode, seam, max_tokens, max_turns, out)
    served = make_backend(backend, model, base_url, api_key)
    try:
        rows = _run_all(todo, served, settings, progress)
    finally:
        served.close()
    summary = summarise(rows)
    if as_json:
        typer.echo(
            json.dumps(
                {**summary, "policy": policy, "mode": mode.value, "backend": backend, "seam": seam, "rows": rows}
            )
        )
    else:
        if path is not None:
            typer.echo("".join(row["patch"] for row in rows), nl=False)
        typer.echo(summary_text(summary))


def _tasks(
    path: Path | None,
    suite: str | None,
    count: int,
    level: str,
    split: str,
    seed: int,
    description: str | None,
    test_command: str | None,
) -> list[Task]:
    if (path is None) == (suite is None):
        raise UsageError("give either a path or --suite micro, for example: leyline run --suite micro --tasks 5")
    if path is not None:
        return path_tasks(path, description, test_command)
    if suite != "micro":
        raise UsageError(f"unknown suite {suite!r}; there is: micro")
    return micro_tasks(count, level, split, seed)


def _run_all(todo: list[Task], backend: Backend, settings: Settings, progress: Progress) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    try:
        for number, task in enumerate(todo, 1):
            progress.say(f"[{number}/{len(todo)}] {task.id}")
            rows.append(run_task(task, backend, settings, progress))
    except KeyboardInterrupt:
        if rows:
            progress.say(f"interrupted; of the {len(rows)} finished: {summary_text(summarise(rows))}")
        raise
    return rows


def run_task(task: Task, backend: Backend, settings: Settings, progress: Progress) -> dict[str, Any]:
    """One task, one row; the row is JSON."""
    policy: Policy = load_policy(settings.policy)
    with task.open() as episode:
        session = Session(
            backend,
            policy,
            mode=settings.mode,
            seam=settings.seam,
            tools=episode.tools,
            sampling=Sampling(max_tokens=settings.max_tokens),
        )
        limits = Limits(turns=settings.max_turns or task.max_turns)
        writer = _trajectory(task, backend, settings)
        try:
            result = run_agent(episode, episode, session, limits=limits, trajectory=writer, on_event=progress)
        finally:
            if writer is not None:
                writer.close()
        patch = episode.artifacts()["model_patch"]
    return {**_row(task, result, writer), "patch": patch}


def _trajectory(task: Task, backend: Backend, settings: Settings) -> TrajectoryWriter | None:
    if settings.out is None:
        return None
    from leyline import __version__

    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in task.id)
    found = backend.capabilities()
    try:
        return TrajectoryWriter(
            settings.out / f"{name}.jsonl",
            task=task.id,
            model=found.model,
            backend=found.name,
            policy=settings.policy,
            mode=settings.mode.value,
            seam=settings.seam,
            versions={"leyline": __version__},
        )
    except OSError as error:
        raise UsageError(f"cannot write to {settings.out}: {error.strerror}; give another --out") from None


def _row(task: Task, result: AgentResult, writer: TrajectoryWriter | None) -> dict[str, Any]:
    totals = result.totals.to_dict()
    return {
        "task": task.id,
        "solved": result.outcome == "solved",
        "outcome": result.outcome,
        "reason": result.reason,
        "seconds": round(result.seconds, 3),
        "trajectory": str(writer.path) if writer is not None else None,
        **totals,
    }


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Totals over the rows. hit_rate is (cached + spliced) / prompt tokens over all turns of all tasks."""
    sums = {name: sum(row[name] for row in rows) for name in COUNTS}
    fallbacks: Counter[str] = Counter()
    for row in rows:
        fallbacks.update(row["fallbacks"])
    prompt = sums["prompt_tokens"]
    return {
        "tasks": len(rows),
        "solved": sum(row["solved"] for row in rows),
        "hit_rate": (sums["cached_tokens"] + sums["spliced_tokens"]) / prompt if prompt else 0.0,
        **sums,
        "fallbacks": dict(fallbacks),
        "seconds": round(sum(row["seconds"] for row in rows), 3),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def summary_text(summary: dict[str, Any]) -> str:
    """The totals in two lines."""
    first = f"solved {summary['solved']} of {summary['tasks']} in {summary['seconds']:.1f} s, {summary['edits']} edits"
    second = (
        f"hit rate {summary['hit_rate']:.1%} of {summary['prompt_tokens']:,} prompt tokens: "
        f"{summary['cached_tokens']:,} cached, {summary['spliced_tokens']:,} spliced, "
        f"{summary['prefilled_tokens']:,} prefilled"
    )
    reasons = ", ".join(f"{name} {count}" for name, count in sorted(summary["fallbacks"].items()))
    return "\n".join([first, second, *([f"fallbacks: {reasons}"] if reasons else [])])
