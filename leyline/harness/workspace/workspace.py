"""The files an agent works on: in memory, or a jailed copy of a folder on disk."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import pathspec

from leyline.harness.workspace.jail import NoFileError, WorkspaceError, read_bytes, resolve, write_bytes
from leyline.harness.workspace.patch import unified_patch
from leyline.harness.workspace.snapshot import MAX_FILE_BYTES, Original, decode, is_binary, walk

__all__ = ["DiskWorkspace", "MemoryWorkspace", "NoFileError", "Workspace", "WorkspaceError", "patterns_of", "printable"]

MAX_TOTAL_BYTES = 1_000_000_000
MAX_FILES = 100_000
# Left by tools, of no interest to an agent, and never part of its patch.
JUNK = ("__pycache__/", "*.py[cod]", ".pytest_cache/", ".mypy_cache/", ".ruff_cache/", ".git", ".hg", ".DS_Store")


@runtime_checkable
class Workspace(Protocol):
    """Text files by path, relative and with forward slashes. What is refused raises WorkspaceError."""

    def files(self) -> list[str]:
        """The paths an agent sees, in a fixed order."""

    def read(self, path: str) -> str:
        """The text of a file; bytes that are not UTF-8 come as lone surrogates and are written back as they were."""

    def write(self, path: str, text: str) -> None:
        """Replace or create a file."""

    def writable(self, path: str) -> bool:
        """Whether `path` is a file the agent may edit."""

    def diff(self) -> str:
        """What changed since the start, as a git patch."""


def printable(text: str) -> str:
    """`text` with the replacement character for every lone surrogate, so that any encoder takes it."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def patterns_of(*files: Path) -> tuple[str, ...]:
    """The lines of the gitignore-style files among `files` that exist."""
    return tuple(
        line for file in files if file.is_file() for line in file.read_text("utf-8", "surrogateescape").splitlines()
    )


class MemoryWorkspace:
    """Files in a dict: for generated tasks, tests and training data. Nothing touches the disk."""

    def __init__(self, files: Mapping[str, str], readonly: Iterable[str] = ()) -> None:
        self._original = dict(files)
        self._files = dict(files)
        self._readonly = frozenset(readonly)

    def files(self) -> list[str]:
        return list(self._files)

    def read(self, path: str) -> str:
        if path not in self._files:
            raise NoFileError(path)
        return self._files[path]

    def write(self, path: str, text: str) -> None:
        if path in self._readonly:
            raise WorkspaceError(f"{path} is read-only")
        self._files[path] = text

    def writable(self, path: str) -> bool:
        return path in self._files and path not in self._readonly

    def diff(self) -> str:
        return printable(unified_patch(self._original, self._files))


class DiskWorkspace:
    """A private copy of files in a temporary folder, removed on close.

    root: where the files are, and where commands run; home: an empty folder beside it for HOME and TMPDIR.
    ignore: gitignore-style patterns of files that exist for running but that the agent does not see.
    readonly: patterns of files it sees but may not edit.
    Only regular files and links that stay inside are copied.
    """

    def __init__(self, source: str | Path | None = None, *, ignore: Iterable[str] = (), readonly: Iterable[str] = ()):
        self._ignore = pathspec.GitIgnoreSpec.from_lines([*JUNK, *ignore])
        self._readonly = pathspec.GitIgnoreSpec.from_lines(readonly)
        self._patterns = (tuple(ignore), tuple(readonly))
        self._original: dict[str, Original] = {}
        self._rank: dict[str, int] = {}
        if source is not None and not Path(source).is_dir():
            raise WorkspaceError(f"no folder {source}; give the folder that holds the code")
        self._base = Path(os.path.realpath(tempfile.mkdtemp(prefix="leyline-")))
        self.root = self._base / "work"
        self.home = self._base / "home"
        try:
            self.root.mkdir()
            self.home.mkdir()
            if source is not None:
                self._copy(Path(os.path.realpath(source)))
        except OSError as error:
            self.close()
            raise WorkspaceError(f"cannot copy {source}: {error.strerror}: {error.filename}") from error
        except BaseException:
            self.close()
            raise

    @classmethod
    def from_files(
        cls, files: Mapping[str, str], *, ignore: Iterable[str] = (), readonly: Iterable[str] = ()
    ) -> DiskWorkspace:
        """A workspace that holds `files`, listed in the order of the mapping."""
        workspace = cls(ignore=ignore, readonly=readonly)
        try:
            for path, text in files.items():
                data = text.encode("utf-8", "surrogateescape")
                write_bytes(str(workspace.root), path, data)
                workspace._original[path] = Original.of(data)
                workspace._rank[path] = len(workspace._rank)
        except BaseException:
            workspace.close()
            raise
        return workspace

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Remove the copy. Safe to call twice."""
        shutil.rmtree(self._base, ignore_errors=True)
        if self._base.exists():  # folders that a command locked
            for folder, _, _ in os.walk(self._base):
                for entry in os.scandir(folder):
                    if entry.is_dir(follow_symlinks=False):
                        Path(entry.path).chmod(0o700)
            shutil.rmtree(self._base, ignore_errors=True)

    def files(self) -> list[str]:
        paths = [path for path in walk(self.root, self._ignore) if not self._ignore.match_file(path)]
        return sorted(paths, key=lambda path: (self._rank.get(path, len(self._rank)), path))

    def read(self, path: str) -> str:
        if self._hidden(path):
            raise NoFileError(path)
        data = read_bytes(str(self.root), path, MAX_FILE_BYTES)
        if is_binary(data):
            raise WorkspaceError(f"{path} is a binary file ({len(data)} bytes)")
        return decode(data)

    def write(self, path: str, text: str) -> None:
        if self._hidden(path) or self._protected(path):
            raise WorkspaceError(f"{path} is read-only")
        data = text.encode("utf-8", "surrogateescape")
        if len(data) > MAX_FILE_BYTES:
            raise WorkspaceError(f"{path} would be too large ({len(data)} bytes, at most {MAX_FILE_BYTES})")
        write_bytes(str(self.root), path, data)

    def writable(self, path: str) -> bool:
        try:
            real = self._names(path)[1]
            regular = stat.S_ISREG(self.root.joinpath(real).lstat().st_mode)
        except (OSError, ValueError, WorkspaceError):
            return False
        return regular and not self._hidden(path) and not self._protected(path)

    def diff(self) -> str:
        return printable(unified_patch(*self.changes()))

    def changes(self) -> tuple[dict[str, str], dict[str, str]]:
        """The text files the agent sees that were changed, made or removed: as they were, and as they are."""
        before: dict[str, str] = {}
        after: dict[str, str] = {}
        present = set(self.files())
        for path in present:
            original = self._original.get(path)
            try:
                data = read_bytes(str(self.root), path, MAX_FILE_BYTES)
            except WorkspaceError:
                continue
            if is_binary(data) or (original and original.digest == hashlib.sha256(data).digest()):
                continue
            after[path] = decode(data)
            if original and (text := original.text()) is not None:
                before[path] = text
        for path, original in self._original.items():
            if path not in present and not self._ignore.match_file(path) and (text := original.text()) is not None:
                before[path] = text
        return before, after

    @property
    def start(self) -> Mapping[str, Original]:
        """All files that were there at the start, hidden ones too."""
        return self._original

    def guarded(self, path: str) -> bool:
        """Whether the agent may not edit `path`, or does not see it."""
        return self._readonly.match_file(path) or self._ignore.match_file(path)

    def put(self, path: str, data: bytes) -> None:
        """Write a file, guarded or not, and clear away whatever stands there or on the way to it."""
        self._clear(path)
        write_bytes(str(self.root), path, data)

    def link(self, path: str, target: str) -> None:
        """Put a link there, likewise."""
        self._clear(path)
        place = self.root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(target)

    def remove(self, path: str) -> None:
        """Take a file or a folder away; nothing there is fine."""
        target = self.root / path
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        else:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                target.unlink()

    def _clear(self, path: str) -> None:
        above = self.root
        for name in path.split("/")[:-1]:
            above /= name
            if above.is_symlink() or not above.is_dir():
                above.unlink(missing_ok=True)
        self.remove(path)

    def _names(self, path: str) -> tuple[str, ...]:
        """The names a path goes by: as given, and with its links followed."""
        return os.path.normpath(path), "/".join(resolve(str(self.root), path))

    def _hidden(self, path: str) -> bool:
        return any(self._ignore.match_file(name) for name in self._names(path))

    def _protected(self, path: str) -> bool:
        return any(self._readonly.match_file(name) for name in self._names(path))

    def _copy(self, source: Path) -> None:
        total = 0
        skip = pathspec.GitIgnoreSpec.from_lines([".git", ".hg", "__pycache__/"])
        for count, path in enumerate(walk(source, skip, links=True)):
            origin, target = source / path, self.root / path
            target.parent.mkdir(parents=True, exist_ok=True)
            if origin.is_symlink():
                link = origin.readlink()
                inside = os.path.realpath(origin).startswith(f"{source}/")
                if inside and not link.is_absolute():
                    target.symlink_to(link)
                continue
            total += origin.stat().st_size
            if total > MAX_TOTAL_BYTES or count >= MAX_FILES:
                raise WorkspaceError(
                    f"{source} is too large to copy (over {MAX_TOTAL_BYTES >> 20} MiB or {MAX_FILES} files); "
                    "give a smaller folder"
                )
            data = origin.read_bytes()
            target.write_bytes(data)
            target.chmod(stat.S_IMODE(origin.stat().st_mode) & 0o755 | 0o600)
            self._original[path] = Original.of(data)
