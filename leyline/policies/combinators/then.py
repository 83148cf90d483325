"""then: one policy after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from leyline.directives import Message, MessageEdit, Mode, apply_edits
from leyline.policies.base import BasePolicy, Policy, as_mode
from leyline.policies.check import policy_edits
from leyline.policies.combinators.inner import as_policy
from leyline.policies.draft import Draft
from leyline.policies.errors import PolicyError
from leyline.policies.reading.history import History


@dataclass(frozen=True, init=False)
class Then(BasePolicy):
    """Each policy edits what the one before it left.

    An edit keeps the mode of the policy that made it; where several edit one message, a FORGET holds.

    Parameters
    ----------
    *policies : policy or str
        Two or more, in order.

    Examples
    --------
    >>> Then("truncate_older_than(n=0, max_chars=2)", "redact(pattern='k')").transform(
    ...     [{"role": "user", "content": "k"}, {"role": "tool", "content": "x" * 90}], turn=1)
    [{'role': 'user', 'content': '[redacted]'}, {'role': 'tool', 'content': 'x\\n[... 88 characters removed ...]\\nx'}]
    """

    combines: ClassVar[bool] = True
    reads_only: ClassVar[bool] = True
    policies: tuple[Policy, ...] = field(default=())

    def __init__(self, *policies: Policy | str, mode: Mode | None = None) -> None:
        if not policies:
            raise PolicyError("then: needs at least one policy; write then(drop_stale, truncate_older_than(n=2))")
        object.__setattr__(self, "policies", tuple(as_policy(p, "then") for p in policies))
        object.__setattr__(self, "mode", None if mode is None else as_mode(mode, "then"))

    def transform(self, messages: Sequence[Message], turn: int) -> list[Message]:
        return apply_edits(messages, self.edits(messages, turn))

    def edits(self, messages: Sequence[Message], turn: int, mode: Mode = Mode.AMORTIZE) -> list[MessageEdit]:
        draft, history = Draft(messages), History.of(messages)
        for policy in self.policies:
            edits = policy_edits(policy, history, turn, self.mode or mode)
            if edits:
                draft.apply(edits)
                history = history.other(draft.messages)
        return draft.edits()

    def __str__(self) -> str:
        return f"then({', '.join(map(str, self.policies))})"
