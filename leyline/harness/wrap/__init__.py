"""`leyline.wrap(OpenAI(...), policy=...)`: a cache-edit policy for a harness with openai's or anthropic's client."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, Unpack, overload

from leyline.backends.contract import TokenRenderer
from leyline.directives import LeylineError, Mode
from leyline.harness.editor.account import EditorReport as WrapReport
from leyline.harness.editor.account import EditorTurn as WrapTurn
from leyline.harness.editor.editor import MAX_CONVERSATIONS, Editor
from leyline.policies import Policy

if TYPE_CHECKING:
    from anthropic import Anthropic, AsyncAnthropic
    from openai import AsyncOpenAI, OpenAI

    from leyline.harness.wrap.typed import (
        WrappedAnthropic,
        WrappedAsyncAnthropic,
        WrappedAsyncOpenAI,
        WrappedOpenAI,
        WrapSettings,
    )

__all__ = ["WrapError", "WrapReport", "WrapTurn", "wrap"]

Client = TypeVar("Client")
_ANTHROPIC = ("Anthropic", "AnthropicBedrock", "AnthropicVertex", "AnthropicFoundry")


class WrapError(LeylineError, TypeError):
    """What was given cannot be wrapped."""


@overload
def wrap(client: OpenAI, policy: str | Policy = ..., **settings: Unpack[WrapSettings]) -> WrappedOpenAI: ...
@overload
def wrap(client: AsyncOpenAI, policy: str | Policy = ..., **settings: Unpack[WrapSettings]) -> WrappedAsyncOpenAI: ...
@overload
def wrap(client: Anthropic, policy: str | Policy = ..., **settings: Unpack[WrapSettings]) -> WrappedAnthropic: ...
@overload
def wrap(
    client: AsyncAnthropic, policy: str | Policy = ..., **settings: Unpack[WrapSettings]
) -> WrappedAsyncAnthropic: ...
@overload
def wrap(client: Client, policy: str | Policy = ..., **settings: Unpack[WrapSettings]) -> Client: ...
def wrap(
    client: Any,
    policy: str | Policy = "keep_all",
    *,
    mode: Mode | str = Mode.AMORTIZE,
    audit: bool = False,
    renderer: TokenRenderer | None = None,
    splice: bool = False,
    seam: int = 0,
    honest: bool = False,
    purge: bool = False,
    max_conversations: int = MAX_CONVERSATIONS,
    records: str | Path | None = None,
) -> Any:
    """A client whose histories are edited by `policy`, and which is otherwise the one given.

    client: an `openai.OpenAI`, `openai.AsyncOpenAI`, `anthropic.Anthropic` or `anthropic.AsyncAnthropic`, or a
        subclass. It is not changed itself. Chat completions, Responses and messages are edited, however they are sent.
    audit: say what would be edited, and edit nothing.
    renderer: renders as the server does; with it, shed text is counted in tokens.
    splice: the server is SGLang with Leyline; chat completions carry directives, or, without a renderer, let the server
        find the edits. Any other server would refuse them. seam, honest, purge: as in `Session`, with `splice` only.
    max_conversations: how many are remembered; the one used longest ago is forgotten, with a warning the first time.
    records: file to which each request is written as a line, for `leyline report`.

    Each conversation has its own ledger. It is recognised by its history, and by an `X-Session-ID` header where there
    is one. The messages given to a call are never changed. What was done: `client.leyline.last`,
    `client.leyline.report()`; `client.leyline` is the `Editor`.
    Raises PolicyError for a policy that cannot be loaded or a mode that is not known, InputError for another setting
    that cannot be used, WrapError for a client that is none. A call raises DialectError for a history that cannot be
    read, before anything is sent.
    """
    from leyline.harness.wrap.client import bound  # here, so that `import leyline` stays light

    if not _is_client(client):
        raise WrapError(
            f"cannot wrap a {type(client).__name__}: give an openai.OpenAI, openai.AsyncOpenAI, anthropic.Anthropic or "
            "anthropic.AsyncAnthropic client; for another one that takes an httpx client there is leyline.transport()"
        )
    if purge and not splice:
        raise WrapError("purge=True needs splice=True: no other server can be told to evict what was forgotten")
    editor = Editor(
        policy,
        mode=mode,
        audit=audit,
        renderer=renderer,
        splice=splice,
        seam=seam,
        honest=honest,
        purge=purge,
        max_conversations=max_conversations,
        records=records,
        owner="wrap",
    )
    return bound(client, editor)


def _is_client(client: object) -> bool:
    kinds: list[type] = []
    for module, names in {"openai": ("OpenAI",), "anthropic": _ANTHROPIC}.items():
        loaded = sys.modules.get(module)  # a client's own module is loaded
        found = [getattr(loaded, prefix + name, None) for name in names for prefix in ("", "Async")] if loaded else []
        kinds += [kind for kind in found if isinstance(kind, type)]
    return isinstance(client, tuple(kinds))
