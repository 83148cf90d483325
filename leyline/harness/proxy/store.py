"""Conversations on disk, so that a proxy which was killed re-applies the very same edits."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import closing
from pathlib import Path

from leyline.directives import LeylineError

FOLD_EVERY = 4000
"""Changes between two times that the log goes into the file."""


class StoreError(LeylineError):
    """The file of a store cannot be used. The message says what to do."""


class SqliteStore(MutableMapping[str, str]):
    """A mapping of names to texts in one SQLite file; each change is on disk before it returns. Safe for threads.

    A write-ahead log: a killed process loses nothing that was set, a machine that loses its power may lose the last
    changes. The log goes into the file in a thread, which no change waits for. Raises StoreError for a file that is no
    store.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).expanduser()
        self._lock = threading.Lock()
        self._changes, self._folding = 0, threading.Lock()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(self._path, check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute("PRAGMA wal_autocheckpoint=0")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS conversations (name TEXT PRIMARY KEY, text TEXT NOT NULL)"
            )
        except (OSError, sqlite3.Error) as error:
            raise StoreError(f"cannot use {path} as a ledger ({error}); give another file, or delete it") from None

    def __getitem__(self, name: str) -> str:
        rows = self._run("SELECT text FROM conversations WHERE name = ?", name)
        if not rows:
            raise KeyError(name)
        return str(rows[0][0])

    def __setitem__(self, name: str, text: str) -> None:
        # In one statement, so that a kill leaves the old text or the new. A replaced row goes to the end: reading gives
        # the conversations in the order in which they were last used.
        self._run("INSERT OR REPLACE INTO conversations (name, text) VALUES (?, ?)", name, text)
        self._changes += 1
        if self._changes % FOLD_EVERY == 0:
            threading.Thread(target=self._fold, daemon=True).start()

    def _fold(self) -> None:
        """Take the log into the file, by a connection of its own: it syncs the disk, and changes go on meanwhile."""
        if not self._folding.acquire(blocking=False):
            return
        try:
            with closing(sqlite3.connect(self._path)) as database:
                database.execute("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error:
            pass  # the log keeps what it holds; the next time is soon
        finally:
            self._folding.release()

    def __delitem__(self, name: str) -> None:
        if name not in self:
            raise KeyError(name)
        self._run("DELETE FROM conversations WHERE name = ?", name)

    def __iter__(self) -> Iterator[str]:
        return iter([str(row[0]) for row in self._run("SELECT name FROM conversations ORDER BY rowid")])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def close(self) -> None:
        with self._lock:
            self._database.close()

    def _run(self, statement: str, *values: str) -> list[tuple[object, ...]]:
        try:
            with self._lock:
                return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise StoreError(
                f"the ledger {self._path} failed ({error}); free some space or give another file"
            ) from None
