"""with_mode: the same edits under another contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from leyline.directives import Message, MessageEdit, Mode
from leyline.policies.base import BasePolicy, Policy, as_mode
from leyline.policies.check import policy_edits
from leyline.policies.combinators.inner import as_policy
from leyline.policies.errors import PolicyError


@dataclass(frozen=True, init=False)
class WithMode(BasePolicy):
    """Run a policy's edits as AMORTIZE, FORGET or AUTO, whatever the session's mode.

    A mode that an inner policy sets for itself wins: `redact` stays FORGET inside a `then`.

    Parameters
    ----------
    policy : policy or str
        Whose edits.
    mode : str
        `'amortize'`, `'forget'` or `'auto'`.

    Examples
    --------
    >>> policy = WithMode("truncate_older_than(n=0, max_chars=4)", mode="forget")
    >>> policy.edits([{"role": "tool", "content": "0123456789" * 9}], turn=1)[0].mode.value
    'forget'
    """

    combines: ClassVar[bool] = True
    reads_only: ClassVar[bool] = True
    policy: Policy = field(kw_only=True)

    def __init__(self, policy: Policy | str, mode: Mode | str) -> None:
        object.__setattr__(self, "policy", as_policy(policy, "with_mode"))
        object.__setattr__(self, "mode", as_mode(mode, "with_mode"))
        own = getattr(self.policy, "mode", None)
        if own not in (None, self.mode):
            raise PolicyError(f"with_mode: {self.policy.name} already sets mode {own.value!r}; leave with_mode out")

    def transform(self, messages: Sequence[Message], turn: int) -> list[Message]:
        return self.policy.transform(messages, turn)

    def edits(self, messages: Sequence[Message], turn: int, mode: Mode = Mode.AMORTIZE) -> list[MessageEdit]:
        return policy_edits(self.policy, messages, turn, self.mode or mode)
