"""freeze: edit in rare, large batches, far back, and never the same message twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from leyline.directives import Message, MessageEdit, Mode
from leyline.policies.combinators.replaying import Made, Replaying
from leyline.policies.settings import check_int


@dataclass(frozen=True)
class Freeze(Replaying):
    """Make a policy's edits every so many turns, behind the newest answers only, and leave them as they are for good.

    Frozen compaction: what an edit policy has to beat on an ordinary prefix cache. The prefix breaks once a batch and
    stays in between; what was edited is not edited again.

    Parameters
    ----------
    policy : policy or str
        Whose edits.
    every : int
        Turns between two batches.
    behind : int
        Messages from this many answers back on are left alone.

    Examples
    --------
    >>> history = [{"role": "user", "content": "x"}]
    >>> for k in range(6):
    ...     history += [{"role": "assistant", "content": "a"}, {"role": "user", "content": "0123456789" * 20}]
    >>> policy = Freeze("truncate_older_than(n=0, max_chars=60)", every=4, behind=2)
    >>> [len(policy.edits(history[: 2 * turn + 1], turn)) for turn in range(7)]
    [0, 0, 0, 0, 2, 2, 2]
    """

    reads_only: ClassVar[bool] = True
    every: int = 10
    behind: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int(self, "every", minimum=1)
        check_int(self, "behind", minimum=0)

    def new_edits(self, past: Sequence[Message], turn: int, made: Made, mode: Mode) -> list[MessageEdit]:
        if turn == 0 or turn % self.every:
            return []
        answers = [place for place, message in enumerate(past) if message.get("role") == "assistant"]
        if len(answers) < self.behind:
            return []
        bound = answers[-self.behind] if self.behind else len(past)
        frozen = {(edit.message_index, edit.insert) for edit in made}
        asked = self.asked(past, turn, mode)
        return [e for e in asked if e.message_index < bound and (e.message_index, e.insert) not in frozen]
