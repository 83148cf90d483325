"""What a policy proposes for one turn, as the ledger takes it: the same for a session and for the plug-in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from leyline.directives import Message, MessageEdit, Mode
from leyline.policies import Policy, keep_all, policy_edits


def proposals(policy: Policy, messages: Sequence[Message], turn: int, mode: Mode, *, honest: bool) -> list[MessageEdit]:
    """The policy's edits. The ledger copies those that it takes: a policy may change later what it returned.

    honest: every edit is a FORGET, whatever mode the policy names. Raises PolicyError.
    """
    if type(policy) is keep_all:
        return []
    edits = policy_edits(policy, messages, turn, mode)
    return [replace(edit, mode=Mode.FORGET) for edit in edits] if honest else edits
