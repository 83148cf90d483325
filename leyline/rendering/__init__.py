"""Rendering: from messages to the exact tokens a model reads, and from generated tokens back to messages."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leyline._lazy import lazily

if TYPE_CHECKING:
    from leyline.rendering.errors import RenderingError
    from leyline.rendering.render import Renderer
    from leyline.rendering.renderer import TokenRenderer
    from leyline.rendering.textrender import TextRenderer
    from leyline.rendering.toolcalls import ParsedOutput, parse_output
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "leyline.rendering.errors": "RenderingError",
            "leyline.rendering.render": "Renderer",
            "leyline.rendering.renderer": "TokenRenderer",
            "leyline.rendering.textrender": "TextRenderer",
            "leyline.rendering.toolcalls": "ParsedOutput parse_output",
        },
    )

__all__ = [
    "ParsedOutput",
    "Renderer",
    "RenderingError",
    "TextRenderer",
    "TokenRenderer",
    "parse_output",
]
