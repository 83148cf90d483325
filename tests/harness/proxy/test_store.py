"""A ledger on disk: what was set is there after a kill, in the order of last use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from leyline.harness.proxy.store import SqliteStore, StoreError


def test_it_is_a_mapping(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "deep" / "ledger.sqlite")
    store["a"], store["b"] = "1", "2"
    store["a"] = "3"
    assert list(store.items()) == [("b", "2"), ("a", "3")]
    del store["b"]
    assert len(store) == 1
    assert store.get("b") is None
    with pytest.raises(KeyError):
        del store["b"]
    store.close()
    assert dict(SqliteStore(tmp_path / "deep" / "ledger.sqlite")) == {"a": "3"}


def test_a_kill_loses_nothing_that_was_set(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom leyline.harness.proxy.store import SqliteStore\n"
        "store = SqliteStore(sys.argv[1])\nfor k in range(50):\n    store[str(k)] = 'x' * 1000\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "l")], check=False, timeout=60)
    assert len(SqliteStore(tmp_path / "l")) == 50


def test_a_file_that_is_no_store_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("hello " * 300)
    with pytest.raises(StoreError, match=r"notes\.txt.*give another file"):
        SqliteStore(file)
    with pytest.raises(StoreError):
        SqliteStore(tmp_path / "notes.txt" / "below")
