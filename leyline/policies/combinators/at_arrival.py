"""at_arrival: shorten an output before the model first sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from leyline.directives import Message, MessageEdit, Mode
from leyline.policies.combinators.replaying import Made, Replaying
from leyline.policies.reading.history import History
from leyline.policies.reading.seen import first_unseen

_ANSWER: Message = {"role": "assistant", "content": ""}


@dataclass(frozen=True)
class AtArrival(Replaying):
    """Ask a policy about new outputs as if the model had answered them already, and keep what it says for good.

    Filter at ingestion: nothing that a server holds is ever edited, so that the prefix never breaks and there is
    nothing to splice; what is cut, the model has never seen. The policy has to want to edit the newest outputs:
    `truncate_older_than(n=0, ...)`, not `n=2`. Edits of what was seen before, and drops, are not made.

    Parameters
    ----------
    policy : policy or str
        What to ask.

    Examples
    --------
    >>> history = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "I look."}]
    >>> history += [{"role": "user", "content": "0123456789" * 20}]
    >>> policy = AtArrival("truncate_older_than(n=0, max_chars=60)")
    >>> [edit.message_index for edit in policy.edits(history, turn=1)]
    [2]
    """

    reads_only: ClassVar[bool] = True

    def new_edits(self, past: Sequence[Message], turn: int, made: Made, mode: Mode) -> list[MessageEdit]:
        new = first_unseen(past)
        if new >= len(past):
            return []
        asked = self.asked(History.of(past).other([*past, _ANSWER]), turn + 1, mode)
        return [e for e in asked if new <= e.message_index < len(past) and e.replacement is not None and not e.insert]
