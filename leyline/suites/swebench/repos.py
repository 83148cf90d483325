"""Checkouts of the repositories that rows name."""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from leyline.directives import JsonMapping
from leyline.models import cache_dir
from leyline.suites.suite import SuiteError

# Nothing of the user's or the repository's own configuration: no hooks, no conversions, no questions.
_SETTINGS = ("-c", "core.hooksPath=/dev/null", "-c", "core.autocrlf=false", "-c", "safe.directory=*")
_SECONDS = 1800


class Repositories:
    """Where repositories come from: a folder that holds them, else GitHub, into the user's cache.

    In `folder`, OWNER/NAME is looked for as OWNER/NAME, OWNER__NAME and NAME, each also with `.git` behind it.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder = Path(folder).expanduser() if folder is not None else None
        if self._folder is not None and not self._folder.is_dir():
            raise SuiteError(f"repos: no folder {folder}")

    def find(self, repo: str) -> Path | None:
        """The local repository of `repo`, or None where it would have to be cloned."""
        if self._folder is None:
            cached = self._cached(repo)
            return cached if cached.is_dir() else None
        flat = repo.replace("/", "__")
        for name in (repo, flat, repo.rpartition("/")[2]):
            for path in (self._folder / name, self._folder / f"{name}.git"):
                if (path / ".git").exists() or (path / "HEAD").is_file():
                    return path
        return None

    def get(self, repo: str) -> Path:
        """The repository, cloned where it has to be. Raises SuiteError."""
        found = self.find(repo)
        if found is not None:
            return found
        if self._folder is not None:
            raise SuiteError(f"{self._folder} has no repository {repo.replace('/', '__')}; clone {repo} there")
        target = self._cached(repo)
        target.parent.mkdir(parents=True, exist_ok=True)
        with (target.parent / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.is_dir():
                with tempfile.TemporaryDirectory(dir=target.parent, prefix=".clone-") as scratch:
                    git("clone", "-q", "--bare", f"https://github.com/{repo}.git", scratch)
                    Path(scratch).rename(target)
                    Path(scratch).mkdir()  # for the clean-up
        return target

    @contextmanager
    def checkout(self, row: JsonMapping, *, history: bool = False) -> Iterator[Path]:
        """The files at the row's base commit in a temporary folder; with `history` it is a clone. Raises SuiteError."""
        source, commit = self.get(row["repo"]), row["base_commit"]
        with tempfile.TemporaryDirectory(prefix="leyline-repo-", ignore_cleanup_errors=True) as scratch:
            tree = Path(scratch, row["instance_id"])
            try:
                if history:
                    git("clone", "-q", "--no-hardlinks", "--no-checkout", str(source.resolve()), str(tree))
                    git("-C", str(tree), "checkout", "-q", "-f", commit)
                else:
                    tree.mkdir()
                    store = source / ".git" if (source / ".git").exists() else source
                    place = ("--git-dir", str(store.resolve()), "--work-tree", str(tree))
                    git(*place, "checkout", "-q", "-f", commit, "--", ".", index=Path(scratch, "index"))
            except SuiteError as error:
                raise SuiteError(f"{row['instance_id']}: cannot check out {commit[:12]} of {source}: {error}") from None
            yield tree

    def _cached(self, repo: str) -> Path:
        return cache_dir() / "repos" / f"{repo.replace('/', '__')}.git"


def git(*arguments: str, index: Path | None = None) -> str:
    """Run git and return what it printed. Raises SuiteError with the last line of its error."""
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("GIT_")},
        "GIT_TERMINAL_PROMPT": "0",
        "LC_ALL": "C",
    }
    if index is not None:
        environment["GIT_INDEX_FILE"] = str(index)
    try:
        done = subprocess.run(
            ["git", *_SETTINGS, *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        raise SuiteError("git is not installed; checkouts need it") from None
    except subprocess.TimeoutExpired:
        raise SuiteError(f"git {arguments[0]} took over {_SECONDS} s") from None
    if done.returncode:
        raise SuiteError(f"git: {(done.stderr.strip().splitlines() or [f'status {done.returncode}'])[-1]}")
    return done.stdout
