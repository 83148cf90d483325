"""The one place that writes to a person's terminal: text of models, tools and files never steers it.

Whatever stands in a recording, an answer or an error may hold escape sequences that rename the window, clear the screen
or worse. They are shown, not sent: `\\x1b[2J`.
"""

from __future__ import annotations

import re
import sys

import typer

# Controls but tab and line feed, and what reorders or hides text: C0, DEL, C1, bidirectional marks, line separators,
# lone surrogates (which could not be encoded either).
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufeff]")
_START = "\r\033[K"


def safe(text: object) -> str:
    """A text that a terminal shows and does not obey. Line feeds and tabs stay."""
    return _UNSAFE.sub(_visible, str(text))


def say(text: object = "", *, err: bool = False, nl: bool = True, colour: str | None = None) -> None:
    """Print a text safely. colour: of `typer.colors`, for a terminal only."""
    shown = safe(text)
    stream = sys.stderr if err else sys.stdout
    typer.echo(typer.style(shown, fg=colour) if colour and stream.isatty() else shown, err=err, nl=nl)


def give(text: str) -> None:
    """Print what another program reads, such as a patch: exactly, but safely where a person looks at it."""
    typer.echo(safe(text) if sys.stdout.isatty() else text, nl=False)


def status(text: str) -> None:
    """Put a text in place of the last line of standard error; an empty one removes it. For terminals."""
    typer.echo(f"{_START}{safe(text)}", err=True, nl=False)


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
