"""The servers that tests share: one per configuration and process, started when first asked for."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from sgl_server import Server, start_server
from tiny_models import write_model

POOL = 4000
"""KV slots: twelve conversations hold more than that, so that the cache evicts all the time."""
PRESSED_POOL = 2500
"""KV slots that cannot hold sixteen conversations with their answers."""
PAGES = {"gqa": 16, "mla": 1}
GENERATIONS = 6
TOGETHER = 3
"""Servers of one process that run at a time, 1.5 GB each; the one used longest ago is stopped."""
TREE_CORES = {"gqa": "rust", "mla": "python"}
ARGUMENTS = {"gqa": ("--schedule-policy", "lpm", "--enable-metrics"), "mla": ()}
"""lpm looks every waiting request up before one is admitted."""

KINDS = [
    pytest.param("gqa", marks=pytest.mark.xdist_group("sglang-gqa")),
    pytest.param("mla", marks=pytest.mark.xdist_group("sglang-mla")),
]
"""Parametrises `kind`: all tests of one model run in one process and share its servers."""


class Servers:
    """Starts servers on demand: with the plugin, without it as the control, and one that admits more than it holds."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._models: dict[str, Path] = {}
        self._running: dict[tuple[str, str], Server] = {}
        self._killed: dict[tuple[str, str], int] = {}

    def model(self, kind: str) -> Path:
        if kind not in self._models:
            self._models[kind] = write_model(kind, self._folder / kind)
        return self._models[kind]

    def plugin(self, kind: str) -> Server:
        return self._get(kind, "plugin")

    def stock(self, kind: str) -> Server:
        return self._get(kind, "stock")

    def talking(self, kind: str) -> Server:
        """With the plugin, and a log that tells of each prefill pass."""
        return self._get(kind, "talking", "--log-level", "info", pool=6000)

    def unchunked(self, kind: str) -> Server:
        """With the plugin, and a log that tells of each prefill pass; prompts are prefilled whole."""
        return self._get(kind, "unchunked", "--log-level", "info", "--chunked-prefill-size", "-1", pool=6000)

    def pressed(self, kind: str) -> Server:
        """With the plugin; the scheduler reserves nothing for what running requests will still answer."""
        return self._get(kind, "pressed", "--schedule-conservativeness", "0", pool=PRESSED_POOL)

    def kill(self, kind: str, role: str) -> None:
        """End a server as a crash does. The next one of that role listens where it did."""
        server = self._running.pop((kind, role))
        self._killed[kind, role] = int(server.url.rpartition(":")[2])
        os.killpg(server.process.pid, signal.SIGKILL)
        server.stop()

    def _get(self, kind: str, role: str, *arguments: str, pool: int = POOL) -> Server:
        server = self._running.pop((kind, role), None)
        if server is None:
            while len(self._running) >= TOGETHER:
                self._running.pop(next(iter(self._running))).stop()
            log = self._folder / f"{kind}-{role}.log"
            environment = {
                "LEYLINE_MAX_GENERATIONS": str(GENERATIONS),
                "SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND": TREE_CORES[kind],
            }
            server = start_server(
                self.model(kind),
                log,
                *ARGUMENTS[kind],
                *arguments,
                plugin=role != "stock",
                pool=pool,
                page=PAGES[kind],
                chunk=256,
                overlap=kind == "mla",
                env=environment,
                port=self._killed.pop((kind, role), None),
            )
        self._running[kind, role] = server
        assert server.alive(), f"the server died:\n{server.tail()}"
        return server

    def stop(self) -> None:
        for server in self._running.values():
            server.stop()
