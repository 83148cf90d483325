"""Server-sent events, as model servers send them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator


def events(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The data of server-sent events, up to `[DONE]`.

    Several `data:` lines of one event are joined by line feeds, as the standard has it. Beyond it, an event needs no
    empty line behind it where its data is whole JSON, since not every server sends one. Lines end at a line feed only:
    JSON text may hold U+2028.
    """
    for data in _events(pieces):
        if data == b"[DONE]":
            return
        yield data


def _events(pieces: Iterable[bytes]) -> Iterator[bytes]:
    reader = EventReader()
    for piece in pieces:
        yield from reader.feed(piece)
    yield from reader.end()


class EventReader:
    """The same for pieces that come one by one, `[DONE]` included."""

    def __init__(self) -> None:
        self._rest, self._held = b"", list[bytes]()

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The events that a piece completes."""
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            yield from self._line(line)

    def end(self) -> Iterator[bytes]:
        """The event that no empty line ends, unless the stream was cut within it."""
        rest, self._rest = self._rest, b""
        if rest:
            yield from self._line(rest)
        lines, self._held = self._held, []
        if lines and _is_whole(b"\n".join(lines)):
            yield b"\n".join(lines)

    def _line(self, line: bytes) -> Iterator[bytes]:
        held = b"\n".join(self._held)
        if line.startswith(b"data:"):
            if self._held and _is_whole(held):
                yield held
                self._held = []
            self._held.append(line[5:].strip())
        elif self._held and not line.strip():
            self._held = []
            yield held


def _is_whole(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return data == b"[DONE]"
    return True
