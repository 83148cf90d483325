"""Which SGLang releases the plugin supports, and which adapter serves each."""

from __future__ import annotations

import re
from importlib import import_module
from types import ModuleType

from leyline.directives import LeylineError

BACKEND = "leyline"
"""The plugin's name for `--radix-cache-backend`."""

_ADAPTERS = {"0.5.16": "adapter_0516", "0.5.23": "adapter_0523"}

SUPPORTED = " and ".join(_ADAPTERS)
"""Only releases that the tests were run on: the plugin hooks into functions that change without notice."""


class UnsupportedVersionError(LeylineError):
    """The installed SGLang is not one that the plugin was written for."""


def adapter_for(version: str) -> ModuleType:
    """The adapter module for SGLang `version`. Raises `UnsupportedVersionError`."""
    return import_module(f"leyline.backends.sglang.plugin.{adapter_name(version)}")


def adapter_name(version: str) -> str:
    """The adapter module's name; imports nothing. Raises `UnsupportedVersionError`."""
    match = re.match(r"\d+\.\d+\.\d+(?=$|[+.])(?!\.(?:dev|rc))", version)
    name = _ADAPTERS.get(match[0]) if match else None
    if name is None:
        raise UnsupportedVersionError(
            f"SGLang {version} is not supported by the leyline plugin; install sglang {SUPPORTED.replace('and', 'or')}"
        )
    return name
