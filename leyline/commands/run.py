"""`leyline run`: an agent on tasks, with a policy that edits its context."""

from __future__ import annotations

import json
import time
from contextlib import closing, suppress
from pathlib import Path

import typer

from leyline.backends.connect import KINDS
from leyline.backends.contract import Backend, BackendError, Sampling
from leyline.commands.progress import Progress
from leyline.commands.rows import kept_computed, row, summarise, summary_text
from leyline.commands.sources import (
    DEFAULT_MODEL,
    UsageError,
    check_sandbox,
    make_backend,
    micro_tasks,
    path_tasks,
)
from leyline.commands.terminal import give, say
from leyline.directives import JsonObject, LeylineError, Mode
from leyline.evals.trials.turns import TurnMeter, full_lengths
from leyline.harness.agent import Event
from leyline.harness.tasks import Episode, Task
from leyline.harness.trajectory import TrajectoryError, TrajectoryWriter
from leyline.harness.work import Setup, work
from leyline.policies import load_policy
from leyline.suites.spec import FIRST_SEED


def run(
    context: typer.Context,
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
    protect: list[str] = typer.Option(
        [], help="Files of a repository that the agent may not edit, such as 'tests/' (as in .gitignore); repeatable."
    ),
    policy: str = typer.Option(
        "truncate_older_than(n=2, max_chars=200)", help="What to edit; see `leyline policy list`."
    ),
    mode: Mode = typer.Option(Mode.AMORTIZE, help="Contract of the edits."),
    seam: int = typer.Option(0, min=0, help="Tokens recomputed at the start of every reused run."),
    backend: str = typer.Option("local", help=f"Where the model runs: {', '.join(KINDS)}."),
    model: str | None = typer.Option(
        None, help=f"A model folder, a bundled model, or the server's name for it. [local: {DEFAULT_MODEL}]"
    ),
    base_url: str | None = typer.Option(None, help="Address of the server, up to and including /v1 for openai."),
    api_key: str | None = typer.Option(None, envvar="OPENAI_API_KEY", help="Key of the server.", show_envvar=True),
    gate: Path | None = typer.Option(None, help="What `leyline eval fidelity` found the model fit for.", exists=True),
    max_tokens: int = typer.Option(512, min=1, help="Tokens an answer may have."),
    turns: int | None = typer.Option(None, min=1, help="Turns an agent may take. [default: the task's own limit]"),
    out: Path | None = typer.Option(
        None, help="Folder for the trajectories, one file a task. [default: a new one in leyline's cache folder]"
    ),
    first_solved: bool = typer.Option(False, help="Stop at the first task that is solved.", show_default=False),
    no_sandbox: bool = typer.Option(
        False, "--no-sandbox", help="Run the agent's commands with all that you may read and do.", show_default=False
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object with totals and a row for each task."),
) -> None:
    """Run an agent on one task or several, editing its context as it goes.

    Example: leyline run --suite micro --tasks 5 --policy "truncate_older_than(n=2, max_chars=200)"

    Example: leyline run ./buggy-folder --backend openai --base-url http://localhost:8000/v1 --model my-model

    Exit code: 0 when every task ran to its end, solved or not; 1 when the server failed in one; 2 for what is missing.
    """
    load_policy(policy)  # a typo is found before the model loads
    _refuse_ignored(context, path, suite, backend)
    check_sandbox(no_sandbox)
    todo = _tasks(path, suite, tasks, level, split, seed, description, test_command, protect)
    setup = Setup(policy, mode, seam, sampling=Sampling(max_tokens=max_tokens), turns=turns)
    folder = out or _new_folder()
    progress = Progress()
    rows: list[JsonObject] = []
    complete = interrupted = False
    try:
        progress.say(f"loading {model or DEFAULT_MODEL} ..." if backend == "local" else "connecting to the server ...")
        with closing(make_backend(backend, model, base_url, api_key, gate)) as served:
            for number, task in enumerate(todo, 1):
                progress.say(f"[{number}/{len(todo)}] {task.id}")
                rows.append(run_task(task, served, setup, folder, progress))
                if rows[-1]["outcome"] == "error" and not any(each["turns"] for each in rows):
                    reason = rows.pop()["reason"]
                    raise BackendError(reason)  # nothing was served yet: the next task would only fail alike
                if first_solved and rows[-1]["solved"]:
                    break
        complete = True
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        if rows or (interrupted and as_json):
            summary = {**summarise(rows), "complete": complete}
            told = {**summary, "policy": policy, "mode": mode.value, "backend": backend, "seam": seam, "rows": rows}
            if as_json:
                say(json.dumps(told))
            else:
                if path is not None:
                    give("".join(each["patch"] for each in rows))
                say(summary_text(summary))
        if progress.turns:
            progress.say(f"trajectories: {folder}")
    if any(each["outcome"] == "error" for each in rows):
        raise typer.Exit(1)


def _refuse_ignored(context: typer.Context, path: Path | None, suite: str | None, backend: str) -> None:
    """Raise UsageError for an option on the command line that what is asked for would not look at."""

    def given(*names: str) -> list[str]:
        sources = {name: context.get_parameter_source(name) for name in names}
        found = [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]
        return [f"--{name.replace('_', '-')}" for name in found]

    if backend == "local" and given("base_url"):
        raise UsageError("--base-url needs --backend openai or sglang")
    if suite is not None and path is None and (unused := given("description", "test_command", "protect")):
        raise UsageError(f"{unused[0]} is for a repository, not for --suite; give the repository's path")
    if path is not None and suite is None and (unused := given("tasks", "level", "split", "seed")):
        raise UsageError(f"{unused[0]} is for generated tasks, not for a path; use --suite micro")


def _tasks(
    path: Path | None,
    suite: str | None,
    count: int,
    level: str,
    split: str,
    seed: int,
    description: str | None,
    test_command: str | None,
    protect: list[str],
) -> list[Task]:
    if (path is None) == (suite is None):
        raise UsageError("give either a path or --suite micro, for example: leyline run --suite micro --tasks 5")
    if path is not None:
        return path_tasks(path, description, test_command, protect)
    if suite != "micro":
        raise UsageError(f"unknown suite {suite!r}; there is: micro")
    return micro_tasks(count, level, split, seed)


def run_task(task: Task, backend: Backend, setup: Setup, folder: Path, progress: Progress) -> JsonObject:
    """One task, one row; the row is JSON. folder: where its trajectory goes."""
    meter = TurnMeter()

    def tell(event: Event) -> None:
        meter(event)
        progress(event)

    with task.open() as episode, _trajectory(task, backend, setup, folder) as writer:
        try:
            result = work(episode, backend, setup, trajectory=writer, on_event=tell)
        except BaseException:
            _keep_patch(episode, writer.path.with_suffix(".patch"), progress)
            raise
        full: list[int] = []
        with suppress(LeylineError):  # a number that cannot be told must not cost the row
            full = full_lengths(backend.renderer, result.messages, list(episode.tools) or None)
        kept = kept_computed(full, [turn.completion for turn in meter.turns])
        return row(task, result, writer, episode.artifacts()["model_patch"], kept)


def _keep_patch(episode: Episode, file: Path, progress: Progress) -> None:
    """Save what an agent that was stopped had changed; its copy of the files is removed."""
    if patch := episode.artifacts()["model_patch"]:
        try:
            file.write_text(patch, "utf-8")
        except OSError as error:
            progress.say(f"its changes so far are lost: cannot write {file}: {error.strerror or error}")
        else:
            progress.say(f"its changes so far: {file}")


def _new_folder() -> Path:
    """Where trajectories go by default: nobody's project, and never over those of another run."""
    from leyline.models import cache_dir

    stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6:06}"
    return cache_dir() / "runs" / stamp


def _trajectory(task: Task, backend: Backend, setup: Setup, folder: Path) -> TrajectoryWriter:
    name = "".join(c if c.isalnum() or c in "-_." else "-" for c in task.id)
    try:
        return setup.trajectory(folder / f"{name}.jsonl", backend, task=task.id)
    except TrajectoryError as error:
        raise UsageError(f"{error}; give another --out") from None
