"""What the ledger knows of a conversation: the edits that are pinned, and how they follow the harness's history."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from leyline.directives import LeylineError, Message, MessageEdit, Mode
from leyline.directives import counts as plural
from leyline.directives.clone import clone
from leyline.directives.common import common_prefix
from leyline.harness.session.digests import digest, digest_once, digests
from leyline.policies.reading.calls import groups

ROOT = -1  # the anchor of a note that stands before the first message


class LedgerError(LeylineError, ValueError):
    """A saved ledger cannot be read, or an index names no message."""


def size(message: Mapping[str, object] | None) -> int:
    """Characters of content and tool calls; 0 for a dropped message."""
    if message is None:
        return 0
    content, calls = message.get("content") or "", message.get("tool_calls")
    text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False, default=str)
    return len(text) + (len(json.dumps(calls, ensure_ascii=False, default=str)) if calls else 0)


@dataclass(frozen=True, slots=True)
class Pin:
    """An edit that stays: what message stands in place of the original (None: nothing), and since which turn.

    digest: of the replacement.
    """

    replacement: Message | None
    mode: Mode
    turn: int
    digest: str | None

    @classmethod
    def of(cls, replacement: Message | None, mode: Mode, turn: int) -> Pin:
        return cls(replacement, mode, turn, None if replacement is None else digest(replacement))


@dataclass(frozen=True, slots=True)
class Note:
    """A message the policy added behind the original message `anchor`."""

    uid: int
    anchor: int
    message: Message
    mode: Mode


class Seen(NamedTuple):
    """A message of the history as it was last seen. `head` is the uid of the answer whose tool call it belongs to."""

    uid: int
    digest: str
    role: str
    head: int


@dataclass(slots=True)
class Entry:
    """A message of the edited history. `index` is its place in the unedited one, None for a note."""

    uid: int
    index: int | None
    message: Message
    digest: str


@dataclass
class State:
    mode: Mode
    seen: list[Seen] = field(default_factory=list)
    pins: dict[int, Pin] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)
    restored: set[int] = field(default_factory=set)
    sent: list[tuple[int, str]] = field(default_factory=list)
    next_uid: int = 0

    @property
    def digests(self) -> list[str]:
        return [seen.digest for seen in self.seen]

    def copy(self) -> State:
        return replace(
            self,
            seen=list(self.seen),
            pins=dict(self.pins),
            notes=list(self.notes),
            restored=set(self.restored),
            sent=list(self.sent),
        )

    def new_uid(self) -> int:
        self.next_uid += 1
        return self.next_uid - 1


def group(seen: Sequence[Seen], index: int) -> list[int]:
    """Positions of the tool call and results that belong together with message `index`."""
    return [position for position, other in enumerate(seen) if other.head == seen[index].head]


def follow(state: State, messages: Sequence[Message], marks: Sequence[str] | None = None) -> list[int]:
    """Carry uids over to the history as it is now; returns old positions that the harness changed or dropped.

    marks: the digests of `messages`, where they are known. A harness may hand back what was sent instead of what it
    first said: then the positions are those of what was sent, and an edit that came back stays where it is.
    """
    marks = digests(messages) if marks is None else marks
    roles = [str(message.get("role")) for message in messages]
    first = common_prefix(state.digests, marks)
    if first < len(marks) and (state.pins or state.notes):
        sent = common_prefix([mark for _, mark in state.sent], marks)
        if sent > first:
            first = sent
            _adopt(state)
    old = state.seen
    uids = [seen.uid for seen in old[:first]]
    changed: list[int] = []
    if first == len(old):
        uids += [state.new_uid() for _ in range(first, len(marks))]
    else:
        matcher = difflib.SequenceMatcher(None, [s.digest for s in old[first:]], marks[first:], autojunk=False)
        for op, a0, a1, b0, b1 in matcher.get_opcodes():
            a0, a1, b0, b1 = a0 + first, a1 + first, b0 + first, b1 + first
            if op == "equal":
                uids += [seen.uid for seen in old[a0:a1]]
                continue
            changed += range(a0, a1)
            for before, new in enumerate(range(b0, b1), start=a0):
                in_place = before < a1 and old[before].role == roles[new]
                uids.append(old[before].uid if in_place else state.new_uid())
        _release(state, changed, set(uids))
    if state.notes:
        own = set(uids)
        state.notes = [note for note in state.notes if note.uid not in own]
    state.seen = list(map(Seen, uids, marks, roles, uids))
    if state.restored or any(pin.replacement is None for pin in state.pins.values()):
        set_heads(state, messages)
        _whole(state)
    return changed


def set_heads(state: State, messages: Sequence[Message]) -> None:
    """Say of each message to which answer it belongs. It matters only where something is dropped or was given back."""
    heads = [seen.uid for seen in state.seen]
    for members in groups(messages):
        for i in members:
            heads[i] = state.seen[members[0]].uid
    state.seen = [seen._replace(head=head) for seen, head in zip(state.seen, heads, strict=True)]


def _whole(state: State) -> None:
    """Mend a dropped exchange to which a result has come since: it must not stand without its call.

    The exchange comes back; where it was forgotten, the result goes too.
    """
    gone = {uid: pin for uid, pin in state.pins.items() if pin.replacement is None}
    torn = {seen.head for seen in state.seen if seen.head in gone and seen.uid not in gone} if gone else set()
    for seen in state.seen if torn else ():
        if seen.head in torn and gone[seen.head].mode is Mode.FORGET:
            state.pins[seen.uid] = gone[seen.head]
        elif seen.head in torn:
            state.pins.pop(seen.uid, None)


def _adopt(state: State) -> None:
    """Take what was sent for the history that the harness keeps: what was dropped is gone, what was added is there."""
    known = {seen.uid: seen for seen in state.seen}
    notes = {note.uid: str(note.message.get("role")) for note in state.notes}
    adopted = [
        known[uid]._replace(digest=mark) if uid in known else Seen(uid, mark, notes.get(uid, ""), uid)
        for uid, mark in state.sent
    ]
    shown = {seen.uid for seen in adopted}
    gone = [seen.uid for seen in state.seen if seen.uid not in shown]
    if gone:
        # Notes behind a dropped message come to stand behind the last one before it that was sent.
        order = [seen.uid for seen in state.seen]
        for k, note in enumerate(state.notes):
            if note.anchor in gone:
                before = reversed(order[: order.index(note.anchor)])
                state.notes[k] = replace(note, anchor=next((uid for uid in before if uid in shown), ROOT))
    for uid in gone:
        state.pins.pop(uid, None)
        state.restored.discard(uid)
    state.seen = adopted


def _release(state: State, changed: Sequence[int], alive: set[int]) -> None:
    """Lift the edits of messages that are no longer what they were, and re-anchor notes whose message is gone."""
    old = state.seen
    for index in changed:
        pin = state.pins.pop(old[index].uid, None)
        state.restored.discard(old[index].uid)
        if pin is not None and pin.replacement is None:
            # Half of a dropped tool pair changed: the other half must not stay dropped alone.
            for partner in group(old, index):
                state.pins.pop(old[partner].uid, None)
    if changed:
        place = {ROOT: -1} | {seen.uid: position for position, seen in enumerate(old)}
        state.notes.sort(key=lambda note: place[note.anchor])  # several may now come to stand behind one message
        before = [ROOT, *(seen.uid for seen in old)]
        for k, note in enumerate(state.notes):
            anchor = next(uid for uid in reversed(before[: place[note.anchor] + 2]) if uid in alive or uid == ROOT)
            state.notes[k] = replace(note, anchor=anchor)


def keep_first(state: State, count: int) -> None:
    """Forget all but the first `count` messages of the history."""
    kept = {seen.uid for seen in state.seen[:count]} | {ROOT}
    state.notes = [note for note in state.notes if note.anchor in kept]
    _release(state, range(count, len(state.seen)), kept)
    state.seen = state.seen[:count]
    kept |= {note.uid for note in state.notes}
    state.sent = [(uid, mark) for uid, mark in state.sent if uid in kept]


def holds(state: State, edit: MessageEdit) -> bool:
    """Whether the very same edit is in force already."""
    if edit.insert or not 0 <= edit.message_index < len(state.seen):
        return False
    pin = state.pins.get(state.seen[edit.message_index].uid)
    return pin is not None and pin.mode is edit.mode and pin.replacement == edit.replacement


def accept(state: State, edit: MessageEdit, messages: Sequence[Message], turn: int, mark: str | None) -> int | None:
    """Take a proposal into the state; returns the uid it concerns, or None if it is not new. mark: the digest of its
    replacement.
    """
    index = edit.message_index
    if not 0 <= index < len(messages) + edit.insert:
        raise LedgerError(f"an edit names message {index}, the history has {plural.count(len(messages), 'message')}")
    if edit.insert:
        if edit.replacement is None:
            raise LedgerError(f"an insertion before message {index} carries no message")
        anchor = state.seen[index - 1].uid if index else ROOT
        if any(note.anchor == anchor and digest_once(note.message) == mark for note in state.notes):
            return None
        note = Note(state.new_uid(), anchor, clone(edit.replacement), edit.mode)
        state.notes.append(note)
        return note.uid
    uid, pin = state.seen[index].uid, state.pins.get(state.seen[index].uid)
    current, wanted = messages[index] if pin is None else pin.replacement, edit.replacement
    if uid in state.restored:
        return None
    given_back = wanted is None and bool(state.restored)
    if given_back and any(state.seen[partner].uid in state.restored for partner in group(state.seen, index)):
        return None  # half of a tool pair was given back: the other half must not be dropped alone
    if current is None:
        # A dropped message stays dropped, or half of its pair would come back; a FORGET still heals what is behind it.
        new, wanted = edit.mode is Mode.FORGET and pin is not None and pin.mode is not Mode.FORGET, None
    elif edit.mode is Mode.FORGET:
        new = pin is None or pin.mode is not Mode.FORGET or wanted is None or pin.digest != mark
    elif pin is None:
        new = wanted is None or state.seen[index].digest != mark
    else:
        # What was forgotten must not come back in a shorter version of the original.
        new = wanted is None or (pin.mode is not Mode.FORGET and size(wanted) < size(current))
    if new:
        state.pins[uid] = Pin(clone(wanted), edit.mode, turn, None if wanted is None else mark)
    return uid if new else None
