"""The files a verdict is made on: those of the start, with what counts of an agent's work laid over them.

What does not count: files that the agent may not edit or does not see, what lies in the way of such a file when it is
imported, and what steers the test runner instead of being tested. Everything else does, whatever its name.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from pathlib import Path, PurePosixPath

import pathspec

from leyline.harness.verdict.runner_settings import SHARED, with_settings_of
from leyline.harness.workspace.jail import WorkspaceError, read_bytes
from leyline.harness.workspace.snapshot import walk
from leyline.harness.workspace.workspace import MAX_FILES, MAX_TOTAL_BYTES, DiskWorkspace

# Read by pytest alone, or by every interpreter that finds it, before a test is.
_RUNNERS_OWN = frozenset({"conftest.py", "pytest.ini", ".pytest.ini", "pytest.toml", ".pytest.toml"})
_AT_START = frozenset({"sitecustomize", "usercustomize"})
_NO_PATTERNS = pathspec.GitIgnoreSpec.from_lines([])
_COMPILED = (".so", ".pyd")
_TEST_FILE = re.compile(r"(test_.*|.*_test|tests?)\.py")


class ChangedSourceError(WorkspaceError):
    """The folder that a task was laid out from is no longer what it was. Not the agent's doing."""


def carry(agent: DiskWorkspace, fresh: DiskWorkspace) -> None:
    """Make `fresh`, the same task laid out anew, what `agent` is, as far as it counts.

    Raises WorkspaceError for files of the agent that cannot be had, ChangedSourceError for files of the start.
    """
    if not os.access(agent.root, os.R_OK | os.X_OK):
        raise WorkspaceError("the folder of the files is gone or locked")
    _as_at_first(agent, fresh)
    counts = _Counts(agent)
    found = {path for path in walk(agent.root, _NO_PATTERNS, links=True) if counts.file(path)}
    for path in walk(fresh.root, _NO_PATTERNS, links=True):
        if path not in found and counts.file(path):
            fresh.remove(path)
    if len(found) > MAX_FILES:
        raise WorkspaceError(f"the files are too many to be judged (over {MAX_FILES})")
    total = 0
    for path in sorted(found):
        source = agent.root / path
        if source.is_symlink():
            _link(source, agent.root, path, fresh)
            continue
        data = read_bytes(str(agent.root), path, MAX_TOTAL_BYTES)
        total += len(data)
        if total > MAX_TOTAL_BYTES:
            raise WorkspaceError(f"the files are too large to be judged (over {MAX_TOTAL_BYTES >> 20} MiB)")
        start = agent.start.get(path)
        if PurePosixPath(path).name.lower() in SHARED:
            data = with_settings_of(path, data, (start and start.bytes()) or b"")
        mode = stat.S_IMODE(source.lstat().st_mode) & 0o755 | 0o600
        if start is None or start.digest != hashlib.sha256(data).digest():
            fresh.put(path, data)
        (fresh.root / path).chmod(mode)


class _Counts:
    """Which paths of an agent's files count."""

    def __init__(self, agent: DiskWorkspace) -> None:
        self._agent = agent
        self._guarded = {path for path in agent.start if agent.guarded(path)}
        self._above = {str(above) for path in self._guarded for above in PurePosixPath(path).parents}
        modules = [PurePosixPath(path) for path in self._guarded if path.endswith(".py")]
        self._imported = {str(path.with_suffix("")) for path in modules}
        self._packages_of_tests = {str(path.parent) for path in modules if _TEST_FILE.fullmatch(path.name)}

    def file(self, path: str) -> bool:
        name, parts = PurePosixPath(path).name, PurePosixPath(path).parts
        if self._agent.guarded(path) or name.lower() in _RUNNERS_OWN or name.endswith(".pth"):
            return False
        if any(part.split(".")[0] in _AT_START for part in parts):
            return False
        if len(parts) > 1 and parts[-2].endswith((".dist-info", ".egg-info")):
            return path in self._agent.start and name != "entry_points.txt"
        if name == "__init__.py" and str(PurePosixPath(path).parent) in self._packages_of_tests:
            return False
        return path in self._agent.start or not self._instead(parts)

    def _instead(self, parts: tuple[str, ...]) -> bool:
        """Whether a new path would stand, or be imported, in the place of a guarded file."""
        for depth in range(1, len(parts) + 1):
            above = "/".join(parts[:depth])
            if depth == len(parts) and above.endswith(_COMPILED):
                above = above[: len(above) - len(parts[-1])] + parts[-1].split(".")[0]
            if above in self._guarded or above in self._imported:
                return True
        return "/".join(parts) in self._above


def _as_at_first(agent: DiskWorkspace, fresh: DiskWorkspace) -> None:
    """Mend in `fresh` what has changed in its source since `agent` was laid out."""
    for path in set(fresh.start) - set(agent.start):
        fresh.remove(path)
    for path, start in agent.start.items():
        if (there := fresh.start.get(path)) is not None and there.digest == start.digest:
            continue
        data = start.bytes()
        if data is None:
            data = read_bytes(str(agent.root), path, MAX_TOTAL_BYTES) if (agent.root / path).is_file() else b""
            if hashlib.sha256(data).digest() != start.digest:
                raise ChangedSourceError(f"{path} is no longer what it was when the task began")
        fresh.put(path, data)


def _link(source: Path, root: Path, path: str, fresh: DiskWorkspace) -> None:
    """Carry a link over that leads to a file inside; what it leads to is judged by its own name."""
    target = source.readlink()
    real = os.path.realpath(source)
    if not target.is_absolute() and real.startswith(f"{root}/"):
        fresh.link(path, str(target))
