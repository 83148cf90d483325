"""How figures look and how they are saved: PNG and SVG files, and an inline SVG that follows the page's theme."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's palette, which colour-blind readers can tell apart; in the page each is a variable with a dark twin.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK, MUTED, GRID, PAPER = "#1c2024", "#60676e", "#dcdfe3", "#ffffff"
_VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--line", PAPER: "--paper"} | {
    colour: f"--s{number}" for number, colour in enumerate(SERIES)
}
MARKERS = ("o", "s", "^", "D", "P", "X")
WIDTH = 4.6  # inches; as wide as a phone, where 8 points stay readable
_STYLE: Mapping[str, object] = {
    "font.size": 8,
    "font.family": "sans-serif",
    "text.color": INK,
    "text.parse_math": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.titlesize": 8,
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.frameon": False,
    "legend.fontsize": 7.5,
    "lines.linewidth": 1.6,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "svg.fonttype": "none",
    "svg.hashsalt": "leyline",
}


@dataclass(frozen=True)
class Plot:
    """A figure of the report. title, caption: plain text. svg: for the page, with the page's colours."""

    name: str
    title: str
    caption: str
    svg: str


@contextmanager
def style() -> Iterator[None]:
    """The report's look, for figures that are made and saved inside."""
    with matplotlib.rc_context(dict(_STYLE)), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # an arm may have any name
        yield


def blank(height: float, rows: int = 1, columns: int = 1, **options: Any) -> tuple[Figure, list[Axes]]:
    """A figure of the report's width with its axes, row by row."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(axes.flat)


def legend(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """A legend under the axes, which take the room that is left, in the order of `labels`."""
    short = [elide(label) for label in labels]
    columns = 2 if len(short) > 1 and max(map(len, short)) <= 26 else 1
    if columns == 2:  # they are filled one after the other; the order is that of reading
        handles, short = [*handles[::2], *handles[1::2]], [*short[::2], *short[1::2]]
    figure.legend(handles, short, loc="outside lower left", ncols=columns, handlelength=2.2, borderaxespad=0.2)


def elide(label: str, width: int = 44) -> str:
    """At most `width` characters, cut in the middle; a leading underscore, which legends leave out, gets a space."""
    if len(label) > width:
        half = (width - 1) // 2
        label = f"{label[:half]}…{label[-half:]}"
    return f" {label}" if label.startswith("_") else label


def save(figure: Figure, folder: Path, name: str, title: str, caption: str) -> Plot:
    """Write NAME.png and NAME.svg and return the inline version."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", dpi=160)
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "leyline", "Title": title})
    text = buffer.getvalue()
    (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    return Plot(name, title, caption, _inline(text, name, title))


def _inline(text: str, name: str, title: str) -> str:
    """The SVG element alone, with ids of its own, colours as variables and the page's font."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'(\bid="|xlink:href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"#[0-9a-f]{6}\b", lambda m: f"var({_VARIABLES[m[0]]})" if m[0] in _VARIABLES else m[0], text)
    text = re.sub(r"(font: [0-9.]+px )[^;\"]*", r"\g<1>var(--sans)", text)
    return re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', _opening(title), text, count=1)


def _opening(title: str) -> str:
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;").replace("\\", "\\\\")
    return rf'<svg viewBox="\g<1>" role="img" aria-label="{label}" xmlns:xlink="http://www.w3.org/1999/xlink">'
