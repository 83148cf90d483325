"""The root of the exception tree, and the errors of this package.

    LeylineError
    ├── CostsError       a file of costs cannot be read or written
    ├── DirectiveError   a token directive is out of range, overlaps or does nothing
    ├── EditError        a message edit or a rendered prompt is inconsistent
    └── WireError        JSON from the other side is not a valid request or receipt

Every message is one line that says what is wrong and what to do next.
"""

from __future__ import annotations

from leyline.directives.fallback import Fallback


class LeylineError(Exception):
    """The root of every error that Leyline raises on purpose."""


class DirectiveError(LeylineError, ValueError):
    """A directive cannot be applied to its source.

    index: which directive of the script, or None for one that is not in a script yet.
    field: `start`, `end`, `replacement`, `mode`, `removed`, `seam` or `sink`.
    bound: the bound that was broken, or None where there is no number.
    reason: what a receipt would say.
    """

    def __init__(
        self,
        message: str,
        *,
        index: int | None,
        field: str,
        bound: int | None = None,
        reason: Fallback = Fallback.OUT_OF_RANGE,
    ) -> None:
        super().__init__(message if index is None else f"directive {index}: {message}")
        self.index = index
        self.field = field
        self.bound = bound
        self.reason = reason


class EditError(LeylineError, ValueError):
    """A message edit does not fit its history, or a rendered prompt's spans do not fit its tokens."""


class WireError(LeylineError, ValueError):
    """The only error that parsing untrusted JSON raises. `reason` is what a receipt would say."""

    def __init__(self, message: str, *, reason: Fallback = Fallback.MALFORMED) -> None:
        super().__init__(message)
        self.reason = reason
