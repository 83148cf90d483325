"""The connection to the model server: pooled, streaming, and every failure as a refusal that says what to do."""

from __future__ import annotations

import asyncio
import io
import json
import os
from collections.abc import AsyncIterator, Sequence

import aiohttp
from yarl import URL

from leyline.harness.proxy.errors import RefusedError

CONNECT_SECONDS = 10.0
IDLE_SECONDS = 4.0
"""How long a connection is kept without a request: less than the five seconds for which uvicorn keeps one."""
LARGE = 1 << 20  # bytes that are written in pieces, so that other requests go on meanwhile
_NO_DEFAULTS = ("User-Agent", "Content-Type", "Accept", "Accept-Encoding")


class Upstream:
    """One server. root: its address, as errors name it. timeout: seconds between two pieces of an answer.

    Of aiohttp: a request costs its client a tenth of what it costs httpx. Cookies are the callers' own: none is kept.
    """

    def __init__(self, root: str, timeout: float) -> None:
        self.root, self._timeout = root, timeout
        self._made: aiohttp.ClientSession | None = None

    @property
    def _session(self) -> aiohttp.ClientSession:
        if self._made is None:  # in the event loop that uses it
            named = any(name.lower().endswith("_proxy") for name in os.environ)
            self._made = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=IDLE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=self._timeout),
                skip_auto_headers=_NO_DEFAULTS,
                trust_env=named,
                read_bufsize=1 << 20,
            )
        return self._made

    async def close(self) -> None:
        if self._made is not None:
            await self._made.close()

    async def send(
        self, method: str, url: str, headers: Sequence[tuple[str, str]], content: bytes
    ) -> aiohttp.ClientResponse:
        """The answer, up to its headers. Raises RefusedError where none comes."""
        data = io.BytesIO(content) if len(content) > LARGE else content or None
        try:
            return await self._session.request(
                method, URL(url, encoded=True), headers=headers, data=data, allow_redirects=False
            )
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            late = isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ServerConnectionError)
            late = late or isinstance(error, aiohttp.SocketTimeoutError)
            raise RefusedError(504 if late else 502, self.reason(error)) from None

    async def pieces(self, answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        """What an answer holds, as it comes. Raises RefusedError where it breaks off."""
        try:
            async for piece in answer.content.iter_any():
                yield piece
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise RefusedError(502, self.reason(error)) from None

    async def ask(self, url: str, headers: dict[str, str], seconds: float) -> tuple[int, object]:
        """Status and JSON of a page, None where it holds none. Raises RefusedError."""
        try:
            async with asyncio.timeout(seconds), self._session.get(URL(url), headers=headers) as answer:
                try:
                    return answer.status, json.loads(await answer.read())
                except (ValueError, RecursionError):
                    return answer.status, None
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise RefusedError(502, self.reason(error)) from None

    def reason(self, error: Exception) -> str:
        """What went wrong, in one line without headers."""
        if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
            return f"cannot connect to {self.root}; start it, or correct --upstream"
        if isinstance(error, TimeoutError):
            return f"no answer from {self.root} in time; raise --timeout or lower the load"
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return f"{self.root} closed the connection before its answer was complete; see its log"
        said = " ".join(str(error).split())[:200] or type(error).__name__
        return f"the connection to {self.root} broke off ({said})"
