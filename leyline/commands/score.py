"""`leyline eval score`: verdicts for the patches of a swebench run."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import typer

from leyline.commands.terminal import say
from leyline.directives import LeylineError


def score(
    directory: Path = typer.Argument(..., help="The run directory of a swebench eval."),
    how: Literal["docker", "here", "none"] = typer.Option(
        "docker", help="docker: swebench's harness; here: eval scripts in checkouts on this machine; none: preds.json."
    ),
    logs: Path | None = typer.Option(None, help="Grade the stored INSTANCE/test_output.txt below this folder instead."),
    workers: int = typer.Option(4, min=1, help="Instances that swebench runs at a time."),
    seconds: float = typer.Option(1800, "--timeout", min=1, help="Seconds that an instance's tests may take."),
) -> None:
    """Score the patches of a run with swebench, and put the verdicts into its records.

    Example: leyline eval score runs/swebench-1a2b3c4d

    Example: leyline eval score runs/swebench-1a2b3c4d --logs logs/run_evaluation/my-run
    """
    from leyline.evals.trials.config import build_config
    from leyline.evals.trials.rundir import read_run_config
    from leyline.evals.trials.scoring import score_run
    from leyline.suites import load_suite
    from leyline.suites.swebench.swebench_suite import SwebenchSuite

    found = read_run_config(directory)
    if not found:
        raise LeylineError(f"{directory} is no run directory: it has no config.json")
    suite = load_suite(build_config(found["config"]).suite)
    if not isinstance(suite, SwebenchSuite):
        raise LeylineError(f"{directory} is a run of the suite {suite.name}, whose trials are scored already")
    lines = score_run(
        directory,
        suite,
        how="logs" if logs is not None else how,
        logs=logs,
        workers=workers,
        seconds=seconds,
        say=lambda line: say(line, err=True),
    )
    for line in lines:
        say(line)
