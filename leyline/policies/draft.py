"""Edits on top of edits: several policies' edits as one list in the coordinates of the unedited history."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leyline.directives import Message, MessageEdit, Mode
from leyline.directives.messages import group_edits


@dataclass
class _Slot:
    """A place in the history. origin: index in the unedited history, None for an inserted message.

    message: what stands there now, None for a dropped one. mode: of the edits made to it, None if there were none.
    """

    origin: int | None
    message: Message | None
    mode: Mode | None = None


class Draft:
    """A history while several policies edit it one after the other."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._original = messages
        self._slots = [_Slot(index, message) for index, message in enumerate(messages)]

    @property
    def messages(self) -> list[Message]:
        """The history as it stands."""
        return [slot.message for slot in self._slots if slot.message is not None]

    def apply(self, edits: Sequence[MessageEdit]) -> None:
        """Apply edits in indices of `messages`. Raises EditError where they do not fit."""
        live = [slot for slot in self._slots if slot.message is not None]
        inserts, changes = group_edits(len(live), edits)
        slots: list[_Slot] = []
        position = 0
        for slot in self._slots:
            if slot.message is not None:
                slots += [_Slot(None, e.replacement, e.mode) for e in inserts.get(position, ())]
                change = changes.get(position)
                if change is not None:
                    slot = _Slot(slot.origin, change.replacement, _stronger(slot.mode, change.mode))
                position += 1
            slots.append(slot)
        slots += [_Slot(None, e.replacement, e.mode) for e in inserts.get(position, ())]
        self._slots = slots

    def edits(self) -> list[MessageEdit]:
        """Everything that was done, as edits of the unedited history, ascending."""
        result: list[MessageEdit] = []
        following = 0
        for slot in self._slots:
            if slot.origin is not None:
                following = slot.origin + 1
                if slot.mode is not None and slot.message != self._original[slot.origin]:
                    result.append(MessageEdit(slot.origin, slot.message, slot.mode))
            elif slot.message is not None and slot.mode is not None:
                result.append(MessageEdit(following, slot.message, slot.mode, insert=True))
        return result


def _stronger(first: Mode | None, second: Mode) -> Mode:
    """Of two edits to one message: a FORGET holds."""
    return Mode.FORGET if Mode.FORGET in (first, second) else second
