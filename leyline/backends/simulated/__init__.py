"""A radix cache without an engine behind it: a backend that serves nothing but the accounting."""

from __future__ import annotations

from typing import TYPE_CHECKING

from leyline._lazy import lazily

if TYPE_CHECKING:
    from leyline.backends.simulated.backend import SimulatedBackend
    from leyline.backends.simulated.radix import RadixCache, RadixError
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "leyline.backends.simulated.backend": "SimulatedBackend",
            "leyline.backends.simulated.radix": "RadixCache RadixError",
        },
    )

__all__ = [
    "RadixCache",
    "RadixError",
    "SimulatedBackend",
]
