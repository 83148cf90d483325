"""Keys of the cache tree: how approximate KV is kept apart from honest KV.

The tree is a prefix tree over token ids. Replacing *one* id of a key by a secret mark makes everything behind it
private: no request finds it without the mark, and everything before it stays shared. So a path is described by its
tokens and a few marks, and a *lineage* is the sealed list of a path's marks:

* an AMORTIZE puts a mark at the first token whose KV was moved;
* a FORGET inside a lineage puts a further mark where the forgotten span began, so that nothing that an earlier turn of
  the same lineage computed behind it can be hit; an edit before that mark puts a new one in its place.

Token ids are ints below 2**31; a mark is an int of at least 2**62, so the two never meet.
"""

from __future__ import annotations

import base64
import hmac
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b

MARK_BIT = 1 << 62
NAME_BYTES = 8
MAX_MARKS = 5
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class LineageError(ValueError):
    """A lineage that this server did not issue to this tenant."""


@dataclass(frozen=True, slots=True)
class Space:
    """The tenant's part of a key, as SGLang knows it: two requests share KV only where both fields are equal."""

    extra_key: str | None = None
    cache_salt: str | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """`position` (in tokens) carries a mark derived from `name` (NAME_BYTES bytes)."""

    position: int
    name: bytes


class Keyring:
    """Makes marks, names and sealed lineages from one secret, which must be the same on every rank."""

    def __init__(self, secret: bytes) -> None:
        self._secret = blake2b(secret, digest_size=32).digest()

    def name(self, *parts: bytes | memoryview) -> bytes:
        """A name for a new mark. Equal parts give equal names, so that a repeated request finds its own path."""
        digest = blake2b(digest_size=NAME_BYTES, key=self._secret, person=b"leyline-name")
        for part in parts:
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        return digest.digest()

    def marked(self, ids: array[int], marks: Sequence[Mark]) -> array[int]:
        """`ids` with every mark in range applied. Copies if anything changes; never touches `ids` itself."""
        inside = [mark for mark in marks if mark.position < len(ids)]
        if not inside:
            return ids
        out = ids[:]
        for mark in inside:
            out[mark.position] = self._mark(mark, ids[mark.position])
        return out

    def _mark(self, mark: Mark, token: int) -> int:
        digest = blake2b(b"%d|%d|" % (mark.position, token) + mark.name, digest_size=8, key=self._secret)
        return MARK_BIT | int.from_bytes(digest.digest(), "little") & (MARK_BIT - 1)

    def seal(self, marks: Sequence[Mark], space: Space) -> str:
        """The lineage to hand to a client: printable ASCII, at most 128 characters for MAX_MARKS marks."""
        body = ",".join(f"{_base36(mark.position)}.{_text(mark.name)}" for mark in marks)
        return f"{body}~{_text(self._seal(body, space))}"

    def open(self, lineage: str, space: Space) -> tuple[Mark, ...]:
        """The marks of a lineage. Raises `LineageError` unless this server sealed it for this tenant."""
        body, _, seal = lineage.rpartition("~")
        if not hmac.compare_digest(seal.encode(), _text(self._seal(body, space)).encode()):
            raise LineageError("the lineage was not issued by this server to this tenant")
        marks = []
        for entry in body.split(","):
            position, _, name = entry.partition(".")
            marks.append(Mark(int(position, 36), base64.urlsafe_b64decode(name + "=")))
        return tuple(marks)

    def _seal(self, body: str, space: Space) -> bytes:
        message = repr((body, space.extra_key, space.cache_salt)).encode()
        return blake2b(message, digest_size=NAME_BYTES, key=self._secret, person=b"leyline-seal").digest()


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _base36(number: int) -> str:
    digits = ""
    while True:
        number, digit = divmod(number, 36)
        digits = _DIGITS[digit] + digits
        if not number:
            return digits
