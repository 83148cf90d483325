"""The path to the modules that the tests of this folder share."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from recorded import Server


@pytest.fixture
def servers() -> Iterator[list[Server]]:
    """Servers that a test starts."""
    made: list[Server] = []
    yield made
    for server in made:
        server.stop()
    gc.collect()  # some harnesses leave loops and sockets, which are collected here and not in some later test
