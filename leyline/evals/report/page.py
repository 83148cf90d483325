"""The report as one HTML page that needs nothing beside it, and as Markdown."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from leyline.directives.counts import count
from leyline.evals.report.content import Report
from leyline.evals.report.curves import Cell, TaskRow
from leyline.evals.report.figures import Plot
from leyline.evals.report.numbers import ArmNumbers
from leyline.evals.report.sections import tables
from leyline.evals.report.table import Table
from leyline.evals.report.text import day, percent
from leyline.evals.report.viewer import Viewer
from leyline.evals.stats.clustered import Interval
from leyline.evals.trials.environment import described

Mark = tuple[str, float, float | None]  # class, left and width in percent
_ASSETS = Path(__file__).parent / "assets"
_AS_TABLES = ("rates", "tasks")  # the page shows these as tables with bars and cells
_SECTIONS = {
    "headline": "Headline",
    "arms": "Arms",
    "comparisons": "Comparisons",
    "agreement": "Agreement",
    "plots": "Plots",
    "tasks": "Tasks",
    "trajectories": "Trajectories",
    "account": "Record lines",
}


def html(report: Report, plots: Sequence[Plot], viewer: Viewer) -> str:
    """The whole page: styles, script, plots and trajectories inline."""
    from leyline import __version__

    made = {table.name: table for table in tables(report)}
    inline = [plot for plot in plots if plot.name not in _AS_TABLES]
    links = viewer.index()
    rows_of_arms = made["headline"].rows if report.arms else ()
    rows = [_task(report, row, links) for row in report.tasks]
    split = [cells for cells, row in zip(rows, report.tasks, strict=True) if row.split]
    shown = {
        "headline": bool(report.arms),
        "arms": bool(report.arms),
        "comparisons": "comparisons" in made,
        "agreement": "agreement" in made,
        "plots": bool(inline),
        "tasks": bool(rows),
        "trajectories": bool(viewer.recorded),
        "account": True,
    }
    environment = Environment(loader=FileSystemLoader(_ASSETS), autoescape=True, undefined=StrictUndefined)
    environment.filters |= {"breakable": _breakable, "count": count, "figures": _figures}
    return environment.get_template("report.html.jinja").render(
        version=__version__,
        title=title(report),
        subtitle=subtitle(report),
        when=_when(report),
        confidence=f"{report.confidence:.0%}",
        report=report,
        tables=made,
        headline=[_headline(arm, row) for arm, row in zip(report.arms, rows_of_arms, strict=True)],
        sections=[(anchor, name) for anchor, name in _SECTIONS.items() if shown[anchor]],
        plots=[{**vars(plot), "svg": Markup(plot.svg)} for plot in inline],
        split=split,
        same=[cells for cells, row in zip(rows, report.tasks, strict=True) if not row.split],
        viewer=viewer,
        entries=viewer.entries,
        problems=[f"{run.label}: {problem}" for run in report.runs for problem in run.problems],
        configs=[(run.label, json.dumps(run.config, indent=1)) for run in report.runs if run.config],
        packed=[_script(text) for text in viewer.packed],
        index=_script(json.dumps(viewer.entries)),
        css=Markup((_ASSETS / "report.css").read_text("utf-8")),
        js=Markup((_ASSETS / "viewer.js").read_text("utf-8")),
    )


def markdown(report: Report, plots: Sequence[Plot]) -> str:
    """Title, notes, tables and links to the plots."""
    parts = [f"# {title(report)}", subtitle(report)]
    parts += ["\n".join(f"- {note}" for note in report.notes)] if report.notes else []
    for table in tables(report):
        if table.name != "turns":
            parts += [f"## {table.title}", _markdown_table(table), table.caption]
    if plots:
        parts.append("## Plots")
        parts += [f"![{plot.title}](plots/{plot.name}.png)\n\n{plot.caption}" for plot in plots]
    problems = [f"- {run.label}: {problem}" for run in report.runs for problem in run.problems]
    parts += ["## Unreadable lines", "\n".join(problems)] if problems else []
    return "\n\n".join(parts) + "\n"


def title(report: Report) -> str:
    if not report.arms:
        return "Fidelity" if report.agreement else "No trials"
    suites = sorted({arm.group[0] for arm in report.data.arms})
    return f"{', '.join(suites)}: {count(len(report.arms), 'arm')} on {count(len(report.tasks), 'task')}"


def subtitle(report: Report) -> str:
    """Models and backends, trials, runs, machines and when."""
    probes = sum(len(run.fidelity) for run in report.runs)
    parts = [f"{arm.facts['model']} ({arm.facts['backend']})" for arm in report.arms if arm.facts["model"]]
    parts += [count(report.trials, "trial")] if report.trials or not probes else []
    parts += [count(probes, "probe")] if probes else []
    parts.append(count(len(report.runs), "run"))
    parts += _machines(report)
    when = _when(report)
    return " · ".join(dict.fromkeys([*parts, *([when] if when else [])]))


def _machines(report: Report) -> list[str]:
    """Of the trials; where a run's records do not say, and all have the same releases, the one of its configuration."""
    found = [origin.machine for origin in report.origins if origin.machine]
    for run in report.runs:
        machine = (run.config or {}).get("machine")
        releases = {tuple(sorted(record.versions.items())) for record in run.records}
        silent = len(releases) < 2 and not any(record.machine for record in run.records)
        if silent and isinstance(machine, dict) and machine.get("cpu"):
            found.append(described(machine))
    return found


def _when(report: Report) -> str | None:
    starts = [t.record.started for arm in report.data.arms for t in arm.trials if t.record.started > 0]
    if not starts:
        return None
    first, last = day(min(starts)), day(max(starts))
    return first if first == last else f"{first} to {last}"


def _headline(arm: ArmNumbers, row: tuple[str, ...]) -> dict[str, object]:
    """Text and bars of one arm; row: of its table. Only the rates have bars."""
    prompt = arm.tokens.prompt or 1
    prefix, spliced = 100 * arm.tokens.prefix / prompt, 100 * arm.tokens.spliced / prompt
    hit: list[Mark] = [("prefix", 0, round(prefix, 3)), ("spliced", round(prefix, 3), round(spliced, 3))]
    rate: list[Mark] = [] if arm.solve_rate is None else [("bar", 0, round(100 * arm.solve_rate.estimate, 3))]
    dot: list[Mark] = [] if arm.solve_rate is None else [("dot", round(100 * arm.solve_rate.estimate, 3), None)]
    solve, found = [*rate, *_range(arm.solve_rate), *dot], [*hit, *_range(arm.hit_rate)]
    return {
        "label": arm.label,
        "control": arm.control,
        "cells": list(zip(row[1:], (solve, found), strict=False)) + [(text, None) for text in row[3:]],
    }


def _range(value: Interval | None) -> list[Mark]:
    if value is None or math.isnan(value.low):
        return []
    return [("range", round(100 * value.low, 3), round(100 * (value.high - value.low), 3))]


def _task(report: Report, row: TaskRow, links: dict[tuple[str, str], int]) -> dict[str, object]:
    cells = []
    for arm, cell in zip(report.arms, row.cells, strict=True):
        text, kind = _cell(cell)
        said = "not run" if cell is None else f"{cell.solved} of {cell.scored} solved"
        if cell is not None and cell.scored:
            said += f" ({percent(cell.solved / cell.scored)})"
        title = f"{arm.label}: {said}"
        cells.append({"text": text, "kind": kind, "title": title, "link": links.get((arm.label, row.task))})
    return {"task": row.task, "cells": cells}


def _cell(cell: Cell | None) -> tuple[str, str]:
    """What stands in a cell of the heat map, and its class."""
    if cell is None:
        return "–", "void"
    if not cell.scored:
        return "?", "void"
    kind = "all" if cell.solved == cell.scored else "some" if cell.solved else "none"
    if cell.scored > 1:
        return f"{cell.solved}/{cell.scored}", kind
    return ("✓" if cell.solved else "L" if cell.limit else "!" if cell.error else "✗"), kind


def _figures(text: str) -> Markup:
    """Escaped numbers, with what stands in brackets behind them in grey."""
    value, space, rest = text.partition(" [")
    grey = Markup(' <span class="ci">[{}</span>').format(rest) if space else Markup("")
    return Markup('<span class="value">{}</span>').format(value) + grey


def _breakable(text: str) -> Markup:
    """Escaped text that may break after punctuation, as names of arms and policies have it."""
    return Markup(re.sub(r"([+_@/,=.-](?=\w)|\w(?=\())", r"\1<wbr>", str(escape(text))))


def _script(text: str) -> Markup:
    """JSON that cannot end the script element it stands in."""
    return Markup(text.replace("<", "\\u003c"))


def _markdown_table(table: Table) -> str:
    lines = [table.head, tuple("---" if table.holds_words(k) else "---:" for k in range(len(table.head)))]
    return "\n".join("| " + " | ".join(_escape(cell) for cell in row) + " |" for row in [*lines, *table.rows])


def _escape(cell: str) -> str:
    return cell.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*").replace("\n", " ")
