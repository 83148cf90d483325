"""HTTP to an SGLang server: retries with growing pauses, and every failure as one line that says what to do next."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

import httpx

from leyline.backends.contract import BackendError
from leyline.backends.http.errors import Server, checked_url, clean, no_unicode
from leyline.backends.http.sse import events
from leyline.directives import JsonObject

T = TypeVar("T")

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Transport:
    """Sends JSON to `url` and reads JSON.

    timeout: seconds for an answer, or between two pieces of a streamed one. retries: how often a request is sent again
    that found no server, a busy one (429) or a failing one (5xx), or timed out; never once a piece of its answer came.
    http_client: an `httpx.Client` to use instead of an own one; it is not closed.
    """

    def __init__(
        self, url: str, *, api_key: str | None, timeout: float, retries: int, http_client: httpx.Client | None = None
    ) -> None:
        self.url = server_url(url)
        self._server = Server(
            self.url,
            key="pass the server's --api-key",
            missing="is it an SGLang server?",
            start="start a server with `leyline serve MODEL`",
        )
        self._timeout, self._retries = timeout, retries
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._http = http_client or httpx.Client(timeout=httpx.Timeout(timeout, connect=min(10.0, timeout)))
        self._own = http_client is None

    @property
    def headers(self) -> list[str]:
        """The names of the headers that every request carries."""
        return [*self._http.headers, *self._headers]

    def get(self, path: str, *, url: str | None = None, retries: int | None = None) -> JsonObject:
        """The JSON object at `path`, of another server where `url` is given. A list comes as `{"workers": [...]}`.

        Raises `BackendError`.
        """
        return self._retry(lambda: self._whole("GET", path, None, url=url), retries=retries)

    def post(
        self,
        path: str,
        body: Mapping[str, object],
        *,
        headers: Mapping[str, str] = NO_HEADERS,
        url: str | None = None,
    ) -> JsonObject:
        """The JSON object that answers `body`, of another server where `url` is given. Raises `BackendError`."""
        return self._retry(lambda: self._whole("POST", path, body, headers, url=url))

    def stream(
        self,
        path: str,
        body: Mapping[str, object],
        take: Callable[[Mapping[str, object]], bool],
        restart: Callable[[], None] = lambda: None,
        *,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        """Give each event of a streamed answer to `take`, which says whether the answer has begun.

        Raises `BackendError`.

        A `BackendError` of `take` means that it took nothing of that event in: a retryable one before the answer began,
        such as an abort of a busy server, has the request sent again. restart: called before each try.
        """
        begun, own = False, {**headers, **self._headers}

        def attempt() -> None:
            nonlocal begun
            restart()
            with self._http.stream("POST", self.url + path, json=body, headers=own) as response:
                if response.status_code != 200:
                    response.read()
                    raise self._status(response)
                for event in events(response.iter_bytes()):
                    begun = take(_object(event)) or begun
            if not begun:
                raise BackendError(
                    f"{self.url} ended its answer before the answer began; see the server's log", retryable=True
                )

        self._retry(attempt, lambda: not begun)

    def flush(self) -> None:
        """Empty the server's cache. Raises `BackendError`; retryable while requests run."""

        def attempt() -> None:
            response = self._http.post(f"{self.url}/flush_cache", headers=self._headers)
            if response.status_code == 400:
                raise BackendError(f"{self.url} did not flush its cache: requests are running", retryable=True)
            if response.status_code != 200:
                raise self._status(response)

        self._retry(attempt)

    def close(self) -> None:
        if self._own:
            self._http.close()

    def _whole(
        self,
        method: str,
        path: str,
        body: Mapping[str, object] | None,
        headers: Mapping[str, str] = NO_HEADERS,
        *,
        url: str | None = None,
    ) -> dict[str, object]:
        response = self._http.request(method, (url or self.url) + path, json=body, headers={**headers, **self._headers})
        if response.status_code != 200:
            raise self._status(response)
        return _object(response.content, lists=method == "GET")

    def _retry(
        self, attempt: Callable[[], T], may: Callable[[], bool] = lambda: True, *, retries: int | None = None
    ) -> T:
        retries = self._retries if retries is None else retries
        for tried in range(retries + 1):
            try:
                return attempt()
            except BackendError as error:
                failure = error
            except UnicodeEncodeError as error:
                raise no_unicode(error) from None
            except (httpx.HTTPError, httpx.StreamError) as error:
                failure = self._server.connection(error, self._timeout)
            if not failure.retryable or tried == retries or not may():
                break
            time.sleep(min(LONGEST_PAUSE, FIRST_PAUSE * 2**tried) * random.uniform(0.75, 1.0))
        raise failure from None

    def _status(self, response: httpx.Response) -> BackendError:
        try:
            body = response.json()
        except (ValueError, RecursionError):
            body = response.text
        return self._server.status(response.status_code, body, response.text or response.reason_phrase)


def server_url(url: str) -> str:
    """The server's root: a trailing `/v1`, as OpenAI clients want it, is taken off. Raises `BackendError`."""
    checked_url(url, "http://HOST:PORT")
    return url.rstrip("/").removesuffix("/v1").rstrip("/")


def _object(text: bytes, *, lists: bool = False) -> dict[str, object]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        data = None
    if lists and isinstance(data, list):
        data = {"workers": data}
    if not isinstance(data, dict):
        said = clean(text[:80].decode(errors="replace"))
        raise BackendError(f"the server sent an answer that cannot be read ({said!r}); is it an SGLang server?")
    return data
