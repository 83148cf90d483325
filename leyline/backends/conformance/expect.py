"""How a check says what it expected and what it found. Nothing here is an `assert`, which `python -O` leaves out."""

from __future__ import annotations

from collections.abc import Collection
from typing import TypeVar

from leyline.directives import LeylineError

T = TypeVar("T")
LONGEST = 200  # characters shown of a value


class ConformanceError(LeylineError, AssertionError):
    """A backend breaks a promise. `expected` and `found` are texts; `check` is the one that found it, once it ran."""

    def __init__(self, wrong: str, *, expected: str, found: str, check: str | None = None) -> None:
        super().__init__(f"{check + ': ' if check else ''}{wrong}: expected {expected}, found {found}")
        self.wrong, self.expected, self.found, self.check = wrong, expected, found, check

    def of(self, check: str) -> ConformanceError:
        """The same with the name of its check."""
        return ConformanceError(self.wrong, expected=self.expected, found=self.found, check=check)


def equal(found: object, expected: object, wrong: str) -> None:
    """Raise ConformanceError unless the two are equal. wrong: what the backend did, if they are not."""
    if found != expected:
        raise ConformanceError(wrong, expected=_brief(expected), found=_brief(found))


def at_least(found: int | None, bound: int, wrong: str) -> None:
    """Raise ConformanceError for a smaller number, or none."""
    if found is None or found < bound:
        raise ConformanceError(wrong, expected=f"at least {bound}", found=_brief(found))


def at_most(found: int | None, bound: int, wrong: str) -> None:
    """Raise ConformanceError for a greater number, or none."""
    if found is None or found > bound:
        raise ConformanceError(wrong, expected=f"at most {bound}", found=_brief(found))


def one_of(found: object, expected: Collection[object], wrong: str) -> None:
    """Raise ConformanceError unless `found` is among `expected`."""
    if found not in expected:
        raise ConformanceError(wrong, expected=f"one of {_brief(expected)}", found=_brief(found))


def given(found: T | None, wrong: str) -> T:
    """What was found. Raises ConformanceError for None."""
    if found is None:
        raise ConformanceError(wrong, expected="one", found="None")
    return found


def holds(found: object, wrong: str, *, expected: str) -> None:
    """Raise ConformanceError for what is false or empty. expected: what there should be, in words."""
    if not found:
        raise ConformanceError(wrong, expected=expected, found=_brief(found))


def _brief(value: object) -> str:
    text = str(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
