"""What a server remembers of sessions, so that it can find the edits of a client that has no tokenizer.

Per tenant and session: the token ids held after the last turns, and the lineage that they belong to. Nothing here is
trusted: what is found becomes directives like a client's own, verified against the cache before anything is moved, so
that a memory which is wrong, stale or lost costs a hit and never an answer. Bounded in tokens and by age, and age is
counted in requests, not in seconds: ranks that see the same requests remember the same.
"""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from leyline.backends.contract import TurnInput
from leyline.directives import EditScript, FoundEdit, Mode, Receipt, find_script
from leyline.directives.common import common_prefix

MAX_TOKENS = 16_000_000
"""Tokens of all sessions together; eight bytes each."""
MAX_AGE = 200_000
"""A session is forgotten that many requests after its last one."""
BRANCHES = 4
"""Sequences of one session: a title or a sub-agent that goes by its id must not take the place of its conversation."""


@dataclass(frozen=True, slots=True)
class Held:
    """A sequence that the server holds: the ids of a prompt and its answer, and the lineage it ended in."""

    ids: array[int]
    lineage: str | None = None
    lineage_start: int | None = None


class Found(NamedTuple):
    """What was found for a prompt. held: the sequence it was compared with, or None where nothing is remembered."""

    held: Held | None
    script: EditScript

    @property
    def continued(self) -> Held | None:
        """The sequence that the prompt continues: it still has at least half of it."""
        gone = sum(d.end - d.start for d in self.script)
        return self.held if self.held is not None and 2 * gone <= len(self.held.ids) else None

    @property
    def edits(self) -> tuple[FoundEdit, ...]:
        """The found directives as a receipt tells them."""
        return tuple(FoundEdit(d.start, d.end, len(d.replacement), d.mode) for d in self.script)


@dataclass
class _Session:
    age: int
    branches: list[Held] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        return sum(len(held.ids) for held in self.branches)


class SessionMemory:
    """The sequences last held, by tenant and session; the least recently used are forgotten first. Not thread-safe.

    max_tokens: of all sessions together; a longer sequence is not remembered. max_age: requests.
    """

    def __init__(self, max_tokens: int = MAX_TOKENS, max_age: int = MAX_AGE) -> None:
        self._max_tokens, self._max_age = max_tokens, max_age
        self._sessions: OrderedDict[tuple[str | None, str], _Session] = OrderedDict()
        self._tokens = self._clock = 0

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def tokens(self) -> int:
        """How many token ids are remembered."""
        return self._tokens

    def find(self, tenant: str | None, session: str, prompt: Sequence[int], allow: Mode) -> Found:
        """The edits that lead from what is held for a session to `prompt`. Changes nothing."""
        known = self._sessions.get((tenant, session))
        ids = prompt if isinstance(prompt, array) else array("q", prompt)
        shared, held = 0, None
        for branch in known.branches if known is not None else ():
            common = common_prefix(branch.ids, ids)
            if common > shared:
                shared, held = common, branch
        return Found(held, EditScript(()) if held is None else find_script(held.ids, ids, allow))

    def remember(self, tenant: str | None, session: str, held: Held, came_from: Held | None = None) -> None:
        """Keep what is held now. came_from: the sequence that it continues, and whose place it takes."""
        key = (tenant, session)
        self._clock += 1
        known = self._sessions.pop(key, None) or _Session(0)
        self._tokens -= known.tokens
        branches = [branch for branch in known.branches if branch is not came_from]
        known.branches = [*branches, held][-BRANCHES:]
        known.age = self._clock
        if known.tokens <= self._max_tokens:
            self._sessions[key] = known
            self._tokens += known.tokens
        while self._sessions:
            oldest = next(iter(self._sessions.values()))
            if self._tokens <= self._max_tokens and self._clock - oldest.age < self._max_age:
                break
            self._sessions.popitem(last=False)
            self._tokens -= oldest.tokens

    def clear(self) -> None:
        """Forget everything."""
        self._sessions.clear()
        self._tokens = 0


def with_found(memory: SessionMemory, turn: TurnInput, prompt: Sequence[int]) -> tuple[TurnInput, Found | None]:
    """The turn with the edits found for it, where it allows that; what was found goes to `remember_turn`."""
    if turn.allow is None:
        return turn, None
    found = memory.find(turn.tenant, turn.session_id, prompt, turn.allow)
    held = found.held
    if held is None:
        return turn, found
    known = replace(
        turn,
        source=tuple(held.ids),
        script=found.script,
        lineage=None if turn.honest else held.lineage,
        lineage_start=None if turn.honest else held.lineage_start,
    )
    return known, found


def remember_turn(
    memory: SessionMemory, turn: TurnInput, found: Found | None, ids: Sequence[int], receipt: Receipt
) -> Receipt:
    """Keep what a served turn left, and say in its receipt what was found. ids: the prompt and its answer."""
    if found is None:
        return receipt
    now = Held(array("q", ids), receipt.lineage, receipt.approximate_from)
    memory.remember(turn.tenant, turn.session_id, now, found.continued)
    return replace(receipt, held=0 if found.held is None else len(found.held.ids), found=found.edits)
