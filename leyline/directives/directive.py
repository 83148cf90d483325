"""One edit of a token sequence, and one run of the edited sequence."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from leyline.directives.errors import DirectiveError
from leyline.directives.fallback import Fallback


class Mode(StrEnum):
    """The contract of an edit.

    AMORTIZE: the KV behind the span is kept and moved to its new position. Position-exact reuse, but the kept tokens
        still carry what they absorbed from the span. Not deletion.
    FORGET: nothing computed while the span was visible is reused, from the span on.
    AUTO: as AMORTIZE, or prefilled, whichever the server expects to be cheaper; the receipt's `choice` says which.
    """

    AMORTIZE = "amortize"
    FORGET = "forget"
    AUTO = "auto"


@dataclass(frozen=True, slots=True)
class Directive:
    """Replace tokens `[start, end)` of the source by `replacement`.

    start, end: half-open, in tokens of the source (the sequence that the server holds).
    replacement: the new tokens; any sequence of ints is kept as a tuple.
    mode: a `Mode`, or its name.
    """

    start: int
    end: int
    replacement: tuple[int, ...] = ()
    mode: Mode = Mode.AMORTIZE

    def __post_init__(self) -> None:
        if type(self.replacement) is not tuple:
            object.__setattr__(self, "replacement", tuple(self.replacement))
        if type(self.mode) is not Mode:
            try:
                object.__setattr__(self, "mode", Mode(self.mode))
            except ValueError:
                raise DirectiveError(
                    f"mode {self.mode!r} is not known; use 'amortize', 'forget' or 'auto'",
                    index=None,
                    field="mode",
                    reason=Fallback.MALFORMED,
                ) from None

    @property
    def delta(self) -> int:
        """How far the tokens behind the span move: `len(replacement) - (end - start)`."""
        return len(self.replacement) - (self.end - self.start)


@dataclass(frozen=True, slots=True)
class Segment:
    """One run of the target.

    kind: `prefix` (same tokens at the same place, before any edit), `reuse` (tokens of the source whose KV is moved)
        or `prefill` (tokens to compute).
    target_start, length: the run in target tokens.
    source_start: where the run begins in the source; None for `prefill`.
    """

    kind: Literal["prefix", "reuse", "prefill"]
    target_start: int
    length: int
    source_start: int | None

    @property
    def target_end(self) -> int:
        """One past the run's last target token."""
        return self.target_start + self.length

    @property
    def delta(self) -> int:
        """How far the run moved: target minus source position; 0 for `prefill`."""
        return 0 if self.source_start is None else self.target_start - self.source_start
