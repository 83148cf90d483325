"""What a policy proposes for one turn, as the ledger takes it: the same for a session and for the plug-in."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

from leyline.directives import Message, MessageEdit, Mode
from leyline.policies import Policy, policy_edits


def proposals(policy: Policy, messages: Sequence[Message], turn: int, mode: Mode, *, honest: bool) -> list[MessageEdit]:
    """Copies of the policy's edits: it may change later what it returned, and what was sent stays.

    honest: every edit is a FORGET, whatever mode the policy names. Raises PolicyError.
    """
    edits = copy.deepcopy(policy_edits(policy, messages, turn, mode))
    return [replace(edit, mode=Mode.FORGET) for edit in edits] if honest else edits
