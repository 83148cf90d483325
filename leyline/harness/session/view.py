"""The edited history, and what of it is no longer what was sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from leyline.directives import Message, MessageEdit, Mode
from leyline.harness.session.digests import digest_once
from leyline.harness.session.pins import ROOT, Entry, Seen, State

Cause = Literal["policy", "harness", "unedit"]


def healed(state: State, view: Sequence[Entry], fresh: Mapping[int, Mode], held: set[int]) -> set[int]:
    """For each new FORGET of a message that was dropped before, the first message behind it that the server holds."""
    found: set[int] = set()
    shown = {entry.uid for entry in view}
    for position, seen in enumerate(state.seen):
        if fresh.get(seen.uid) is Mode.FORGET and seen.uid not in held | shown:
            later = {other.uid for other in state.seen[position + 1 :]}
            later |= {note.uid for note in state.notes if note.anchor in later or note.anchor == seen.uid}
            found |= set([entry.uid for entry in view if entry.uid in later and entry.uid in held][:1])
    return found


def view_of(state: State, messages: Sequence[Message]) -> list[Entry]:
    """The edited history: originals with their pins, and notes behind their anchors in order of arrival."""
    if not state.pins and not state.notes:
        return [Entry(seen.uid, index, message, seen.digest) for index, (seen, message) in _placed(state, messages)]
    notes: dict[int, list[Entry]] = {}
    for note in state.notes:
        notes.setdefault(note.anchor, []).append(Entry(note.uid, None, note.message, digest_once(note.message)))
    view = list(notes.get(ROOT, ()))
    for index, (seen, message) in _placed(state, messages):
        pin = state.pins.get(seen.uid)
        if pin is None or pin.digest == seen.digest:  # the harness handed the edit back: its own message is sent
            view.append(Entry(seen.uid, index, message, seen.digest))
        elif pin.replacement is not None and pin.digest is not None:
            view.append(Entry(seen.uid, index, pin.replacement, pin.digest))
        view += notes.get(seen.uid, ())
    return view


def _placed(state: State, messages: Sequence[Message]) -> Iterator[tuple[int, tuple[Seen, Message]]]:
    return enumerate(zip(state.seen, messages, strict=True))


def changes(
    sent: Sequence[tuple[int, str]], view: Sequence[Entry], fresh: Mapping[int, Mode], state: State
) -> list[tuple[MessageEdit, Cause]]:
    """Edits that turn what was sent into the view, in indices of what was sent; the new tail is none."""
    if not sent:
        return []
    same = (entry.uid == uid and entry.digest == mark for (uid, mark), entry in zip(sent, view, strict=False))
    if not fresh and len(view) >= len(sent) and all(same):
        return []  # only the tail is new
    target = {entry.uid: (place, entry) for place, entry in enumerate(view)}
    held = {uid for uid, _ in sent}
    heal = healed(state, view, fresh, held)
    edits: list[tuple[MessageEdit, Cause]] = []

    def add(index: int, uid: int, replacement: Message | None, insert: bool = False) -> None:
        cause: Cause = "policy" if uid in fresh or uid in heal else "unedit" if uid in state.restored else "harness"
        mode = Mode.FORGET if uid in heal and not insert else fresh.get(uid, state.mode)
        edits.append((MessageEdit(index, replacement, mode, insert), cause))

    cursor = 0
    for index, (uid, mark) in enumerate(sent):
        if uid not in target:
            add(index, uid, None)
            continue
        place, entry = target[uid]
        for new in view[cursor:place]:
            if new.uid not in held:
                add(index, new.uid, new.message, insert=True)
        cursor = max(cursor, place + 1)
        if entry.digest != mark or fresh.get(uid) is Mode.FORGET or uid in heal:
            add(index, uid, entry.message)
    return edits
