"""A backend that is told nothing of edits: what an ordinary prefix cache makes of the edited prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from leyline.backends.contract import Backend, Capabilities, TokenRenderer, Turn, TurnInput
from leyline.directives import EditScript, Message


class PlainBackend:
    """`inner`, without directives and lineages."""

    def __init__(self, inner: Backend) -> None:
        self._inner = inner

    @property
    def renderer(self) -> TokenRenderer | None:
        return self._inner.renderer

    def capabilities(self) -> Capabilities:
        return replace(self._inner.capabilities(), splice=False, reason="the arm sends no directives")

    def chat(
        self, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None, session: TurnInput
    ) -> Turn:
        return self._inner.chat(messages, tools, plain(session))

    def prewarm(self, session: TurnInput) -> None:
        self._inner.prewarm(plain(session))

    def close(self) -> None:
        self._inner.close()


def plain(session: TurnInput) -> TurnInput:
    """The same request without directives and lineage."""
    return replace(
        session,
        source=None,
        script=EditScript(()),
        lineage=None,
        lineage_start=None,
        seam=0,
        purge=False,
        allow=None,
    )
