"""when: apply a policy only under a condition, or only every few turns."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from leyline.directives import Message, MessageEdit, Mode, apply_edits
from leyline.policies.base import BasePolicy, Policy
from leyline.policies.check import policy_edits
from leyline.policies.combinators.inner import as_policy
from leyline.policies.errors import PolicyError
from leyline.policies.reading.history import each
from leyline.policies.reading.sizes import approximate_tokens
from leyline.policies.reading.turns import history_at
from leyline.policies.settings import check_int


@dataclass(frozen=True)
class When(BasePolicy):
    """Apply a policy only when every condition holds.

    Parameters
    ----------
    policy : policy or str
        What to apply.
    min_turn : int
        From this turn on; the first turn is 0.
    over : int
        Only while the unedited history has more than so many tokens (estimated as for `clear_over`).
    every : int
        Look at the history every so many turns only, as it was then: edits are made in batches and stay in between.
    condition : callable
        `condition(messages, turn) -> bool`, from Python only. Must be pure.

    Examples
    --------
    >>> history = [{"role": "tool", "content": "0123456789" * 9}]
    >>> policy = When("truncate_older_than(n=0, max_chars=4)", min_turn=3)
    >>> policy.transform(history, turn=2) == history, policy.transform(history, turn=3) == history
    (True, False)
    """

    combines: ClassVar[bool] = True
    reads_only: ClassVar[bool] = True
    policy: Policy | str
    min_turn: int = 0
    over: int = 0
    every: int = 1
    condition: Callable[[Sequence[Message], int], bool] | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "policy", as_policy(self.policy, self.name))
        check_int(self, "min_turn", minimum=0)
        check_int(self, "over", minimum=0)
        check_int(self, "every", minimum=1)
        if self.condition is not None and not callable(self.condition):
            raise PolicyError("when: condition must be a function of (messages, turn)")

    def transform(self, messages: Sequence[Message], turn: int) -> list[Message]:
        return apply_edits(messages, self.edits(messages, turn))

    def edits(self, messages: Sequence[Message], turn: int, mode: Mode = Mode.AMORTIZE) -> list[MessageEdit]:
        then = turn - turn % self.every
        past = history_at(messages, turn, then)
        if then < self.min_turn or (self.over and sum(each(approximate_tokens, past)) <= self.over):
            return []
        if self.condition is not None and not self.condition(list(past), then):
            return []
        return policy_edits(as_policy(self.policy, self.name), past, then, self.mode or mode)
