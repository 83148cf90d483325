"""`leyline eval`: suites under several arms, and the other evals as sub-commands beside them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from leyline.commands.fidelity import fidelity
from leyline.commands.replay import replay
from leyline.commands.score import score
from leyline.commands.shape import Command, Group, taking
from leyline.commands.terminal import say
from leyline.directives.counts import count

if TYPE_CHECKING:
    from leyline.evals.trials.config import EvalConfig
    from leyline.evals.trials.run_eval import Summary

SUITE = "SUITE"


class _Group(Group):
    """A word that is no sub-command is the name of a suite: `leyline eval micro` runs the command SUITE with it."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            return SUITE, self.commands[SUITE], args
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        from leyline.suites import suite_names

        named = cmd_name in suite_names() or any(letter in cmd_name for letter in "./:")
        return super().get_command(ctx, SUITE if named else cmd_name)


app = typer.Typer(
    cls=_Group,
    help="Measure what a policy does to solve rate and cache-hit rate. For example: leyline eval micro --tasks 20",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

app.command("replay", cls=Command)(replay)
app.command("fidelity", cls=Command)(fidelity)
app.command("score", cls=Command)(score)


@app.command(SUITE, cls=taking(url="--base-url", n="--tasks"))
def suite(
    name: str = typer.Argument(
        ...,
        metavar="SUITE",
        help="micro, mini_nightmare, debug_gym, swebench, a folder of debug-gym tasks (./tasks), or a YAML file.",
    ),
    arms: list[str] = typer.Option(
        [],
        "--arms",
        "--arm",
        help="default, or POLICY[@plain|amortize|forget|auto][,key=value...]; repeatable. [default]",
    ),
    model: list[str] = typer.Option(
        [], help="A bundled model, a model folder, or the server's name for it; repeatable. [every bundled model]"
    ),
    backend: str | None = typer.Option(None, help="local, sglang, openai or mock. [local]"),
    base_url: str | None = typer.Option(None, help="Address of the server, for sglang and openai."),
    seam: int | None = typer.Option(None, min=0, help="Tokens recomputed at the start of every reused run. [0]"),
    prewarm: bool | None = typer.Option(None, "--prewarm", help="Prefill the next turn while a tool runs."),
    option: list[str] = typer.Option([], help="key=value for the suite, such as levels=short; repeatable."),
    tasks: int | None = typer.Option(None, min=1, help="At most this many tasks. [micro: 20; else all]"),
    seeds: str | None = typer.Option(None, help="How many (3), or a list (0,1,2). [0]"),
    filter: str | None = typer.Option(None, "--filter", help="Only tasks whose id matches this regular expression."),
    slice: str | None = typer.Option(None, "--slice", help="START:STOP:STEP over the filtered tasks."),
    redo: Literal["none", "errors", "all"] | None = typer.Option(None, help="Recorded trials to run again. [none]"),
    temperature: float | None = typer.Option(None, min=0, help="Sampling temperature. [0]"),
    max_tokens: int | None = typer.Option(None, min=1, help="Tokens an answer may have. [512]"),
    turns: int | None = typer.Option(None, min=1, help="Model calls a trial may make. [the task's own limit]"),
    workers: int | None = typer.Option(None, min=0, help="Trials at a time; 0 runs them in this process. [cores]"),
    executor: Literal["local", "ray"] | None = typer.Option(None, help="Where the workers are. [local]"),
    minutes: float | None = typer.Option(None, "--max-minutes", min=0, help="Start no trial after this time."),
    computed: int | None = typer.Option(None, "--max-computed", min=1, help="Nor after this many computed tokens."),
    trajectories: Literal["all", "sample", "none"] | None = typer.Option(None, help="Which trials keep one. [all]"),
    settings: list[str] = typer.Option([], "--set", help="Any other setting, such as limits.seconds=300; repeatable."),
    out: Path | None = typer.Option(
        None, help="The run directory. [runs/SUITE-DIGEST; the same command finds it again]"
    ),
    dry_run: bool = typer.Option(False, "--dry-run", help="Say what would run, and run nothing."),
    no_sandbox: bool = typer.Option(
        False, "--no-sandbox", help="Run the agents' commands with all that you may read and do."
    ),
    plain: bool = typer.Option(False, "--plain", help="A line a trial instead of the live table."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object at the end, and no progress."),
) -> None:
    """Run a suite's tasks under several arms, paired on tasks and seeds.

    Run the same command again to go on after an interrupt, a kill or a spent budget.

    Example: leyline eval micro --arms default --tasks 20

    Example: leyline eval micro --arms "keep_all" --arms "truncate_older_than(n=2, max_chars=200)@amortize" --tasks 50

    Example: leyline eval mini_nightmare --option folder=./mini_nightmare --backend openai --base-url
    http://localhost:8000/v1 --model my-model
    """
    from leyline.commands.eval_progress import make_progress, plain_table
    from leyline.commands.sources import check_sandbox
    from leyline.evals.trials.assemble import assemble, parse_seeds
    from leyline.evals.trials.rundir import default_directory
    from leyline.evals.trials.tally import tally
    from leyline.suites import load_suite

    config = assemble(
        name,
        {
            "n": tasks,
            "seeds": parse_seeds(seeds) if seeds is not None else None,
            "filter": filter,
            "slice": slice,
            "redo": redo,
            "sampling.temperature": temperature,
            "limits.turns": turns,
            "limits.max_tokens": max_tokens,
            "workers": workers,
            "executor": executor,
            "budget.minutes": minutes,
            "budget.tokens": computed,
            "trajectories": trajectories,
        },
        arms=arms,
        models=model,
        arm_fields={"backend": backend, "url": base_url, "seam": seam, "prewarm": prewarm},
        options=option,
        overrides=settings,
    )
    check_sandbox(no_sandbox, lambda: not getattr(load_suite(config.suite), "in_container", False))
    directory = out or default_directory(config)
    progress = make_progress(plain=plain, quiet=as_json)
    if dry_run:
        say(_plan_text(config, directory))
        return
    from leyline.evals.trials.run_eval import run_eval

    summary = run_eval(config, directory, progress)
    table = tally(
        (arm.name for arm in config.arms for _ in range(summary.planned // len(config.arms))), summary.records
    )
    errors = sum(record.outcome == "error" for record in summary.records)
    if as_json:
        rows = {name: {**vars(arm), "hit_rate": arm.hit_rate} for name, arm in table.items()}
        counts = {"planned": summary.planned, "ran": summary.ran, "missing": summary.missing, "errors": errors}
        rest = {"stopped": summary.stopped, "notes": summary.notes, "arms": rows}
        say(json.dumps({"directory": str(directory), **counts, **rest}))
    else:
        say(plain_table(table))
        say("".join(f"{line}\n" for line in summary.notes), nl=False)
        say(_closing(summary, errors))
    if summary.interrupted:
        raise typer.Exit(130)
    if errors or summary.missing:
        raise typer.Exit(1)


def _closing(summary: Summary, errors: int) -> str:
    """What happened and what to do next."""
    lines = []
    if summary.stopped:
        verb = "is" if summary.missing == 1 else "are"
        left = f"{summary.missing:,} of {count(summary.planned, 'trial')} {verb} still to run."
        lines.append(f"stopped: {summary.stopped}; {left}")
        lines.append("Run the same command again to go on.")
    if errors:
        lines.append(f"{count(errors, 'trial')} ended in an error; run again with --redo errors.")
    lines.append(f"{count(len(summary.records), 'trial is', 'trials are')} recorded in {summary.directory}")
    unscored = sum(record.outcome == "unscored" for record in summary.records)
    if unscored:
        waiting = count(unscored, "patch waits", "patches wait")
        lines.append(f"{waiting} for a verdict: leyline eval score {summary.directory}")
    lines.append(f"report: leyline report {summary.directory}")
    return "\n".join(lines)


def _plan_text(config: EvalConfig, directory: Path) -> str:
    """What an eval would run: arms, tasks, and what is recorded already. Raises LeylineError where it would not run."""
    from leyline.backends.contract import BackendError
    from leyline.evals.trials.arms import SERVED, check_arms
    from leyline.evals.trials.journal import load
    from leyline.evals.trials.schedule import check_same, planned_trials
    from leyline.evals.trials.serving import check_backends, name_served
    from leyline.suites import load_suite

    check_arms(config.arms)
    check_backends(config.arms, servers=False)
    with contextlib.suppress(BackendError):  # a server need not be there yet
        config = config.model_copy(update={"arms": tuple(name_served(config.arms))})
    suite = load_suite(config.suite)
    specs = planned_trials(config, suite, directory)
    records = load(directory).records
    if all(arm.model != SERVED for arm in config.arms):
        check_same(specs, records)
    recorded = {record.key for record in records}
    tasks = list(dict.fromkeys(spec.task.id for spec in specs))
    lines = [f"note: {line}" for line in suite.preflight()]
    lines += [f"arm    {a.name}: {a.policy}, {a.mode}, {a.backend} {a.model}, seam {a.seam}" for a in config.arms]
    lines += [f"tasks  {len(tasks)}: {', '.join(tasks[:3])}{', ...' if len(tasks) > 3 else ''}"]
    lines += [f"seeds  {', '.join(map(str, config.seeds))}"]
    lines += [f"trials {len(specs)}, {sum(spec.key in recorded for spec in specs)} of them recorded in {directory}"]
    return "\n".join(lines)
