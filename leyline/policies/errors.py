"""The error of this package, and the hint that goes with a mistyped name."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from leyline.directives import LeylineError


class PolicyError(LeylineError, ValueError):
    """A policy cannot be found, its settings do not fit, or its edits would break the history.

    The message is one line: it names the policy, what is wrong and the fix.
    """

    def __init__(self, message: str) -> None:
        # Names and values from a spec are quoted in messages and may hold line breaks.
        super().__init__(" ".join(message.splitlines()))


def nearest(name: str, known: Iterable[str]) -> str:
    """` Did you mean 'a' or 'b'?`, or an empty string where nothing is close."""
    close = get_close_matches(name, sorted(known), n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else ""


def one_line(error: BaseException) -> str:
    """`Type: text` of an exception, without line breaks."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
