"""The error of this room."""

from __future__ import annotations

from leyline.directives import BackendError


class RenderingError(BackendError):
    """Messages cannot be made into tokens, or a tokenizer or template cannot be read. The message says what to do.

    For who asked for a turn it is one more reason why there is none, hence a `BackendError`.
    """
