"""Stock SGLang: the plugin that splices in its cache, the launcher and the client.

This package is imported in every process of a server, so nothing is loaded before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leyline._lazy import lazily

if TYPE_CHECKING:
    from leyline.backends.sglang.client.backend import SGLangBackend
    from leyline.backends.sglang.client.facts import ServerFacts
    from leyline.backends.sglang.launch import Launch, LaunchError, plan_launch
    from leyline.backends.sglang.versions import UnsupportedVersionError
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "leyline.backends.sglang.client.backend": "SGLangBackend",
            "leyline.backends.sglang.client.facts": "ServerFacts",
            "leyline.backends.sglang.launch": "Launch LaunchError plan_launch",
            "leyline.backends.sglang.versions": "UnsupportedVersionError",
        },
    )

__all__ = [
    "Launch",
    "LaunchError",
    "SGLangBackend",
    "ServerFacts",
    "UnsupportedVersionError",
    "plan_launch",
]
