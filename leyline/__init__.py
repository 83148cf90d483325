"""Leyline: edit what a language model remembers, cheaply.

The names below are imported when they are first used, so that `import leyline` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leyline import _moved
from leyline._lazy import lazily

if TYPE_CHECKING:
    from leyline._version import __version__
    from leyline.directives import Directive, EditScript, LeylineError, MessageEdit, Mode, Receipt
    from leyline.harness import Editor, Session
    from leyline.harness.transport import transport
    from leyline.harness.wrap import wrap
    from leyline.policies import DROP, Policy, load_policy, rule, truncate
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "leyline._version": "__version__",
            "leyline.directives": "Directive EditScript LeylineError MessageEdit Mode Receipt",
            "leyline.harness.editor": "Editor",
            "leyline.harness.session.session": "Session",
            "leyline.harness.transport": "transport",
            "leyline.harness.wrap": "wrap",
            "leyline.policies": "DROP Policy load_policy rule truncate",
        },
    )

__all__ = [
    "DROP",
    "Directive",
    "EditScript",
    "Editor",
    "LeylineError",
    "MessageEdit",
    "Mode",
    "Policy",
    "Receipt",
    "Session",
    "__version__",
    "load_policy",
    "rule",
    "transport",
    "truncate",
    "wrap",
]

_moved.install()
