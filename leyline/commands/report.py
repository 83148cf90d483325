"""`leyline report`: the numbers of one run or several, as a page, a text and a file for scripts."""

from __future__ import annotations

import json
import sys
import webbrowser
from pathlib import Path

import typer

from leyline.commands.terminal import say, status
from leyline.directives import LeylineError


def report(
    directories: list[Path] = typer.Argument(
        ..., metavar="DIR", help="Run directories of `leyline eval`, to merge or to compare."
    ),
    out: Path | None = typer.Option(
        None, help="Where the report goes. [default: the run directory, or ./report for several]", show_default=False
    ),
    baseline: str | None = typer.Option(None, help="Compare every other arm with this one only."),
    trajectories: int = typer.Option(40, min=0, help="At most so many trajectories in the page's viewer."),
    tokenizer: Path | None = typer.Option(
        None, help="Folder with the tokenizer.json of a served model, so that the viewer can show its exact tokens."
    ),
    open_page: bool = typer.Option(False, "--open", help="Open the page in a browser."),
    as_json: bool = typer.Option(False, "--json", help="Print what results.json holds instead of the summary."),
) -> None:
    """Write report.html, report.md, results.json and plots for one run directory or several.

    Runs that hold different trials of an arm are merged; an arm whose trials several runs hold is shown once for each
    run and compared.

    Example: leyline report runs/micro-1a2b3c4d --open

    Example: leyline report runs/before runs/after --out comparison --baseline "keep_all @ before"
    """
    try:
        from leyline.evals.report import write_report
    except ImportError as error:
        raise LeylineError(f"a report needs {error.name}: pip install 'leyline-kv[report]'") from None
    if tokenizer is not None and not tokenizer.exists():
        raise LeylineError(f"--tokenizer {tokenizer} does not exist; name a folder with a tokenizer.json")
    target = out or (directories[0] if len(directories) == 1 and directories[0].is_dir() else Path("report"))
    written = write_report(
        directories, target, baseline=baseline, trajectories=trajectories, tokenizer=tokenizer, on_step=_say
    )
    if sys.stderr.isatty():
        _say("")
    if as_json:
        say(json.dumps(written.report.to_json()))
    else:
        from leyline.directives.counts import count
        from leyline.evals.report.text import percent_interval

        for arm in written.report.arms:
            rates = f"solved {percent_interval(arm.solve_rate)}, hit rate {percent_interval(arm.hit_rate)}"
            say(f"{arm.label}: {rates}, {count(arm.trials, 'trial')}")
        for note in written.report.notes:
            say(f"note: {note}")
        say(f"wrote {written.html}")
    if open_page and not webbrowser.open(written.html.resolve().as_uri()):
        raise LeylineError(f"no browser could be started; open {written.html} yourself")


def _say(text: str) -> None:
    """Progress on standard error, so that --json stays clean; the same line again on a terminal."""
    if not sys.stderr.isatty():
        say(f"{text} ...", err=True)
        return
    status(f"{text} ..." if text else "")
