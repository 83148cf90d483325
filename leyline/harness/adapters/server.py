"""What an adapter asks of the server that its harness talks to: whether it splices, and what it has counted."""

from __future__ import annotations

import threading
import time

from leyline.backends.sglang.client.facts import announces_plugin
from leyline.directives import JsonObject
from leyline.harness.editor import EditPlan

FRESH = 60.0
"""Seconds for which what a server said of itself counts."""

_SAID: dict[str, tuple[bool, float]] = {}
_LOCK = threading.Lock()


def splices(url: object, api_key: str | None = None) -> bool:
    """Whether the server at an address that the user gave says that it is SGLang with Leyline. It is asked for it, and
    waited for; in an event loop call this in a thread.

    url: the base URL of the harness's client, None where it is the library's own default, which is never asked.
    """
    if url is None:
        return False
    name = str(url)
    with _LOCK:
        said, until = _SAID.get(name, (False, 0.0))
        if time.monotonic() >= until:
            said = announces_plugin(name, api_key)
            _SAID[name] = said, time.monotonic() + FRESH
        return said


def body_beside(plan: EditPlan, given: object, *, stream: bool = False) -> JsonObject:
    """The extra fields of a body, those that the harness gives among them, with what a plan adds.

    stream: a stream brings its receipt in a chunk of its own, and takes no `return_meta_info`.
    """
    fields = {key: value for key, value in plan.request_fields.items() if not stream or key != "return_meta_info"}
    return {**(given if isinstance(given, dict) else {}), **fields}


def usage(prompt: int, cached: int, completion: int) -> JsonObject:
    """Counts as `EditPlan.served` reads them. prompt includes cached."""
    return {
        "usage": {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "prompt_tokens_details": {"cached_tokens": cached},
        }
    }
