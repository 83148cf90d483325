"""The servers that tests share: one per configuration and process, started when first asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from sgl_server import Server, start_server
from tiny_models import write_model

POOL = 4000
"""KV slots: twelve conversations hold more than that, so that the cache evicts all the time."""
PAGES = {"gqa": 16, "mla": 1}
GENERATIONS = 6
TREE_CORES = {"gqa": "rust", "mla": "python"}
ARGUMENTS = {"gqa": ("--schedule-policy", "lpm", "--enable-metrics"), "mla": ()}
"""lpm looks every waiting request up before one is admitted."""

KINDS = [
    pytest.param("gqa", marks=pytest.mark.xdist_group("sglang-gqa")),
    pytest.param("mla", marks=pytest.mark.xdist_group("sglang-mla")),
]
"""Parametrises `kind`: all tests of one model run in one process and share its servers."""


class Servers:
    """Starts servers on demand: with the plugin, and without it as the control."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._models: dict[str, Path] = {}
        self._running: dict[tuple[str, bool], Server] = {}

    def model(self, kind: str) -> Path:
        if kind not in self._models:
            self._models[kind] = write_model(kind, self._folder / kind)
        return self._models[kind]

    def plugin(self, kind: str) -> Server:
        return self._get(kind, plugin=True)

    def stock(self, kind: str) -> Server:
        return self._get(kind, plugin=False)

    def _get(self, kind: str, plugin: bool) -> Server:
        server = self._running.get((kind, plugin))
        if server is None:
            log = self._folder / f"{kind}-{'plugin' if plugin else 'stock'}.log"
            environment = {
                "LEYLINE_MAX_GENERATIONS": str(GENERATIONS),
                "SGLANG_UNIFIED_RADIX_TREE_CORE_BACKEND": TREE_CORES[kind],
            }
            server = start_server(
                self.model(kind),
                log,
                *ARGUMENTS[kind],
                plugin=plugin,
                pool=POOL,
                page=PAGES[kind],
                chunk=256,
                overlap=kind == "mla",
                env=environment,
            )
            self._running[kind, plugin] = server
        assert server.alive(), f"the server died:\n{server.tail()}"
        return server

    def stop(self) -> None:
        for server in self._running.values():
            server.stop()
