"""Digests of messages: the identity by which a conversation knows what it has seen."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from leyline.dialects.plain import MARKS
from leyline.directives import JsonObject, Message

KEPT_CHARS = 8_000_000
"""How much text, in characters, is kept to know a message again without reading all of it."""

_encode = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=str).encode


def plain_form(message: Mapping[str, object]) -> JsonObject:
    """The message without fields that say nothing (None, empty list or object) and without marks for a cache.

    A missing content is '', and a content of one text part is that text: clients write it either way.
    """
    kept = {key: value for key, value in message.items() if value not in (None, [], {}) and key not in MARKS}
    content = kept.get("content", "")
    if isinstance(content, list):
        if any(isinstance(part, Mapping) and not MARKS.isdisjoint(part) for part in content):
            content = [
                {k: v for k, v in part.items() if k not in MARKS} if isinstance(part, Mapping) else part
                for part in content
            ]
        only = content[0] if len(content) == 1 else None
        if isinstance(only, Mapping) and only.keys() == {"type", "text"} and isinstance(only["text"], str):
            content = only["text"]
    return {**kept, "content": content}


def digest(message: Mapping[str, object]) -> str:
    """Identity of a message: equal for a message and its round trip through a client's data model."""
    text = _encode(plain_form(message))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def digests(messages: Sequence[Message]) -> list[str]:
    """The digest of each message of a history."""
    return _memory.of(messages)


class _Memory:
    """Digests of the messages last seen, so that a history that grows is not read from its start each turn.

    Keyed by the whole message, not by a hash of it, and bounded by the text that this holds. Safe for threads.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: OrderedDict[Hashable, tuple[str, int]] = OrderedDict()
        self._chars = 0
        self._lock = threading.Lock()

    def of(self, messages: Sequence[Message]) -> list[str]:
        keys = [_frozen(message) for message in messages]
        found: list[str] = []
        with self._lock:
            known = self._known
            for key, message in zip(keys, messages, strict=True):
                entry = known.get(key)
                if entry is None:
                    entry = (digest(message), _chars(key))
                    known[key] = entry
                    self._chars += entry[1]
                else:
                    known.move_to_end(key)
                found.append(entry[0])
            while self._chars > self._limit and known:
                self._chars -= known.popitem(last=False)[1][1]
        return found


def _frozen(value: Any) -> Hashable:
    """A value that can be a key, equal only for values that are sent alike."""
    kind = type(value)
    if kind is str or value is None:
        return value  # type: ignore[no-any-return]
    if kind is dict:
        return (dict, *value, *[inner if type(inner) is str else _frozen(inner) for inner in value.values()])
    if kind is list or kind is tuple:
        return (list, *map(_frozen, value))
    if kind in (int, float, bool):
        return (kind, value)
    return (object, repr(value))


def _chars(key: Hashable) -> int:
    """Characters that a key holds, with what Python needs to hold them."""
    if isinstance(key, str):
        return len(key) + 50
    return 60 + sum(map(_chars, key)) if isinstance(key, tuple) else 8


_memory = _Memory(KEPT_CHARS)
