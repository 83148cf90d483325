"""The wrapped client: the client that was given, with every request that carries a history planned by an editor.

The clients of openai and anthropic send whatever they send through one method, `post`: `create`, `parse`, `stream`, raw
and streaming responses, and what a library posts by itself. So that method is the one place where a history is edited.
"""

from __future__ import annotations

import copy
import inspect
import json
import warnings
from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import cached_property, lru_cache
from typing import Any, cast

from leyline.dialects import DialectError
from leyline.directives import JsonMapping, JsonObject
from leyline.harness.editor.editor import Editor
from leyline.harness.editor.plan import EditPlan
from leyline.harness.exchange import changed, dialect_of, dumped, holds_history, session_of, watch
from leyline.policies import keep_all

# What leads to a request with a history. Everything else is the inner client's own object.
_RESOURCES = frozenset(
    {"chat", "beta", "responses", "messages", "completions", "with_raw_response", "with_streaming_response"}
)
_OWN = frozenset({"post", "copy", "with_options", "leyline"})
_LEFT_OUT = ("Omit", "NotGiven")  # classes of openai and of anthropic
_UNREAD = ("completions", "runs", "batches", "compact")  # paths that make a model read text that is not edited


class _Wrapped:
    """Methods of a wrapped client; mixed in before the class of the client, whose instance `_inner` is."""

    def __getattribute__(self, name: str) -> Any:
        own = object.__getattribute__(self, "__dict__")
        inner = own.get("_inner")
        if inner is None or name in _OWN or name in own:
            return object.__getattribute__(self, name)
        lazy = isinstance(inspect.getattr_static(type(inner), name, None), cached_property)
        if name in _RESOURCES:
            if not lazy:  # older clients make their resources when they are made
                own[name] = type(getattr(inner, name))(self)
            return object.__getattribute__(self, name)
        return getattr(inner, name) if lazy or name in vars(inner) else object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: object) -> None:
        setattr(object.__getattribute__(self, "__dict__")["_inner"], name, value)

    def __copy__(self) -> Any:
        return bound(copy.copy(self._inner), self.leyline)

    def __repr__(self) -> str:
        return f"leyline.wrap({self._inner!r})"

    @property
    def leyline(self) -> Editor:
        found: Editor = object.__getattribute__(self, "__dict__")["_editor"]
        return found

    def copy(self, *args: object, **kwargs: object) -> Any:
        return bound(self._inner.copy(*args, **kwargs), self.leyline)

    with_options = copy


class _Sync(_Wrapped):
    """Of a synchronous client."""

    def post(self, path: str, *args: object, **kwargs: object) -> Any:
        call = _Call(self.leyline, self._inner, path, kwargs)
        plan = None
        if call.body is not None:
            with call.unread():
                plan = self.leyline.plan(call.body, **call.options)
        result = super().post(path, *args, **call.planned(plan))  # type: ignore[misc]
        return call.served(plan, result)


class _Async(_Wrapped):
    """Of an asynchronous client: it plans in a thread."""

    async def post(self, path: str, *args: object, **kwargs: object) -> Any:
        call = _Call(self.leyline, self._inner, path, kwargs)
        plan = None
        if call.body is not None:
            with call.unread():
                plan = await self.leyline.aplan(call.body, **call.options)
        result = await super().post(path, *args, **call.planned(plan))  # type: ignore[misc]
        return call.served(plan, result)


@lru_cache(maxsize=64)
def _class(kind: Hashable) -> type[object]:
    assert isinstance(kind, type)
    mixin = _Async if inspect.iscoroutinefunction(kind.post) else _Sync  # type: ignore[attr-defined]
    return type(kind.__name__, (mixin, kind), {"__module__": __name__})  # the clients send the name of their class


def bound(client: object, editor: Editor) -> Any:
    """`client`, with its histories planned by `editor`."""
    wrapped: object = object.__new__(_class(cast(Hashable, type(client))))
    vars(wrapped).update(_inner=client, _editor=editor)
    return wrapped


class _Call:
    """One call of `post`: the body that will be sent, wherever its parts were given, and the way back to them."""

    def __init__(self, editor: Editor, client: Any, path: str, kwargs: JsonMapping) -> None:
        self._kwargs, self._editor = dict(kwargs), editor
        self.body: JsonMapping | None = None
        self.options: JsonObject = {}
        self._headers: JsonObject = {}
        dialect = dialect_of(path)
        options = kwargs.get("options") or {}
        body = _body(kwargs)
        extra = options.get("extra_json")
        self._extra = extra if isinstance(extra, Mapping) else {}
        if dialect is None or body is None:
            if path.partition("?")[0].rstrip("/").rsplit("/", 1)[-1] in _UNREAD:
                _warn_unread(editor, path)
            return
        # It sends what `extra_body` holds in place of the field of that name, and leaves out what is not given.
        merged = {key: value for key, value in {**body, **self._extra}.items() if type(value).__name__ not in _LEFT_OUT}
        if not holds_history(merged, dialect):
            return
        self._headers = {**(getattr(client, "default_headers", None) or {}), **(options.get("headers") or {})}
        self.options = {"dialect": dialect, "session": session_of(self._headers)}
        self.body = merged

    def unread(self) -> AbstractContextManager[None]:
        """A history that cannot be read goes by where there is nothing to edit in any."""
        return suppress(DialectError) if isinstance(self._editor.policy, keep_all) else nullcontext()

    def planned(self, plan: EditPlan | None) -> JsonObject:
        """The arguments of the call with the edits in them, and the headers that keep it on its replica."""
        if plan is None:
            return self._kwargs
        options = dict(self._kwargs.get("options") or {})
        options["headers"] = {**(options.get("headers") or {}), **plan.headers_beside(self._headers)}
        self._kwargs["options"] = options
        if plan.body is None or self.body is None or not plan.edited:
            return self._kwargs
        fields = changed(self.body, plan.body)
        gone = self.body.keys() - plan.body.keys()
        given = _body(self._kwargs) or {}
        body = {key: value for key, value in given.items() if key not in gone}
        body |= {key: value for key, value in fields.items() if key not in self._extra}
        made = {**self._kwargs, "body": body}
        if self._kwargs.get("body") is None and "content" in self._kwargs:
            made = {**self._kwargs, "content": dumped(body)}
        if self._extra:
            extra = {key: fields.get(key, value) for key, value in self._extra.items() if key not in gone}
            made["options"] = {**options, "extra_json": extra}
        return made

    def served(self, plan: EditPlan | None, result: object) -> Any:
        """Remember the request; its usage is read now, or while the response is."""
        if plan is None:
            return result
        plan.served()
        response = getattr(result, "response" if hasattr(result, "__stream__") else "http_response", None)
        if hasattr(response, "iter_bytes"):
            watch(response, plan)
        else:
            plan.served(result)
        return result


def _body(kwargs: Mapping[str, object]) -> JsonMapping | None:
    """The fields of a call's body, also where a library gave it as JSON; None for any other."""
    body, content = kwargs.get("body"), kwargs.get("content")
    if body is None and isinstance(content, (bytes, str)):
        try:
            body = json.loads(content)
        except ValueError:
            return None
    return body if isinstance(body, Mapping) else None


def _warn_unread(editor: Editor, path: str) -> None:
    if not isinstance(editor.policy, keep_all):
        warnings.warn(f"leyline.wrap: {path} is not edited by the policy {editor.policy.name}", stacklevel=5)
