"""The lines of a recording: plain or gzip, with what is wrong in a file said in one line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from leyline.evals.replay.foreign import TraceError


def lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not blank, with their numbers from 1."""
    try:
        with path.open("rb") as probe:
            packed = probe.read(2) == b"\x1f\x8b"
        with gzip.open(path, "rt", encoding="utf-8-sig") if packed else path.open(encoding="utf-8-sig") as stream:
            for number, line in enumerate(stream, 1):
                if line.strip():
                    yield number, line.rstrip("\n")
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise TraceError(f"{path} is a damaged gzip file ({error}); fetch it again") from None
    except UnicodeDecodeError as error:
        raise TraceError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise TraceError(f"cannot read {path}: {error.strerror or error}") from None


def parsed(path: Path, rest: Iterator[tuple[int, str]]) -> Iterator[tuple[int, object]]:
    """The lines as JSON; a torn last one, of a session that still runs or was killed, is left out."""
    line = next(rest, None)
    while line is not None:
        number, text = line
        line = next(rest, None)
        try:
            yield number, json.loads(text)
        except (ValueError, RecursionError):
            if line is not None:
                raise TraceError(f"{path}, line {number}: not JSON; mend or remove that line") from None


def is_zip(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(4) == b"PK\x03\x04"
    except OSError:
        return False  # said when its lines are read


def as_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TraceError(f"{where}: not JSON ({getattr(error, 'msg', error)}); mend or remove that line") from None
