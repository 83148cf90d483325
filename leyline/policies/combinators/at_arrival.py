"""at_arrival: shorten an output before the model first sees it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from leyline.directives import Message, MessageEdit, Mode, apply_edits
from leyline.policies.base import BasePolicy, Policy
from leyline.policies.check import policy_edits
from leyline.policies.combinators.inner import as_policy
from leyline.policies.reading.replayed import Replayed
from leyline.policies.reading.seen import first_unseen

_ANSWER: Message = {"role": "assistant", "content": ""}


@dataclass(frozen=True)
class AtArrival(BasePolicy):
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

    combines: ClassVar[bool] = True
    policy: Policy | str

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "policy", as_policy(self.policy, self.name))
        object.__setattr__(self, "_replayed", {mode: Replayed(partial(self._step, mode)) for mode in Mode})

    def transform(self, messages: Sequence[Message], turn: int) -> list[Message]:
        return apply_edits(messages, self.edits(messages, turn))

    def edits(self, messages: Sequence[Message], turn: int, mode: Mode = Mode.AMORTIZE) -> list[MessageEdit]:
        replayed: dict[Mode, Replayed] = self.__dict__["_replayed"]
        return replayed[self.mode or mode].edits(messages, turn)

    def _step(self, mode: Mode, past: Sequence[Message], turn: int, made: Sequence[MessageEdit]) -> list[MessageEdit]:
        new = first_unseen(past)
        if new >= len(past):
            return []
        asked = policy_edits(as_policy(self.policy, self.name), [*past, _ANSWER], turn + 1, mode)
        return [e for e in asked if new <= e.message_index < len(past) and e.replacement is not None and not e.insert]
