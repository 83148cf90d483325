"""Any OpenAI-compatible server, over chat completions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leyline._lazy import lazily

if TYPE_CHECKING:
    from leyline.backends.openai.backend import OpenAIBackend
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "leyline.backends.openai.backend": "OpenAIBackend",
        },
    )

__all__ = [
    "OpenAIBackend",
]
