"""Edits of a chat history, message by message."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TypeAlias

from leyline.directives.common import common_prefix
from leyline.directives.directive import Mode
from leyline.directives.errors import EditError
from leyline.directives.jsontypes import JsonObject

Message: TypeAlias = JsonObject
"""An OpenAI chat message: `role`, `content`, and for calls and their results `tool_calls`, `tool_call_id`."""


@dataclass(frozen=True)
class MessageEdit:
    """Replace or drop one message of a history, or put one before it.

    message_index: index in the unedited history; an insertion may name its length, which appends.
    replacement: the new message, or None to drop the old one.
    insert: put `replacement` before `message_index` and keep what stands there.
    """

    message_index: int
    replacement: Message | None = None
    mode: Mode = Mode.AMORTIZE
    insert: bool = False


def apply_edits(messages: Sequence[Message], edits: Sequence[MessageEdit]) -> list[Message]:
    """The edited history. Insertions at one index are applied in order, before the message there is replaced.

    Raises `EditError` for an index out of range, two edits of one message, or an insertion of nothing.
    """
    inserts, changes = group_edits(len(messages), edits)
    result: list[Message] = []
    for index in range(len(messages) + 1):
        result.extend(edit.replacement for edit in inserts.get(index, ()) if edit.replacement is not None)
        if index == len(messages):
            break
        change = changes.get(index)
        if change is None:
            result.append(messages[index])
        elif change.replacement is not None:
            result.append(change.replacement)
    return result


def group_edits(
    count: int, edits: Sequence[MessageEdit]
) -> tuple[dict[int, list[MessageEdit]], dict[int, MessageEdit]]:
    """The edits of a history of `count` messages by index: insertions, then replacements and drops."""
    inserts: dict[int, list[MessageEdit]] = {}
    changes: dict[int, MessageEdit] = {}
    for edit in edits:
        index = edit.message_index
        bound = count if edit.insert else count - 1
        if type(index) is not int or not 0 <= index <= bound:
            raise EditError(f"edit of message {index!r}: the history has {count} messages; the bound is {bound}")
        if edit.insert:
            if edit.replacement is None:
                raise EditError(f"edit of message {index}: an insertion needs a replacement message")
            inserts.setdefault(index, []).append(edit)
        elif index in changes:
            raise EditError(f"message {index} is edited twice; merge the two edits into one")
        else:
            changes[index] = edit
    return inserts, changes


def diff(old: Sequence[Message], new: Sequence[Message], mode: Mode = Mode.AMORTIZE) -> list[MessageEdit]:
    """The edits that lead from `old` to `new`, ascending by index; an appended tail of `new` is no edit.

    Unchanged messages are found first (equal as canonical JSON). Between them, a message replaces the one of the same
    role and tool call; the rest are drops and insertions. `apply_edits(old, diff(old, new))` followed by the rest of
    `new` is `new`.
    """
    pairs = _align(old, new)
    edits: list[MessageEdit] = []
    next_new = 0
    last_kept = max((i for i, j in enumerate(pairs) if j is not None), default=-1)
    for index, message in enumerate(old):
        partner = pairs[index]
        if partner is None:
            edits.append(MessageEdit(index, None, mode))
            continue
        edits.extend(MessageEdit(index, new[k], mode, insert=True) for k in range(next_new, partner))
        if canonical(message) != canonical(new[partner]):
            edits.append(MessageEdit(index, new[partner], mode))
        next_new = partner + 1
        if index == last_kept:
            edits.extend(MessageEdit(k, None, mode) for k in range(index + 1, len(old)))
            break
    return edits


def canonical(message: Message) -> str:
    """A message as JSON with sorted keys: equal strings mean equal messages."""
    return json.dumps(message, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=repr)


def _align(old: Sequence[Message], new: Sequence[Message]) -> list[int | None]:
    """For each old message its partner's index in `new`, ascending, or None."""
    pairs: list[int | None] = [None] * len(old)
    old_texts: list[Hashable] = [canonical(m) for m in old]
    new_texts: list[Hashable] = [canonical(m) for m in new]
    same = common_prefix(old_texts, new_texts)
    pairs[:same] = range(same)
    i = j = same
    for block_old, block_new, size in _blocks(old_texts[same:], new_texts[same:]):
        a, b = block_old + same, block_new + same
        keys = [_slot(m) for m in old[i:a]], [_slot(m) for m in new[j:b]]
        for slot_old, slot_new, length in _blocks(*keys):
            for k in range(length):
                pairs[i + slot_old + k] = j + slot_new + k
        for k in range(size):
            pairs[a + k] = b + k
        i, j = a + size, b + size
    return pairs


def _blocks(old: Sequence[Hashable], new: Sequence[Hashable]) -> list[tuple[int, int, int]]:
    """Matching blocks (old start, new start, length) in order; the last one is empty and stands at both ends."""
    return [(m.a, m.b, m.size) for m in SequenceMatcher(None, old, new, autojunk=False).get_matching_blocks()]


def _slot(message: Message) -> Hashable:
    """What a message and its replacement have in common: the role and the tool calls that it makes or answers."""
    calls = message.get("tool_calls") or ()
    made = tuple(str(call.get("id")) for call in calls if isinstance(call, dict)) if isinstance(calls, list) else ()
    return (str(message.get("role")), str(message.get("tool_call_id") or ""), made)
