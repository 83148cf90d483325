"""Digests of messages: the identity by which a conversation knows what it has seen."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from leyline.dialects.plain import MARKS
from leyline.directives import JsonObject, Message
from leyline.policies.reading.history import History, fact

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
    """The digest of each message of a history, read once for each content."""
    return History.of(messages).each(digest)


def digest_once(message: Message) -> str:
    """`digest`, remembered by the message's content."""
    return fact(digest, message)
