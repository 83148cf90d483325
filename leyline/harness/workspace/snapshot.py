"""Files on disk as they were: walking a folder, and remembering what was found."""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pathspec

MAX_FILE_BYTES = 2_000_000  # of a file that can be read, written and remembered as text


@dataclass(frozen=True, slots=True)
class Original:
    """A file as it was copied: its digest, and its bytes (deflated) when it is text of a readable size."""

    digest: bytes
    packed: bytes | None

    @classmethod
    def of(cls, data: bytes) -> Original:
        text = len(data) <= MAX_FILE_BYTES and not is_binary(data)
        return cls(hashlib.sha256(data).digest(), zlib.compress(data, 1) if text else None)

    def bytes(self) -> bytes | None:
        """What it held; None when that was not kept."""
        return None if self.packed is None else zlib.decompress(self.packed)

    def text(self) -> str | None:
        data = self.bytes()
        return None if data is None else decode(data)


def walk(root: Path, skip: pathspec.GitIgnoreSpec, *, links: bool = False) -> Iterator[str]:
    """The regular files below `root`, sorted, without the folders that `skip` matches; `links`: symlinks as well."""
    for folder, below, names in os.walk(root):
        prefix = os.path.relpath(folder, root).replace(os.sep, "/")
        prefix = "" if prefix == "." else prefix + "/"
        linked = [name for name in below if Path(folder, name).is_symlink()]
        below[:] = sorted(name for name in below if name not in linked and not skip.match_file(f"{prefix}{name}/"))
        for name in sorted([*names, *(linked if links else [])]):
            status = Path(folder, name).lstat()
            if stat.S_ISREG(status.st_mode) or (links and stat.S_ISLNK(status.st_mode)):
                yield prefix + name


def is_binary(data: bytes) -> bool:
    """Whether `data` is no text: a NUL near its start, as git decides it."""
    return b"\0" in data[:8192]


def decode(data: bytes) -> str:
    """UTF-8, with every byte that is not kept as a lone surrogate."""
    return data.decode("utf-8", "surrogateescape")
