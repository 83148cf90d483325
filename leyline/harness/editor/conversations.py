"""Which conversation a request belongs to: by its session id and by its history together."""

from __future__ import annotations

import itertools
import uuid
import warnings
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from leyline.directives import Mode, Receipt, Rendered
from leyline.directives.common import common_prefix
from leyline.harness.session.ledger import Ledger

_TOLD = ("system", "developer")
_ASIDE = ("user", *_TOLD)


@dataclass(frozen=True)
class _Line:
    """A history as it is looked up. answer: place of the last answer, -1 for none. head: of the first that is not told
    by the harness's author, as system messages are.
    """

    marks: list[str] = field(default_factory=list)
    roles: list[str] = field(default_factory=list)
    answer: int = -1
    head: int = 0
    answers: int = 0

    @classmethod
    def of(cls, marks: list[str], roles: list[str]) -> _Line:
        answers = roles.count("assistant")
        answer = len(roles) - 1 - roles[::-1].index("assistant") if answers else -1
        head = next((i for i, role in enumerate(roles) if role not in _TOLD), len(roles))
        return cls(marks, roles, answer, head, answers)

    def continued_by(self, new: _Line) -> tuple[int, bool]:
        """How much `new` shares with this history, and whether it goes on from it.

        What stands behind the last answer may change (a reminder, the outputs that the answer asked for), and so may
        the system message once an answer is shared.
        """
        shared = common_prefix(self.marks, new.marks)
        if shared == len(self.marks):
            return shared, True
        if shared < self.head == new.head and self.answers:
            behind = self.head + common_prefix(self.marks[self.head :], new.marks[self.head :])
            if behind > self.answer:
                shared = behind
        if shared <= self.answer or shared <= self.head:
            return shared, False
        aside = all(role in _ASIDE for role in self.roles[shared:])
        return shared, aside or new.answers > self.answers

    def rewritten_by(self, new: _Line, *, named: bool) -> bool:
        """Whether `new` may be this history after its harness changed it: most of its messages are there.

        With a session id in `named`, one first message is enough; without one it must be there, and so must the last
        answer, which another attempt at the same task does not have.
        """
        begins = self.marks[self.head : self.head + 1] == new.marks[new.head : new.head + 1] != []
        if named and begins:
            return True
        if not named and not (begins and self.answer >= 0 and self.marks[self.answer] in new.marks):
            return False
        mine, others = Counter(self.marks[self.head :]), Counter(new.marks[new.head :])
        less = min(mine.total(), others.total())
        return less > 0 and 2 * (mine & others).total() >= less


@dataclass(frozen=True)
class Conversation:
    """What is remembered of one conversation: of its last request the prompt, the receipt and the record's number.

    affinity: names the replica that holds its KV; the same over a restart, and nowhere else.
    """

    name: str
    ledger: Ledger
    session: str | None = None
    model: str | None = None
    affinity: str = field(default_factory=lambda: uuid.uuid4().hex)
    prompt: Rendered | None = None
    receipt: Receipt | None = None
    number: int | None = None
    said: _Line = field(default_factory=_Line)
    sent: _Line = field(default_factory=_Line)


_Owner = tuple[str | None, str | None]


def _owner(session: str | None, model: str | None) -> _Owner:
    """Whose conversations a request may go on from: those of its session's id, without one those of its model."""
    return session, None if session else model


class Conversations:
    """The conversations of an editor, the last used `limit` of them. Not safe for threads: its owner holds a lock."""

    def __init__(self, limit: int, forgotten: Callable[[Conversation], None]) -> None:
        self._limit, self._forgotten = limit, forgotten
        self._known: OrderedDict[str, Conversation] = OrderedDict()
        self._mine: dict[_Owner, OrderedDict[str, None]] = {}  # names, in the same order: a look-up reads no others
        self._numbers = itertools.count(1)

    def __len__(self) -> int:
        return len(self._known)

    def __iter__(self) -> Iterator[Conversation]:
        return iter(list(self._known.values()))

    def get(self, name: str) -> Conversation | None:
        return self._known.get(name)

    def find(
        self, marks: list[str], roles: list[str], *, session: str | None, model: str | None, mode: Mode
    ) -> Conversation:
        """The conversation that a history goes on from; else a fork of the one that it shares most with, or a new one.

        With a session id only conversations of that id count. A history that its harness rewrote is still found.
        """
        new = _Line.of(marks, roles)
        mine = [self._known[name] for name in reversed(self._mine.get(_owner(session, model), OrderedDict()))]
        best, most, goes_on = None, 0, False
        for known in mine:
            for line in (known.said, known.sent):
                shared, follows = line.continued_by(new)
                if (follows, shared) > (goes_on, most):
                    best, most, goes_on = known, shared, follows
                if known.sent is known.said:
                    break
        if best is not None and goes_on:
            return best
        rewritten = [known for known in mine if known.said.rewritten_by(new, named=session is not None)]
        if rewritten:
            return best if best in rewritten else rewritten[0]
        name = self.new_name(session)
        # The first of an id goes where another process would send it; a fork, which may share little, where it may.
        own = session if session is not None and name == f"id {session}" else uuid.uuid4().hex
        if best is None:
            return Conversation(name, Ledger(mode), session, model, own)
        return replace(_fork(best, most, name), affinity=own)

    def new_name(self, session: str | None) -> str:
        """A name that no known conversation has."""
        if session is None:
            return next(name for n in self._numbers if (name := f"#{n}") not in self._known)
        names = (f"id {session}" if n == 1 else f"id {session} #{n}" for n in itertools.count(1))
        return next(name for name in names if name not in self._known)

    def remember(self, conversation: Conversation) -> Conversation:
        """Keep a conversation as the last used; the oldest is forgotten where there are too many."""
        ledger = conversation.ledger
        said = _Line.of(ledger.digests, ledger.roles)
        sent = ledger.sent_line
        made = replace(conversation, said=said, sent=said if sent[0] == said.marks else _Line.of(*sent))
        before = self._known.get(made.name)
        if before is not None and _owner(before.session, before.model) != _owner(made.session, made.model):
            self._mine[_owner(before.session, before.model)].pop(made.name)
        self._known[made.name] = made
        self._known.move_to_end(made.name)
        names = self._mine.setdefault(_owner(made.session, made.model), OrderedDict())
        names[made.name] = None
        names.move_to_end(made.name)
        while len(self._known) > self._limit:
            self._drop(self._known.popitem(last=False)[1])
        return made

    def _drop(self, conversation: Conversation) -> None:
        owner = _owner(conversation.session, conversation.model)
        del self._mine[owner][conversation.name]
        if not self._mine[owner]:
            del self._mine[owner]
        self._forgotten(conversation)

    def change(self, conversation: Conversation) -> None:
        """Put in what changed of a conversation, without using it."""
        self._known[conversation.name] = conversation


def say_forgotten(conversation: Conversation, limit: int) -> None:
    """Warn that a conversation was forgotten, of which `limit` are remembered."""
    warnings.warn(
        f"leyline: forgot conversation {conversation.name!r}, used longest ago of {limit + 1}; if it goes on, its "
        "edits are decided afresh and its prefix breaks. Raise max_conversations to keep more (said once; report() "
        "counts them)",
        stacklevel=3,
    )


def _fork(known: Conversation, shared: int, name: str) -> Conversation:
    """A conversation that shares its first messages with a known one, and their edits: the server holds those."""
    ledger, prompt, receipt = known.ledger.fork(shared), known.prompt, known.receipt
    if prompt is not None:
        spans = prompt.spans[: ledger.sent]
        prompt = Rendered(prompt.ids[: spans[-1][1] if spans else 0], spans)
        if receipt is not None and receipt.approximate_from is not None:
            receipt = receipt if receipt.approximate_from < len(prompt.ids) else None  # what is shared is exact
    return replace(known, name=name, ledger=ledger, prompt=prompt, receipt=receipt)
