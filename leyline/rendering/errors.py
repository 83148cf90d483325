"""The error of this room."""

from __future__ import annotations

from leyline.directives import LeylineError


class RenderingError(LeylineError):
    """Messages cannot be made into tokens, or a tokenizer or template cannot be read. The message says what to do."""
