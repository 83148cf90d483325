"""Files as numbered lines, the way every tool shows and counts them."""

from __future__ import annotations

from collections.abc import Sequence

from leyline.harness.workspace.workspace import printable


def split(text: str) -> list[str]:
    """The lines of `text`. A last line without an end counts; a carriage return before the end stays on its line."""
    lines = text.split("\n")
    if lines[-1] == "":
        lines.pop()
    return lines


def shown(line: str) -> str:
    """A line as the model sees it: without its carriage return, with undecodable bytes replaced."""
    return printable(line.removesuffix("\r"))


def numbered(lines: Sequence[str], start: int, end: int) -> str:
    """Lines `start` to `end`, from 1 and both inclusive, each behind its number."""
    return "\n".join(f"{i}|{shown(lines[i - 1])}" for i in range(start, end + 1))
