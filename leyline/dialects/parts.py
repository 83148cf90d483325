"""Contents in parts: an edited content back into the parts that were given."""

from __future__ import annotations

from collections.abc import Sequence

from leyline.dialects.plain import marks_of, without_marks
from leyline.directives import JsonObject
from leyline.directives.clone import clone

_STALE = frozenset({"citations", "annotations", "logprobs"})  # of a text that is no longer there


def rewritten(
    content: object, read: Sequence[JsonObject], given: Sequence[JsonObject], text_type: str
) -> list[list[JsonObject]]:
    """What stands in the place of each part that was given, after an edit of the content.

    content: the new content: text, parts or None. read: the parts as the policy saw them. given: the same with marks.
    A part without an edit is the very object that was given. A mark whose part is gone moves to the last new part.
    """
    slots: list[list[JsonObject]] = [[] for _ in given]
    if not slots:
        slots = [[]]
    if isinstance(content, str):
        first = next((k for k, part in enumerate(read) if isinstance(part.get("text"), str)), 0)
        if content:
            like = given[first] if given and isinstance(read[first].get("text"), str) else {"type": text_type}
            slots[first] = [_text(like, content, text_type)]
    elif isinstance(content, list):
        if len(content) == len(given):
            for k, part in enumerate(content):
                slots[k] = _part(part, read[k], given[k], text_type)
        else:
            known = {id(part): k for k, part in enumerate(read)}
            loose = list(range(len(read)))
            for part in content:
                same = known.get(id(part))
                if same is None or same not in loose:
                    same = next((j for j in loose if read[j] == part), None)
                if same is None:
                    slots[0] += _part(part, {}, {}, text_type)
                else:
                    loose.remove(same)
                    slots[0].append(given[same])
    _move_marks(slots, given)
    return slots


def _part(part: JsonObject, read: JsonObject, given: JsonObject, text_type: str) -> list[JsonObject]:
    if given and part == read:
        return [given]
    text = part.get("text")
    if isinstance(text, str) and part.get("type") in (None, "text", text_type, given.get("type")):
        like = given if isinstance(read.get("text"), str) else {"type": text_type}
        return [_text(like, text, text_type)] if text else []
    return [clone(part)]


def _text(like: JsonObject, text: str, text_type: str) -> JsonObject:
    kept = {key: value for key, value in without_marks(like).items() if key not in _STALE}
    if "annotations" in like:
        kept["annotations"] = []  # the API wants the field
    return {**kept, "type": like.get("type", text_type), "text": text}


def _move_marks(slots: list[list[dict[str, object]]], given: Sequence[dict[str, object]]) -> None:
    """Marks of parts that were edited or dropped go to the last part that stands at or before their place."""
    kept = {id(part) for slot in slots for part in slot}
    for k, part in enumerate(given):
        marks = marks_of(part)
        if not marks or id(part) in kept:
            continue
        for slot in [*reversed(slots[: k + 1]), *slots[k + 1 :]]:
            if slot:
                if not marks_of(slot[-1]):
                    slot[-1] = {**slot[-1], **marks}
                break
