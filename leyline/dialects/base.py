"""What a dialect gives: a request's history as policies read it, and the way back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from leyline.directives import JsonMapping, LeylineError, Message

Item = Any
"""An element of a request's history, as the client gave it: a dict, or one of its library's models."""


class DialectError(LeylineError, ValueError):
    """A history that cannot be read, or an edit that its dialect cannot carry. The message names the place."""


@dataclass(slots=True)  # not frozen: that takes three times as long, for every message of every turn
class Placed:
    """A message of an edited history. index: its place in the history that was read, None for a new message."""

    index: int | None
    message: Message


@dataclass(frozen=True)
class Written:
    """An edited history in its dialect.

    items: what stands in the request's list. Elements without an edit are the very objects that were given.
    origins: for each element its index in the list that was given, None for a new one.
    fields: other fields of the request that an edit changed, such as `system`; None removes one.
    """

    items: list[Item]
    origins: list[int | None]
    fields: JsonMapping = field(default_factory=dict)


class Reading(ABC):
    """A request's history, read.

    history: as policies read it: `role`, `content`, `tool_calls`, `tool_call_id`, and `reasoning_content` for thinking.
    Marks for a cache are not in it. Treat it as read-only.
    """

    field_name: str
    """The field of the request that holds the list."""

    def __init__(self, items: Sequence[Item], history: list[Message]) -> None:
        self.items, self.history = items, history

    def untouched(self, edited: Sequence[Placed]) -> bool:
        """Whether an edited history is the one that was read."""
        return len(edited) == len(self.history) and all(
            placed.index == index and placed.message is self.history[index] for index, placed in enumerate(edited)
        )

    def kept(self, placed: Placed) -> bool:
        """Whether a message of the edited history carries no edit."""
        return placed.index is not None and placed.message is self.history[placed.index]

    @abstractmethod
    def write(self, edited: Sequence[Placed]) -> Written:
        """The edited history in its dialect. Raises DialectError for an edit that it cannot carry."""


def items_of(body: Mapping[str, object], name: str) -> Sequence[Item]:
    """The list of a request. Raises DialectError where there is none."""
    items = body.get(name)
    if not isinstance(items, (list, tuple)):
        what = "missing" if name not in body else f"a {type(items).__name__}"
        raise DialectError(f"{name} is {what}; give the history as a list")
    return items


def place(name: str, index: int, part: int | None = None) -> str:
    """How an element is named in an error."""
    return f"{name}[{index}]" if part is None else f"{name}[{index}].content[{part}]"
