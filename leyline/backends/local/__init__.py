"""A transformers causal LM in this process, with a prefix cache that can be edited. Needs `leyline-kv[local]`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leyline._lazy import lazily

if TYPE_CHECKING:
    from leyline.backends.local.backend import LocalBackend
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "leyline.backends.local.backend": "LocalBackend",
        },
    )

__all__ = [
    "LocalBackend",
]
