"""A history that is read once: what its messages say is remembered by their content, from turn to turn.

A harness sends its whole history each turn, and all but the newest messages were read before. What a pure function of
one message gives is kept under that message's content, so nothing that is changed in place can be taken for what it
was before.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Any, TypeVar

from leyline.directives import Message

KEPT_CHARS = 8_000_000
"""How much text, in characters, is kept to know a message again without reading all of it."""
_MOST_FACTS = 32  # of one message; the built-in policies and the ledger ask for fewer

Value = TypeVar("Value")
Facts = dict[Callable[..., object], Any]
"""What functions of a message gave for it."""


class Memory:
    """Facts of the messages last seen. Keyed by the whole message, not by a hash of it, and bounded by the text that
    this holds. Safe for threads.
    """

    def __init__(self, limit: int = KEPT_CHARS) -> None:
        self._limit = limit
        self._known: OrderedDict[Hashable, tuple[Facts, int]] = OrderedDict()
        self._chars = 0
        self._lock = threading.Lock()

    def facts(self, messages: Iterable[Message]) -> list[Facts]:
        """The facts of each message, empty where it is new, and always where it holds more than plain values."""
        keys = [_key(message) for message in messages]
        found: list[Facts] = []
        with self._lock:
            known = self._known
            for key in keys:
                entry = known.get(key)
                if entry is None:
                    entry = ({}, 0)
                    if key is not None:
                        known[key] = entry = (entry[0], _chars(key))
                        self._chars += entry[1]
                else:
                    known.move_to_end(key)
                found.append(entry[0])
            while self._chars > self._limit and known:
                self._chars -= known.popitem(last=False)[1][1]
        return found

    def clear(self) -> None:
        with self._lock:
            self._known.clear()
            self._chars = 0


memory = Memory()


class History(list[Message]):
    """A history that nobody changes while this is in use. What is asked of it, or of one of its messages, is worked out
    once. All that it gives is to be read only.
    """

    __slots__ = ("_facts", "_whole")

    def __init__(self, messages: Iterable[Message]) -> None:
        super().__init__(messages)
        self._facts: list[Facts] | None = None
        self._whole: dict[Callable[..., object], Any] = {}

    @classmethod
    def of(cls, messages: Sequence[Message]) -> History:
        """The messages as a history; itself where they are one."""
        return messages if type(messages) is History else cls(messages)

    def once(self, read: Callable[[Sequence[Message]], Value]) -> Value:
        """`read(self)`, worked out the first time."""
        if read not in self._whole:
            self._whole[read] = read(self)
        found: Value = self._whole[read]
        return found

    def fact(self, read: Callable[[Message], Value], index: int) -> Value:
        """`read(self[index])`, worked out the first time that a message with this content is seen."""
        return _told(self.facts[index], read, self[index])

    def each(self, read: Callable[[Message], Value]) -> list[Value]:
        """`read` of every message."""
        facts = self.facts
        try:
            return [known[read] for known in facts]
        except KeyError:
            return [_told(known, read, message) for known, message in zip(facts, self, strict=True)]

    def other(self, messages: Sequence[Message]) -> History:
        """Another history; those of its messages that stand in this one as well are not looked up again."""
        made = History(messages)
        if self._facts is not None:
            known = dict(zip(map(id, self), self._facts, strict=True))
            new = iter(memory.facts(message for message in made if id(message) not in known))
            made._facts = [known[id(message)] if id(message) in known else next(new) for message in made]
        return made

    @property
    def facts(self) -> list[Facts]:
        """What is known of each message. The same object stands for the same content."""
        if self._facts is None:
            self._facts = memory.facts(self)
        return self._facts


def once(read: Callable[[Sequence[Message]], Value], messages: Sequence[Message]) -> Value:
    """`read(messages)`; of a `History` it is remembered."""
    return messages.once(read) if type(messages) is History else read(messages)


def each(read: Callable[[Message], Value], messages: Sequence[Message]) -> list[Value]:
    """`read` of every message; of a `History` it is remembered."""
    return messages.each(read) if type(messages) is History else [read(message) for message in messages]


def fact(read: Callable[[Message], Value], message: Message) -> Value:
    """`read(message)`, remembered by the message's content."""
    return _told(memory.facts([message])[0], read, message)


def _told(facts: Facts, read: Callable[[Message], Value], message: Message) -> Value:
    try:
        found: Value = facts[read]
    except KeyError:
        found = read(message)
        if len(facts) >= _MOST_FACTS:
            facts.clear()
        facts[read] = found
    return found


class _UnknownError(Exception):
    """A value holds an object whose content is not seen."""


def _key(message: Message) -> Hashable:
    """What a message holds, as a key; None where it holds more than plain values."""
    try:
        return _frozen(message)
    except _UnknownError:
        return None


def _frozen(value: Any) -> Hashable:
    """A value that can be a key, equal only for values that are sent alike and read alike."""
    kind = type(value)
    if kind is str or value is None:
        return value  # type: ignore[no-any-return]
    if kind is dict:
        return (dict, *value, *[inner if type(inner) is str else _frozen(inner) for inner in value.values()])
    if kind is list or kind is tuple:
        return (kind, *map(_frozen, value))
    if kind is float:
        return (float, repr(value))  # 0.0 and -0.0 are equal
    if kind is int or kind is bool:
        return (kind, value)
    raise _UnknownError


def _chars(key: Hashable) -> int:
    """Characters that a key holds, with what Python needs to hold them."""
    if isinstance(key, str):
        return len(key) + 50
    return 60 + sum(map(_chars, key)) if isinstance(key, tuple) else 8
