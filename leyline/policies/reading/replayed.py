"""What a policy made of earlier turns, worked out again from the history alone."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from leyline.directives import Message
from leyline.policies.reading.history import Facts, History
from leyline.policies.reading.turns import history_at

Past = TypeVar("Past")

_REMEMBERED = 64
"""Histories that are remembered: so many conversations may take turns."""


class Replayed(Generic[Past]):
    """Replays the turns of a history through a step, so that a policy with a past stays a pure function.

    step: from the history of a turn, the turn, and the past before it to the past after it. start: before any turn.
    The last histories are remembered by their content: one that goes on from them costs its new turns only.
    """

    def __init__(self, step: Callable[[Sequence[Message], int, Past], Past], start: Past) -> None:
        self._step, self._start = step, start
        self._known: list[tuple[list[Facts], int, Past]] = []

    def __reduce__(self) -> tuple[type[Replayed[Past]], tuple[Callable[..., Past], Past]]:
        return Replayed, (self._step, self._start)

    def before(self, messages: Sequence[Message], turn: int) -> Past:
        """The past before `turn`, of which `messages` is the history."""
        return self._until(History.of(messages), turn, turn - 1)

    def after(self, messages: Sequence[Message], turn: int) -> Past:
        """The past after `turn`."""
        return self._until(History.of(messages), turn, turn)

    def keep(self, messages: Sequence[Message], turn: int, past: Past) -> None:
        """Remember the past after `turn`, where the caller has worked it out itself."""
        self._keep(History.of(messages).facts, turn, past)

    def _until(self, history: History, turn: int, last: int) -> Past:
        answers = [index for index, message in enumerate(history) if message.get("role") == "assistant"]
        then, past = -1, self._start
        for shared, at, found in self._known:
            length = answers[at - turn] if at < turn <= at + len(answers) else len(history)
            if then < at <= last and length == len(shared) and all(map(operator.is_, history.facts, shared)):
                then, past = at, found
        for at in range(then + 1, last + 1):
            known = history_at(history, turn, at)
            past = self._step(known, at, past)
            self._keep(history.facts[: len(known)], at, past)
        return past

    def _keep(self, facts: list[Facts], turn: int, past: Past) -> None:
        others = [entry for entry in self._known if entry[1] != turn or not _same(entry[0], facts)]
        self._known = [*others[1 - _REMEMBERED :], (facts, turn, past)]


def _same(one: list[Facts], other: list[Facts]) -> bool:
    return len(one) == len(other) and all(map(operator.is_, one, other))
