"""Which SGLang releases the plugin supports, and which adapter serves each."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from leyline.directives import LeylineError

SUPPORTED = "0.5.16 to 0.5.18 and 0.5.23"
"""Tested: 0.5.23 on CPU, 0.5.16 on CUDA. 0.5.17 and 0.5.18 have the interfaces of 0.5.16."""

_ADAPTERS = {
    (0, 5, 16): "adapter_0516",
    (0, 5, 17): "adapter_0516",
    (0, 5, 18): "adapter_0516",
    (0, 5, 23): "adapter_0523",
}


class UnsupportedVersionError(LeylineError):
    """The installed SGLang is not one that the plugin was written for."""


def adapter_for(version: str) -> Any:
    """The adapter module for SGLang `version`. Raises `UnsupportedVersionError`."""
    return import_module(f"leyline.backends.sglang.{adapter_name(version)}")


def adapter_name(version: str) -> str:
    """The adapter module's name; imports nothing. Raises `UnsupportedVersionError`."""
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", version)
    name = _ADAPTERS.get((int(match[1]), int(match[2]), int(match[3]))) if match else None
    if name is None:
        raise UnsupportedVersionError(
            f"SGLang {version} is not supported by the leyline plugin; install one of {SUPPORTED}"
        )
    return name
