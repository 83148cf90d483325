"""The ledger: which edits a conversation already carries, so that they are made once and then stay.

A harness resends its full, unedited history every turn, and a policy looks at all of it every turn. If whatever the
policy says now were sent, an edit could move, grow back or change its text from one turn to the next, and every such
change breaks the cached prefix. The ledger pins each edit to the message it was made on and re-applies exactly that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leyline.directives import JsonMapping, JsonObject, Message, MessageEdit, Mode
from leyline.directives import counts as plural
from leyline.directives.clone import clone
from leyline.harness.session.digests import digest, digests
from leyline.harness.session.pins import (
    Entry,
    LedgerError,
    Note,
    Pin,
    Seen,
    State,
    accept,
    follow,
    group,
    holds,
    keep_first,
    set_heads,
)
from leyline.harness.session.view import Cause, changes, view_of

__all__ = ["Ledger", "LedgerError", "Plan", "digest"]


@dataclass(frozen=True)
class Plan:
    """One turn as the ledger wants it sent. Nothing is remembered until `Ledger.commit(plan)`.

    view: the edited history. accepted: new edits of the policy, in indices of the unedited history.
    client: positions, in the history of the last turn, of messages that the harness itself changed or dropped.
    edits: everything that changed since the last turn, in indices of what was sent then (with the model's answer as its
    last message): what `directives.token_script` takes. causes: for each of these, who asked for it.
    """

    view: tuple[Entry, ...]
    accepted: tuple[MessageEdit, ...]
    client: tuple[int, ...]
    edits: tuple[MessageEdit, ...]
    causes: tuple[Cause, ...]
    state: State

    @property
    def untouched(self) -> bool:
        """Whether the view is the history itself, for a reason that is seen at once."""
        return not self.state.pins and not self.state.notes

    @property
    def messages(self) -> list[Message]:
        return [entry.message for entry in self.view]


class Ledger:
    """The edits of one conversation. `mode` is the contract of edits that the harness makes to its own history."""

    def __init__(self, mode: Mode = Mode.AMORTIZE) -> None:
        self._state = State(mode)

    def __len__(self) -> int:
        return len(self._state.pins) + len(self._state.notes)

    @property
    def digests(self) -> list[str]:
        """Digests of the unedited history as of the last commit."""
        return self._state.digests

    @property
    def roles(self) -> list[str]:
        """Roles of the unedited history as of the last commit."""
        return [seen.role for seen in self._state.seen]

    @property
    def sent_line(self) -> tuple[list[str], list[str]]:
        """Digests and roles of what the last turn sent."""
        roles = {seen.uid: seen.role for seen in self._state.seen}
        roles |= {note.uid: str(note.message.get("role")) for note in self._state.notes}
        return [mark for _, mark in self._state.sent], [roles.get(uid, "") for uid, _ in self._state.sent]

    @property
    def sent(self) -> int:
        """How many messages the last turn sent, the model's answer included where it was committed."""
        return len(self._state.sent)

    def pinned(self) -> list[MessageEdit]:
        """Every edit in force, in indices of the unedited history."""
        place = {seen.uid: index for index, seen in enumerate(self._state.seen)}
        edits = [MessageEdit(place[uid], pin.replacement, pin.mode) for uid, pin in self._state.pins.items()]
        edits += [MessageEdit(place.get(n.anchor, -1) + 1, n.message, n.mode, insert=True) for n in self._state.notes]
        return sorted(edits, key=lambda edit: (edit.message_index, not edit.insert))

    def plan(
        self,
        messages: Sequence[Message],
        proposals: Sequence[MessageEdit] = (),
        *,
        turn: int = 0,
        marks: Sequence[str] | None = None,
    ) -> Plan:
        """Decide what is sent for this history. Does not change the ledger.

        marks: the digests of `messages`, where the caller knows them already.

        A message that carries an edit keeps it, unless a proposal for it removes strictly more (drops it, or has less
        text) or is FORGET; what was dropped stays dropped, and what was forgotten is only dropped or forgotten again.
        Proposals for messages given to `unedit` are ignored.
        """
        state = self._state.copy()
        client = follow(state, messages, marks)
        accepted: list[MessageEdit] = []
        fresh: dict[int, Mode] = {}
        asked = [edit for edit in proposals if not holds(state, edit)]
        wanted = iter(digests([edit.replacement for edit in asked if edit.replacement is not None]))
        for edit in asked:
            uid = accept(state, edit, messages, turn, None if edit.replacement is None else next(wanted))
            if uid is not None:
                accepted.append(MessageEdit(edit.message_index, clone(edit.replacement), edit.mode, edit.insert))
                fresh[uid] = edit.mode
        if any(edit.replacement is None for edit in accepted):
            set_heads(state, messages)
        view = view_of(state, messages)
        found = changes(state.sent, view, fresh, state)
        state.sent = [(entry.uid, entry.digest) for entry in view]
        return Plan(
            view=tuple(view),
            accepted=tuple(accepted),
            client=tuple(client),
            edits=tuple(edit for edit, _ in found),
            causes=tuple(cause for _, cause in found),
            state=state,
        )

    def copy(self) -> Ledger:
        twin = Ledger(self._state.mode)
        twin._state = self._state.copy()
        return twin

    def fork(self, count: int) -> Ledger:
        """A ledger for a history that shares the first `count` messages with this one, with their edits."""
        twin = self.copy()
        keep_first(twin._state, count)
        return twin

    def commit(self, plan: Plan, answer: Message | None = None) -> int | None:
        """Remember a plan that was served, and the model's answer as the last message. Returns the answer's uid."""
        state, uid = plan.state.copy(), None
        if answer is not None:
            uid, mark = state.new_uid(), digest(answer)
            state.seen.append(Seen(uid, mark, str(answer.get("role")), uid))
            state.sent.append((uid, mark))
        self._state = state
        return uid

    def unedit(self, index: int) -> bool:
        """Give back the original message `index`, and leave it alone from now on; false if it carried no edit.

        Where a tool call and its results were dropped together, all of them come back.
        """
        seen = self._state.seen
        if not 0 <= index < len(seen):
            raise LedgerError(f"no message {index}: the history has {plural.count(len(seen), 'message')}; count from 0")
        state = self._state.copy()
        if seen[index].uid not in state.pins:
            return False
        dropped = state.pins[seen[index].uid].replacement is None
        for position in group(seen, index) if dropped else [index]:
            state.pins.pop(seen[position].uid, None)
            state.restored.add(seen[position].uid)
        self._state = state
        return True

    def to_dict(self) -> JsonObject:
        """A JSON-able copy; `from_dict` gives the ledger back."""
        state = self._state
        return {
            "version": 1,
            "mode": state.mode.value,
            "seen": [[s.uid, s.digest, s.role, s.head] for s in state.seen],
            "pins": [[uid, p.replacement, p.mode.value, p.turn] for uid, p in state.pins.items()],
            "notes": [[n.uid, n.anchor, n.message, n.mode.value] for n in state.notes],
            "restored": sorted(state.restored),
            "sent": [list(item) for item in state.sent],
            "next_uid": state.next_uid,
        }

    @classmethod
    def from_dict(cls, data: JsonMapping) -> Ledger:
        """Raises LedgerError if `data` is not what `to_dict` gives."""
        try:
            if data["version"] != 1:
                raise LedgerError(f"ledger version {data['version']} is not supported: this release reads version 1")
            ledger = cls(Mode(data["mode"]))
            ledger._state = State(
                mode=Mode(data["mode"]),
                seen=[Seen(int(u), str(d), str(r), int(h)) for u, d, r, h in data["seen"]],
                pins={int(u): Pin.of(r, Mode(m), int(t)) for u, r, m, t in data["pins"]},
                notes=[Note(int(u), int(a), dict(m), Mode(mode)) for u, a, m, mode in data["notes"]],
                restored={int(u) for u in data["restored"]},
                sent=[(int(u), str(d)) for u, d in data["sent"]],
                next_uid=int(data["next_uid"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, LedgerError):
                raise
            raise LedgerError(f"not a saved ledger ({error!r}): start the conversation afresh") from None
        return ledger
