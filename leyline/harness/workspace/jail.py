"""Files below one root, and nothing else: the path checks and the raw reads and writes of a workspace on disk.

A path from a model is text. It is resolved once with its symlinks, must stay below the root, and is then opened one
component at a time without following links, so a link swapped in meanwhile cannot lead outside.
"""

# ruff: noqa: PTH118, PTH123

from __future__ import annotations

import contextlib
import os
import posixpath
import secrets
import stat
from collections.abc import Iterator

from leyline.directives import LeylineError

MAX_PATH = 1024


class WorkspaceError(LeylineError):
    """A file operation a workspace refuses. The message is written for the model that asked for it."""


class NoFileError(WorkspaceError):
    """There is no such file for the agent: absent, hidden, or no regular file."""

    def __init__(self, path: str) -> None:
        super().__init__(f"no file {path}")


def resolve(root: str, path: str) -> tuple[str, ...]:
    """The components, below `root`, of the file that `path` names once its symlinks are followed.

    `root` must be a real path. Raises WorkspaceError for an absolute path, one that leaves the root, or one no file
    system takes.
    """
    if not path or "\0" in path or len(path) > MAX_PATH:
        raise NoFileError(path[:MAX_PATH].replace("\0", "\\0"))
    if posixpath.isabs(path):
        raise WorkspaceError(f"{path} is an absolute path; give it relative to the workspace")
    normal = posixpath.normpath(path)
    if normal == ".." or normal.startswith("../"):
        raise WorkspaceError(f"{path} is outside the workspace")
    try:
        real = os.path.realpath(os.path.join(root, normal))
    except (OSError, ValueError) as error:
        raise NoFileError(path) from error
    if real == root:
        raise WorkspaceError(f"{path} is a folder")
    if not real.startswith(root.rstrip("/") + "/"):
        raise WorkspaceError(f"{path} is outside the workspace")
    return tuple(real[len(root.rstrip("/")) + 1 :].split("/"))


@contextlib.contextmanager
def _folder(root: str, parts: tuple[str, ...], *, create: bool = False) -> Iterator[int]:
    """A descriptor of the folder `parts` below `root`, reached without following a link."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    folder = os.open(root, flags)
    try:
        for part in parts:
            if create:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=folder)
            below = os.open(part, flags, dir_fd=folder)
            os.close(folder)
            folder = below
        yield folder
    finally:
        os.close(folder)


def read_bytes(root: str, path: str, limit: int) -> bytes:
    """The bytes of a regular file below `root`; refuses one over `limit` bytes, a device, a pipe and a folder."""
    parts = resolve(root, path)
    try:
        with _folder(root, parts[:-1]) as folder:
            # Non-blocking: opening a pipe nobody writes to would otherwise wait for ever.
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
            handle = os.open(parts[-1], flags, dir_fd=folder)
    except OSError as error:
        raise NoFileError(path) from error
    try:
        status = os.fstat(handle)
        if stat.S_ISDIR(status.st_mode):
            raise WorkspaceError(f"{path} is a folder")
        if not stat.S_ISREG(status.st_mode):
            raise WorkspaceError(f"{path} is not a regular file")
        if status.st_size > limit:
            raise WorkspaceError(f"{path} is too large ({status.st_size} bytes, at most {limit})")
        with open(handle, "rb", closefd=False) as file:
            data = file.read(limit + 1)
    finally:
        os.close(handle)
    if len(data) > limit:
        raise WorkspaceError(f"{path} is too large (over {limit} bytes)")
    return data


def write_bytes(root: str, path: str, data: bytes) -> None:
    """Replace, or create, a regular file below `root` in one step; an existing file keeps its permission bits."""
    parts = resolve(root, path)
    scratch = f".{secrets.token_hex(8)}.tmp"
    try:
        with _folder(root, parts[:-1], create=True) as folder:
            mode = 0o644
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(parts[-1], dir_fd=folder, follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    raise WorkspaceError(f"{path} is not a regular file")
                mode = stat.S_IMODE(status.st_mode)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            handle = os.open(scratch, flags, mode, dir_fd=folder)
            try:
                with open(handle, "wb") as file:
                    os.fchmod(file.fileno(), mode)
                    file.write(data)
                os.replace(scratch, parts[-1], src_dir_fd=folder, dst_dir_fd=folder)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(scratch, dir_fd=folder)
                raise
    except OSError as error:
        raise WorkspaceError(f"{path} cannot be written: {error.strerror or error}") from error
