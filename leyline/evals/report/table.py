"""A table of a report, as text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """A table. words: the columns that hold words, by their heads; the first one always does."""

    name: str
    title: str
    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: tuple[str, ...] = ()

    def holds_words(self, column: int) -> bool:
        return column == 0 or self.head[column] in self.words
