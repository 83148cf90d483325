"""Plain values: what a client gives, its own models included, as the dicts, lists and strings that are sent."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from leyline.directives import Message

MARKS = frozenset({"cache_control", "prompt_cache_breakpoint"})
"""Fields that say what a server should cache. They move from turn to turn and are no content."""


def as_message(item: object) -> Message | None:
    """A message as a dict of plain values, None if it is none.

    The client libraries' response models are messages too, and may stand inside one:
    `"tool_calls": answer.tool_calls`, `"content": answer.content`.
    """
    found = None if isinstance(item, (list, tuple)) else plain(item)
    return found if isinstance(found, dict) else None


def plain(value: Any) -> Any:
    """A value without models; the same object where it has none."""
    kind = type(value)
    if kind is str or value is None:
        return value
    if kind is dict:
        made = {key: plain(inner) for key, inner in value.items()}
        return made if any(made[key] is not value[key] for key in made) else value
    if kind is list:
        items = [plain(inner) for inner in value]
        return items if any(new is not old for new, old in zip(items, value, strict=True)) else value
    dump = getattr(value, "model_dump", None)
    if callable(dump):
        return dump(mode="json", exclude_unset=True)
    if isinstance(value, Mapping):
        return {key: plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def clone(value: Any) -> Any:
    """A deep copy; of plain values it is several times as fast as `copy.deepcopy`."""
    kind = type(value)
    if kind is str or value is None:
        return value
    if kind is dict:
        return {key: clone(inner) for key, inner in value.items()}
    if kind is list:
        return [clone(inner) for inner in value]
    return value if kind in (int, float, bool) else copy.deepcopy(value)


def without_marks(part: Mapping[str, Any]) -> dict[str, Any]:
    """A message or a part of one without its own marks."""
    return {key: value for key, value in part.items() if key not in MARKS}


def marks_of(part: Any) -> dict[str, Any]:
    """The marks of a message or of a part."""
    return {key: part[key] for key in MARKS if key in part} if isinstance(part, Mapping) else {}
