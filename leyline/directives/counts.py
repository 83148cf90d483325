"""Counts as people read them."""

from __future__ import annotations


def count(number: int, one: str, many: str | None = None) -> str:
    """`1 task`, `1,200 tasks`. many: where it is not `one` with an s, as in `count(n, "trial is", "trials are")`."""
    return f"{number:,} {one if number == 1 else many or f'{one}s'}"
