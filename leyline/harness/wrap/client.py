"""The wrapped client: everything is passed through, except that chat completions go by the tracker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Self

from leyline.harness.editor.account import is_receipt
from leyline.harness.wrap.tracker import Request, Tracker, listed


class Proxy:
    """Stands for `inner`: attributes, `isinstance` and assignments go to it, except for those in `overrides`."""

    def __init__(self, inner: Any, overrides: Mapping[str, Callable[[], Any]] | None = None) -> None:
        object.__setattr__(self, "_inner", inner)
        object.__setattr__(self, "_overrides", dict(overrides or {}))

    def __getattr__(self, name: str) -> Any:
        if name in ("_inner", "_overrides"):  # `copy.copy` asks before either is there
            raise AttributeError(name)
        override = self._overrides.get(name)
        return override() if override is not None else getattr(self._inner, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)

    def __repr__(self) -> str:
        return f"leyline.wrap({self._inner!r})"

    @property
    def __class__(self) -> Any:
        return type(self._inner)

    @__class__.setter
    def __class__(self, value: Any) -> None:
        raise TypeError("the class of a wrapped object cannot be changed")


class ClientProxy(Proxy):
    """A synchronous client, or what it gives; entering it as a context manager gives the proxy."""

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._inner.__exit__(*error)


class AsyncClientProxy(Proxy):
    """The same of an asynchronous client. Python looks `with` up on the class, so neither has the other's methods."""

    async def __aenter__(self) -> Self:
        await self._inner.__aenter__()
        return self

    async def __aexit__(self, *error: Any) -> Any:
        return await self._inner.__aexit__(*error)


def wrap_client(client: Any, tracker: Tracker, *, asynchronous: bool) -> Proxy:
    """The client with chat completions edited on every path that leads to them, raw responses included."""

    def again(name: str) -> Callable[[], Any]:
        def make(*args: Any, **kwargs: Any) -> Proxy:
            return wrap_client(getattr(client, name)(*args, **kwargs), tracker, asynchronous=asynchronous)

        return lambda: make

    def completions(inner: Any) -> Proxy:
        return _completions(inner, tracker, _headers(client), asynchronous)

    kind = AsyncClientProxy if asynchronous else ClientProxy
    return kind(
        client,
        {
            **_steps(client, _CLIENT, tracker, completions),
            "leyline": lambda: tracker,
            "with_options": again("with_options"),
            "copy": again("copy"),
        },
    )


_RAW = ("with_raw_response", "with_streaming_response")
_CLIENT = ("chat", "beta", "responses", *_RAW)
_CHAT = ("completions", *_RAW)  # only below `chat`: the client's own `completions` are those of plain text


def _steps(
    owner: Any, names: tuple[str, ...], tracker: Tracker, completions: Callable[[Any], Proxy]
) -> dict[str, Callable[[], Any]]:
    """Overrides for the attributes `names` of `owner`, so that every way to `chat.completions` leads to edited ones."""

    def step(name: str) -> Callable[[], Any]:
        def get() -> Any:
            inner = getattr(owner, name)
            if name == "completions":
                return completions(inner)
            if name == "responses":
                tracker.warn_unedited(name)
                return inner
            below = _CHAT if name == "chat" or names is _CHAT else _CLIENT
            return Proxy(inner, _steps(inner, below, tracker, completions))

        return get

    return {name: step(name) for name in names}


def _headers(client: Any) -> dict[str, Any]:
    return dict(getattr(client, "default_headers", None) or {})


def _completions(inner: Any, tracker: Tracker, headers: Mapping[str, Any], asynchronous: bool) -> Proxy:
    def method(name: str) -> Callable[[], Any]:
        call = getattr(inner, name)

        def run(*args: Any, **kwargs: Any) -> Any:
            arguments = listed(kwargs)
            request = tracker.prepare(arguments, {**headers, **(arguments.get("extra_headers") or {})})
            if request is None:
                return call(*args, **arguments)
            return _serve(call(*args, **request.arguments), tracker, request)

        async def run_async(*args: Any, **kwargs: Any) -> Any:
            arguments = listed(kwargs)
            request = tracker.prepare(arguments, {**headers, **(arguments.get("extra_headers") or {})})
            if request is None:
                return await call(*args, **arguments)
            return _serve(await call(*args, **request.arguments), tracker, request)

        # `stream` and streaming responses give a context manager at once, in the asynchronous client too.
        later = name == "stream" or inner.__class__.__name__.endswith("StreamingResponse")
        return lambda: run_async if asynchronous and not later else run

    names = [name for name in ("create", "parse", "stream") if hasattr(inner, name)]
    overrides = {name: method(name) for name in names}
    for raw in _RAW:
        if hasattr(inner, raw):
            overrides[raw] = lambda raw=raw: _completions(getattr(inner, raw), tracker, headers, asynchronous)  # type: ignore[misc]
    return Proxy(inner, overrides)


def _serve(response: Any, tracker: Tracker, request: Request) -> Any:
    """Remember the request now, or, where the response is a context manager that sends it later, then."""
    streaming = hasattr(response, "__stream__")
    if not streaming and (hasattr(response, "__enter__") or hasattr(response, "__aenter__")):
        manager = AsyncManagerProxy if hasattr(response, "__aenter__") else ManagerProxy
        return manager(response, tracker, request)
    place = tracker.served(request)
    if streaming:
        kind = AsyncStreamProxy if hasattr(response, "__aiter__") else StreamProxy
        return kind(response, lambda chunk: tracker.update(place, chunk))
    tracker.update(place, response)
    return response


class _ChunkProxy(Proxy):
    """A stream of chunks, each of which is also shown to `see`.

    A server's receipt is kept from the harness, which asked for none and may expect a choice in every chunk.
    """

    def __init__(self, inner: Any, see: Callable[[Any], None]) -> None:
        super().__init__(inner)
        object.__setattr__(self, "_see", see)


class StreamProxy(_ChunkProxy, ClientProxy):
    """The stream of a synchronous client."""

    def __iter__(self) -> Iterator[Any]:
        for chunk in self._inner:
            self._see(chunk)
            if not is_receipt(chunk):
                yield chunk

    def __next__(self) -> Any:
        while True:
            chunk = next(self._inner)
            self._see(chunk)
            if not is_receipt(chunk):
                return chunk


class AsyncStreamProxy(_ChunkProxy, AsyncClientProxy):
    """The stream of an asynchronous client."""

    async def __aiter__(self) -> AsyncIterator[Any]:
        async for chunk in self._inner:
            self._see(chunk)
            if not is_receipt(chunk):
                yield chunk

    async def __anext__(self) -> Any:
        while True:
            chunk = await anext(self._inner)
            self._see(chunk)
            if not is_receipt(chunk):
                return chunk


class _ManagerProxy(Proxy):
    """A context manager that sends the request when it is entered."""

    def __init__(self, inner: Any, tracker: Tracker, request: Request) -> None:
        super().__init__(inner)
        object.__setattr__(self, "_seen", (tracker, request))
        object.__setattr__(self, "_entered", None)

    def _enter(self, response: Any) -> Any:
        tracker, request = self._seen
        object.__setattr__(self, "_entered", (response, tracker.served(request)))
        return response

    def _exit(self) -> None:
        if self._entered is not None:
            response, place = self._entered
            try:
                snapshot = getattr(response, "current_completion_snapshot", None)
            except AssertionError:  # how the client says that no chunk has come yet
                return
            self._seen[0].update(place, snapshot)


class ManagerProxy(_ManagerProxy):
    """That of a synchronous client."""

    def __enter__(self) -> Any:
        return self._enter(self._inner.__enter__())

    def __exit__(self, *error: Any) -> Any:
        self._exit()
        return self._inner.__exit__(*error)


class AsyncManagerProxy(_ManagerProxy):
    """That of an asynchronous client."""

    async def __aenter__(self) -> Any:
        return self._enter(await self._inner.__aenter__())

    async def __aexit__(self, *error: Any) -> Any:
        self._exit()
        return await self._inner.__aexit__(*error)
