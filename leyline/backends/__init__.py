"""Backends: what serves the model. `local` runs in process, `sglang` splices in a server, `openai` is any server.

Here is what all of them share, and the scripted one for tests. This package is imported in every process of a server,
so nothing is loaded before it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leyline._lazy import lazily

if TYPE_CHECKING:
    from leyline.backends.contract import (
        Backend,
        Capabilities,
        ContextOverflowError,
        Held,
        Purged,
        Sampling,
        Turn,
        TurnInput,
        Usage,
    )
    from leyline.backends.gate import Gate, GatedBackend, GateError
    from leyline.backends.mock import MockBackend, MockRequest, tool_call
    from leyline.directives import BackendError
else:
    __getattr__, __dir__ = lazily(
        __name__,
        {
            "leyline.backends.contract": (
                "Backend Capabilities ContextOverflowError Held Purged Sampling Turn TurnInput Usage"
            ),
            "leyline.backends.gate": "Gate GateError GatedBackend",
            "leyline.backends.mock": "MockBackend MockRequest tool_call",
            "leyline.directives": "BackendError",
        },
    )

__all__ = [
    "Backend",
    "BackendError",
    "Capabilities",
    "ContextOverflowError",
    "Gate",
    "GateError",
    "GatedBackend",
    "Held",
    "MockBackend",
    "MockRequest",
    "Purged",
    "Sampling",
    "Turn",
    "TurnInput",
    "Usage",
    "tool_call",
]
