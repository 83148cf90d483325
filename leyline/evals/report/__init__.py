"""Reports: from run directories to `report.html`, `report.md`, `results.json` and plots. Needs the `report` extra."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from leyline.evals.report.content import Report, build
from leyline.evals.report.page import html, markdown
from leyline.evals.report.plots import draw
from leyline.evals.report.sources import ReportError
from leyline.evals.report.viewer import view

__all__ = ["Report", "ReportError", "Written", "build", "write_report"]

TRAJECTORIES = 40


@dataclass(frozen=True)
class Written:
    """A report and its files."""

    report: Report
    html: Path
    markdown: Path
    results: Path
    plots: tuple[Path, ...]


def write_report(
    directories: Sequence[Path],
    out: Path,
    *,
    baseline: str | None = None,
    trajectories: int = TRAJECTORIES,
    tokenizer: Path | None = None,
    on_step: Callable[[str], None] = lambda text: None,
) -> Written:
    """Compute the report of some run directories and write it into `out`.

    baseline: the label of an arm to compare every other one with. trajectories: at most so many in the page's viewer.
    tokenizer: a folder or file for models whose own is not at hand. on_step is told what happens next. Raises
    ReportError.
    """
    on_step("reading records")
    report = build(directories, baseline=baseline)
    on_step("drawing plots")
    try:
        out.mkdir(parents=True, exist_ok=True)
        plots = draw(report, out / "plots")
        on_step("packing trajectories")
        viewer = view(report, trajectories, tokenizer)
        on_step("writing the page")
        written = Written(
            report,
            _write(out / "report.html", html(report, plots, viewer)),
            _write(out / "report.md", markdown(report, plots)),
            _write(out / "results.json", json.dumps(report.to_json(), indent=1, ensure_ascii=False) + "\n"),
            tuple(out / "plots" / f"{plot.name}.{kind}" for plot in plots for kind in ("png", "svg")),
        )
    except OSError as error:
        raise ReportError(f"cannot write to {out}: {error.strerror or error}; choose another --out") from None
    return written


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path
