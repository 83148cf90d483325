"""Server-sent events, as model servers send them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator


def events(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The data of server-sent events, up to `[DONE]`. Lines end at a line feed only: JSON text may hold U+2028."""
    for line in _lines(pieces):
        if line.startswith(b"data:"):
            data = line[5:].strip()
            if data == b"[DONE]":
                return
            yield data


def _lines(pieces: Iterable[bytes]) -> Iterator[bytes]:
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if _is_whole(rest):
        yield rest


def _is_whole(line: bytes) -> bool:
    """Whether a last line without its line feed is all there; else the stream was cut within it."""
    data = line[5:].strip()
    try:
        json.loads(data)
    except (ValueError, RecursionError):
        return data == b"[DONE]"
    return True
