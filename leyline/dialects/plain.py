"""Plain values: what a client gives, its own models included, as the dicts, lists and strings that are sent."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

from leyline.dialects.base import DialectError
from leyline.directives import JsonObject, Message

MARKS = frozenset({"cache_control", "prompt_cache_breakpoint"})
"""Fields that say what a server should cache. They move from turn to turn and are no content."""


DEEPEST = 128
"""Levels of lists and objects in one message. All that reads or copies it takes a few frames for each."""
_SCALARS = (str, int, float, bool, type(None))


def as_message(item: object) -> Message | None:
    """A message as a dict of plain values, None if it is none.

    The client libraries' response models are messages too, and may stand inside one:
    `"tool_calls": answer.tool_calls`, `"content": answer.content`.
    """
    found = None if isinstance(item, (list, tuple)) else plain(item)
    return found if isinstance(found, dict) else None


def plain(value: object) -> Any:
    """A value without models; the same object where it has none. Raises DialectError where it is nested too deep."""
    return value if _is_plain(value) else _converted(value)


def _is_plain(value: Any, levels: int = DEEPEST) -> bool:
    kind = type(value)
    if kind is dict:
        value = value.values()
    elif kind is not list:
        return kind in _SCALARS
    if levels == 0:
        raise DialectError(f"a message is nested over {DEEPEST} levels deep; give it in a flatter form, or as text")
    for inner in value:  # no generator: that costs as much again, and this looks at every field
        if type(inner) is not str and inner is not None and not _is_plain(inner, levels - 1):
            return False
    return True


def _converted(value: object) -> Any:
    if isinstance(value, Enum):
        return plain(value.value)
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def without_marks(part: Mapping[str, object]) -> JsonObject:
    """A message or a part of one without its own marks."""
    return {key: value for key, value in part.items() if key not in MARKS}


def marks_of(part: object) -> JsonObject:
    """The marks of a message or of a part."""
    return {key: part[key] for key in MARKS if key in part} if isinstance(part, Mapping) else {}
