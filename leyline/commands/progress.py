"""What a person sees while an agent runs: a line a turn on standard error; plain where it is not a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from leyline.commands.terminal import say, status
from leyline.directives.counts import count
from leyline.harness.agent import Event
from leyline.harness.session.session import SessionTurn

WIDTH = 46


def call_text(name: str, arguments: Mapping[str, object] | None, width: int = WIDTH) -> str:
    """A tool call on one line, cut to `width` characters."""
    inner = ", ".join(f"{key}={value!r}" for key, value in (arguments or {}).items())
    text = f"{name}({inner})" if name else "no valid tool call"
    return text if len(text) <= width else f"{text[: width - 3]}..."


def token_text(turn: SessionTurn) -> str:
    """Where the tokens of a prompt came from, and what was edited."""
    receipt = turn.receipt
    parts = [f"{receipt.prefix_tokens:>6} cached", f"{receipt.spliced_tokens:>5} spliced"]
    parts.append(f"{receipt.prefilled_tokens:>5} prefilled")
    if turn.edits:
        parts.append(count(len(turn.edits), "edit"))
    if receipt.fallback is not None:
        parts.append(f"fallback: {receipt.fallback.value}")
    return "  ".join(parts)


class Progress:
    """Prints the events of a run. The line of a turn appears when its tool call starts.

    On a terminal the last line says what is going on, so that a slow model is not taken for a dead one.
    turns: how many model calls were answered.
    """

    def __init__(self) -> None:
        self.turns = 0
        self._terminal = sys.stderr.isatty()
        self._turn: SessionTurn | None = None
        self._written = 0
        self._status = False

    def say(self, text: str, colour: str | None = None) -> None:
        self._clear()
        say(text, err=True, colour=colour)

    def __call__(self, event: Event) -> None:
        if event.kind == "turn":
            self._written = 0
            self._wait(f"  {event.turn + 1:>3}  waiting for the model ...")
        elif event.kind == "text":
            self._written += len(event.data["text"])
            self._wait(f"  {event.turn + 1:>3}  {count(self._written, 'character')} ...")
        elif event.kind == "receipt":
            self.turns += 1
            self._turn = event.data["turn"]
        elif event.kind == "tool_call":
            call = call_text(event.data["name"], event.data["arguments"])
            self._line(event.turn, call)
            self._wait(f"       running {event.data['name']} ...")
        elif event.kind == "tool_result" and self._turn is not None:
            self._line(event.turn, call_text("", None))  # the model called no tool, so no line was printed yet
        elif event.kind == "end":
            outcome = event.data["outcome"]
            reason = f" ({event.data['reason']})" if event.data["reason"] else ""
            self.say(f"  {outcome}{reason}", "green" if outcome == "solved" else "yellow")

    def _line(self, number: int, call: str) -> None:
        tokens = token_text(self._turn) if self._turn is not None else ""
        self._turn = None
        self.say(f"  {number + 1:>3}  {call:<{WIDTH}}  {tokens}".rstrip())

    def _wait(self, text: str) -> None:
        if self._terminal:
            status(text)
            self._status = True

    def _clear(self) -> None:
        if self._status:
            status("")
            self._status = False
