"""Leyline: edit what a language model remembers, cheaply.

The names below are imported when they are first used, so that `import leyline` costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from leyline.directives import Directive, EditScript, LeylineError, MessageEdit, Mode, Receipt
    from leyline.harness.session.session import Session
    from leyline.harness.wrap import wrap
    from leyline.policies import DROP, Policy, load_policy, rule, truncate

    __version__: str

_HOME = {
    "DROP": "leyline.policies",
    "Directive": "leyline.directives",
    "EditScript": "leyline.directives",
    "LeylineError": "leyline.directives",
    "MessageEdit": "leyline.directives",
    "Mode": "leyline.directives",
    "Policy": "leyline.policies",
    "Receipt": "leyline.directives",
    "Session": "leyline.harness.session.session",
    "load_policy": "leyline.policies",
    "rule": "leyline.policies",
    "truncate": "leyline.policies",
    "wrap": "leyline.harness.wrap",
}

__all__ = [
    "DROP",
    "Directive",
    "EditScript",
    "LeylineError",
    "MessageEdit",
    "Mode",
    "Policy",
    "Receipt",
    "Session",
    "__version__",
    "load_policy",
    "rule",
    "truncate",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        value: Any = version("leyline-kv")
    elif name in _HOME:
        value = getattr(import_module(_HOME[name]), name)
    else:
        raise AttributeError(f"module 'leyline' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
