"""`leyline.wrap(OpenAI(...), policy=...)`: a cache-edit policy for a harness that uses the openai client."""

from __future__ import annotations

from typing import Any, TypeVar

from leyline.backends.contract import TokenRenderer
from leyline.directives import LeylineError, Mode
from leyline.harness.editor.account import EditorReport as WrapReport
from leyline.harness.editor.account import EditorTurn as WrapTurn
from leyline.harness.session.inputs import check_settings
from leyline.harness.wrap.tracker import Tracker, WireSettings
from leyline.policies import Policy
from leyline.policies.base import as_mode

__all__ = ["Tracker", "WrapError", "WrapReport", "WrapTurn", "wrap"]

Client = TypeVar("Client")


class WrapError(LeylineError, TypeError):
    """What was given cannot be wrapped."""


def wrap(
    client: Client,
    policy: str | Policy = "keep_all",
    *,
    mode: Mode | str = Mode.AMORTIZE,
    renderer: TokenRenderer | None = None,
    splice: bool = False,
    seam: int = 0,
    honest: bool = False,
    purge: bool = False,
) -> Client:
    """A client whose chat completions are edited by `policy`, and which is otherwise the one given.

    client: an `openai.OpenAI` or `openai.AsyncOpenAI`, or a subclass. It is not changed itself.
    renderer: renders as the server does; with it, shed text is counted in tokens.
    splice: the server is SGLang with Leyline; send directives (needs `renderer`, and any server but such a one would
        refuse the request). seam, honest, purge: as in `Session`, with `splice` only.

    Each conversation has its own ledger. It is recognised by its history, or by an `X-Session-ID` header. The messages
    given to a call are never changed. What was done: `client.leyline.last`, `client.leyline.report()`.
    Raises PolicyError for a policy that cannot be loaded or a mode that is not known, InputError for another setting
    that cannot be used, WrapError for a client that is none.
    """
    import openai  # here, so that `import leyline` stays light

    from leyline.harness.wrap.client import wrap_client

    if not isinstance(client, (openai.OpenAI, openai.AsyncOpenAI)):
        raise WrapError(f"cannot wrap a {type(client).__name__}: give an openai.OpenAI or openai.AsyncOpenAI client")
    if splice and renderer is None:
        raise WrapError("splice=True needs renderer=: directives are exact tokens, so give the served model's renderer")
    if purge and not splice:
        raise WrapError("purge=True needs splice=True: no other server can be told to evict what was forgotten")
    check_settings("wrap", seam=seam, honest=honest, purge=purge)
    given = as_mode(mode, "wrap")
    wire = WireSettings(seam, honest, purge) if splice else None
    tracker = Tracker(policy, Mode.FORGET if honest else given, renderer, wire, honest=honest)
    wrapped: Any = wrap_client(client, tracker, asynchronous=isinstance(client, openai.AsyncOpenAI))
    return wrapped  # type: ignore[no-any-return]
