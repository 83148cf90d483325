"""Edits that depend on what was edited at earlier turns, worked out again from the history alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from leyline.directives import Message, MessageEdit
from leyline.policies.reading.turns import history_at

Step = Callable[[Sequence[Message], int, Sequence[MessageEdit]], list[MessageEdit]]
"""From the history of a turn, the turn, and the edits made before to the new ones."""


class Replayed:
    """Replays the turns of a history through a step, so that a policy with a past stays a pure function.

    The last history is remembered: one that goes on from it costs its new turns only.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        self._last: tuple[list[Message], int, tuple[MessageEdit, ...]] = ([], -1, ())

    def edits(self, messages: Sequence[Message], turn: int) -> list[MessageEdit]:
        """Every edit made up to `turn`, ascending."""
        known, then, made = self._last
        past = history_at(messages, turn, then)
        if not 0 <= then <= turn or list(past) != known:
            then, made = -1, ()
        for at in range(then + 1, turn + 1):
            past = history_at(messages, turn, at)
            made = (*made, *self._step(past, at, made))
        self._last = (list(messages), turn, made)
        return sorted(made, key=lambda edit: (edit.message_index, not edit.insert))
