"""Whether the upstream splices: an SGLang server with Leyline's plug-in says so; to any other nothing is added."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping

from leyline.backends.contract import BackendError
from leyline.backends.sglang.client.facts import ROUTES, WORKERS, ServerFacts, worker_urls
from leyline.backends.sglang.client.server import server_url
from leyline.harness.proxy.errors import RefusedError
from leyline.harness.proxy.upstream import Upstream

log = logging.getLogger("leyline.proxy")

FRESH = 60.0
"""Seconds for which what the upstream said is taken as it was; then it is asked beside a request, not before it."""
WAIT = 5.0
KEYS = ("authorization", "x-api-key", "api-key")


class Announced:
    """Asks the upstream, with the key of the request that comes first, and remembers. For one event loop.

    wanted: None goes by what the upstream says; True and False ask nothing.
    """

    def __init__(self, upstream: Upstream, wanted: bool | None) -> None:
        self._upstream, self._wanted = upstream, wanted
        self._root = server_url(upstream.root)
        self.known: bool | None = wanted
        self._until = 0.0
        self._asking: asyncio.Task[None] | None = None

    async def splices(self, headers: Mapping[str, str]) -> bool:
        """Whether this request may carry what only such a server understands."""
        if self._wanted is None and time.monotonic() >= self._until:
            if self._asking is None or self._asking.done():
                key = {name: headers[name] for name in KEYS if name in headers}
                self._asking = asyncio.create_task(self._ask(key))
            if self.known is None:
                await asyncio.shield(self._asking)
        return bool(self.known)

    async def close(self) -> None:
        if self._asking is not None and not self._asking.done():
            self._asking.cancel()

    async def _ask(self, key: dict[str, str]) -> None:
        before = self.known
        try:
            async with asyncio.timeout(WAIT):
                self.known = await self._says(key)
        except TimeoutError:
            self.known = False
        self._until = time.monotonic() + FRESH
        if self.known != before:
            log.info("%s %s", self._root, "splices" if self.known else "announces no plug-in of Leyline's")

    async def _says(self, key: dict[str, str]) -> bool:
        for route in ROUTES:
            facts = await self._facts(self._root + route, key)
            if facts is not None:
                return facts.plugin
        listed = await self._json(self._root + WORKERS, key)
        for url in worker_urls({"workers": listed} if isinstance(listed, list) else listed):
            try:
                # The key is for the upstream alone: a replica that it names is asked without one.
                facts = await self._facts(server_url(url) + ROUTES[0], {})
            except BackendError:
                continue
            if facts is not None:
                return facts.plugin
        return False

    async def _facts(self, url: str, key: dict[str, str]) -> ServerFacts | None:
        said = await self._json(url, key)
        try:
            return ServerFacts.read(said) if isinstance(said, dict) else None
        except BackendError:
            return None

    async def _json(self, url: str, key: dict[str, str]) -> object:
        try:
            status, said = await self._upstream.ask(url, key, WAIT)
        except RefusedError:
            return None
        return said if status == 200 else None
