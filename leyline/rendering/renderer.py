"""What a renderer is: messages in, the exact tokens that the model reads out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from leyline.directives import Message, Rendered


@runtime_checkable
class TokenRenderer(Protocol):
    """Renders messages to the exact tokens the model reads."""

    def render(
        self,
        messages: Sequence[Message],
        tools: Sequence[Mapping[str, object]] | None = None,
        pinned: Mapping[int, Sequence[int]] | None = None,
    ) -> Rendered: ...
