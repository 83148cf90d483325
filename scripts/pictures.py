"""The picture of the README and the concepts page, with the times that `results/speed/edits.json` holds.

python scripts/pictures.py                 # writes docs/images/edit.svg
python scripts/pictures.py --check         # exit code 1 where the file is not what this would write
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

ROOT = Path(__file__).parents[1]
TARGET = ROOT / "docs" / "images" / "edit.svg"
WIDTH, LEFT, BAR = 880, 150, 30
COLOURS = {"cached": "#9ec5fe", "moved": "#a3cfbb", "computed": "#f1aeb5", "removed": "#e9ecef", "plain": "#dee2e6"}

Run = tuple[str, float, str]  # text, width in points, colour


def rows(times: dict[str, float]) -> list[tuple[str, str, list[Run]]]:
    """Each bar: what it is, what it costs, and its runs. times: milliseconds by `undirected` and `rep1`."""
    prefix, suffix = ("prefix A", 150.0, "cached"), 350.0
    honest = [prefix, ("R", 40.0, "computed"), ("suffix C, computed again", suffix, "computed")]
    return [
        (
            "the cache holds",
            "",
            [("prefix A", 150, "plain"), ("old tool output B", 130, "removed"), ("suffix C", suffix, "plain")],
        ),
        ("the edited prompt", "", [("prefix A", 150, "plain"), ("R", 40, "plain"), ("suffix C", suffix, "plain")]),
        ("prefix cache", f"{times['undirected']:,.0f} ms", honest),
        ("FORGET", "the same work", honest),
        (
            "AMORTIZE",
            f"{times['rep1']:,.0f} ms",
            [prefix, ("R", 40, "computed"), ("suffix C, kept: its keys are rotated", suffix, "moved")],
        ),
    ]


def draw(times: dict[str, float], tokens: int, model: str) -> str:
    """The whole SVG."""
    height = 5 * 48 + 112
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="system-ui, sans-serif" font-size="14">',
        "<title>A prompt before and after an edit, and what a prefix cache, FORGET and AMORTIZE compute of it</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#fff"/>',
        *_lines(rows(times), tokens, model),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _text(x: float, y: float, text: str, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" fill="#212529"{more}>{escape(text)}</text>'


def _box(x: float, y: float, width: float, height: float, colour: str) -> str:
    dashed = ' stroke-dasharray="4 3"' if colour == "removed" else ""
    size = f'width="{width:g}" height="{height:g}"'
    return f'<rect x="{x:g}" y="{y:g}" {size} fill="{COLOURS[colour]}" stroke="#495057"{dashed}/>'


def _lines(bars: Sequence[tuple[str, str, list[Run]]], tokens: int, model: str) -> Iterator[str]:
    y = 24.0
    for name, cost, runs in bars:
        yield _text(LEFT - 12, y + 20, name, ' text-anchor="end"')
        x = float(LEFT)
        for text, width, colour in runs:
            yield _box(x, y, width, BAR, colour)
            yield _text(x + width / 2, y + 20, text, ' text-anchor="middle"')
            x += width
        if cost:
            yield _text(x + 10, y + 20, cost)
        y += 62 if name == "the edited prompt" else 48
    for number, colour in enumerate(("cached", "moved", "computed")):
        yield _box(LEFT + 100 * number, y, 14, 14, colour)
        yield _text(LEFT + 100 * number + 20, y + 12, colour)
    caption = (
        f"Time to the first token on one H200, {model}, a prompt of {tokens:,} tokens:",
        "1,024 of them replaced by 64 at a quarter of the prompt (prefix cache: removed). results/speed/edits.json",
    )
    for number, text in enumerate(caption):
        yield _text(LEFT, y + 36 + 16 * number, text, ' font-size="12" opacity="0.7"')


def picture() -> str:
    """The SVG of the longest GQA prompt measured."""
    found = json.loads((ROOT / "results" / "speed" / "edits.json").read_text("utf-8"))["edits"]
    entry = max((e for e in found if "llama" in e["model"].lower()), key=lambda e: e["tokens"])
    return draw(entry["ms"], entry["tokens"], "the shape of Llama-3.1-8B")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the file is up to date")
    if parser.parse_args().check:
        return 0 if TARGET.read_text("utf-8") == picture() else 1
    TARGET.write_text(picture(), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
