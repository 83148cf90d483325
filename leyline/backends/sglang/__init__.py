"""Stock SGLang: the plugin that splices in its cache, the launcher and the client.

This package is imported in every process of a server, so nothing is loaded before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leyline.backends.sglang.client.backend import SGLangBackend

__all__ = ["SGLangBackend"]


def __getattr__(name: str) -> Any:
    if name == "SGLangBackend":
        from leyline.backends.sglang.client.backend import SGLangBackend

        return SGLangBackend
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
