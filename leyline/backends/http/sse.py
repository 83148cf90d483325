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
    held: list[bytes] = []
    for line in _lines(pieces):
        if line.startswith(b"data:"):
            if held and _is_whole(b"\n".join(held)):
                yield b"\n".join(held)
                held = []
            held.append(line[5:].strip())
        elif held and not line.strip():
            yield b"\n".join(held)
            held = []
    if held and _is_whole(b"\n".join(held)):  # else the stream was cut within the event
        yield b"\n".join(held)


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _is_whole(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return data == b"[DONE]"
    return True
