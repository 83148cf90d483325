"""Documents packed into rows of fixed length, and the shard files in which rows travel from generators to trainers.

A shard is a .npy file of (rows, 2, length) uint16: plane 0 the tokens; plane 1 `code | document << 2`, with the loss
code of each token in the low two bits and the number of its document within the row above (PAD where there is none).
Positions restart with every document and are not stored.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NONE, ANSWER, TEXT = 0, 1, 2  # loss codes: none, the assistant's turn, tool text
PAD = (1 << 14) - 1  # document number of padding
OPEN_ROWS = 24
SPARE = 192  # a row with less room than this is closed

Encoded = tuple[Sequence[int], Sequence[int]]  # token ids, loss codes
Shard = NDArray[np.uint16]


def pack(documents: Iterable[Encoded], length: int) -> Iterator[Shard]:
    """Rows (2, length): each document goes, whole, into the open row that it fills best. Longer ones are cut."""
    open_rows: list[tuple[int, list[Encoded]]] = []
    for ids, codes in documents:
        size = min(len(ids), length)
        fitting = [i for i, (used, _) in enumerate(open_rows) if used + size <= length]
        if fitting:
            at = max(fitting, key=lambda i: open_rows[i][0])
            used, items = open_rows[at]
            open_rows[at] = (used + size, [*items, (ids[:size], codes[:size])])
        else:
            at = len(open_rows)
            open_rows.append((size, [(ids[:size], codes[:size])]))
        if open_rows[at][0] > length - SPARE:
            yield _row(open_rows.pop(at)[1], length)
        elif len(open_rows) > OPEN_ROWS:
            fullest = max(range(len(open_rows)), key=lambda i: open_rows[i][0])
            yield _row(open_rows.pop(fullest)[1], length)
    for _, items in open_rows:
        yield _row(items, length)


def _row(items: Sequence[Encoded], length: int) -> Shard:
    row = np.zeros((2, length), np.uint16)
    row[1] = PAD << 2
    start = 0
    for number, (ids, codes) in enumerate(items):
        end = start + len(ids)
        row[0, start:end] = ids
        row[1, start:end] = np.asarray(codes, np.uint16) | np.uint16(number << 2)
        start = end
    return row


def unpack(shard: Shard) -> tuple[Shard, Shard, Shard]:
    """Tokens, loss codes and document numbers of rows (..., 2, length), each (..., length)."""
    return shard[..., 0, :], shard[..., 1, :] & 3, shard[..., 1, :] >> 2


def write_shard(folder: Path, name: str, rows: Sequence[Shard]) -> Path:
    """Write rows as `folder/name.npy`; a reader never sees half a file."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch, target = folder / f".{name}.tmp", folder / f"{name}.npy"
    with scratch.open("wb") as file:
        np.save(file, np.stack(rows))
    os.replace(scratch, target)  # noqa: PTH105 - atomic by contract
    return target


def read_shard(path: Path) -> Shard:
    shard: Shard = np.load(path)
    return shard


class ShardFolder:
    """The shards of a folder in the order in which they appear, each handed out once.

    part: (number, parts): of several readers with numbers 0 to parts - 1, each gets shards of its own.
    """

    def __init__(self, folder: Path, part: tuple[int, int] = (0, 1)) -> None:
        self.folder = folder
        self._number, self._parts = part
        self._seen: set[str] = set()

    def fresh(self) -> list[Path]:
        """Shards that were not handed out before, oldest first."""
        if not self.folder.is_dir():
            return []
        with os.scandir(self.folder) as entries:
            names = {entry.name for entry in entries} - self._seen
        found = [self.folder / name for name in names if name.endswith(".npy") and self._mine(name)]
        found.sort(key=lambda p: (p.stat().st_mtime_ns, p.name))
        self._seen.update(p.name for p in found)
        return found

    def _mine(self, name: str) -> bool:
        return zlib.crc32(name.encode()) % self._parts == self._number
