"""The edits of any policy, checked: what a session asks each turn."""

from __future__ import annotations

from collections.abc import Sequence

from leyline.directives import LeylineError, Message, MessageEdit, Mode
from leyline.directives.clone import clone
from leyline.policies.base import BasePolicy, ChangePolicy, Policy, diff_edits, reads_only
from leyline.policies.errors import PolicyError, one_line
from leyline.policies.law import check_history, lawful
from leyline.policies.reading.history import History


def policy_edits(
    policy: Policy, messages: Sequence[Message], turn: int, mode: Mode = Mode.AMORTIZE
) -> list[MessageEdit]:
    """What `policy` edits in `messages`, ascending, in indices of `messages`. Does not change them.

    mode: the contract of edits for which the policy sets none.
    Edits that a policy may not make yet, or that would lengthen a message, are left out: see `leyline.policies.law`.
    Raises PolicyError, which names the policy, if it fails, breaks a pair of tool call and result, changes the role or
    `tool_call_id` of a message, or gives it a content that is neither text, None nor a list of parts; and if the
    history is in a form that policies cannot read.
    """
    if isinstance(policy, BasePolicy) and policy.blind:
        return []
    checks = isinstance(policy, ChangePolicy) and type(policy).edits is ChangePolicy.edits
    given, messages = messages, History.of(messages)
    if not checks:
        check_history(policy.name, messages)
    try:
        # What is remembered of a history is for policies that leave it alone.
        shared = checks or reads_only(policy)
        edits = _ask(policy, messages if shared else list(given), turn, mode)
        if checks:
            return edits
        own = getattr(policy, "mode", None)
        return lawful(
            policy.name,
            messages,
            edits,
            forgets=mode is not Mode.FORGET or own is Mode.FORGET,
            appends=isinstance(policy, BasePolicy) and policy.appends,
            checked=isinstance(policy, BasePolicy) and policy.combines,
        )
    except PolicyError:
        raise
    except LeylineError as error:
        raise PolicyError(f"policy {policy.name}: {error}") from error
    except (Exception, SystemExit) as error:
        raise PolicyError(
            f"policy {policy.name} failed at turn {turn}: {one_line(error)}; test it with `leyline policy test`"
        ) from error


def _ask(policy: Policy, messages: Sequence[Message], turn: int, mode: Mode) -> list[MessageEdit]:
    if isinstance(policy, BasePolicy):
        return policy.edits(messages, turn, mode)
    # A foreign policy may edit in place; it gets its own copy, so that the diff still sees the change.
    result = policy.transform(clone(list(messages)), turn)
    if not isinstance(result, list) or not all(isinstance(m, dict) for m in result):
        raise PolicyError(
            f"policy {policy.name}: transform returned {type(result).__name__}; return the list of messages"
        )
    return diff_edits(messages, result, mode)
