"""The edits of any policy, checked: what a session asks each turn."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from leyline.directives import LeylineError, Message, MessageEdit, Mode, apply_edits
from leyline.policies.base import BasePolicy, Policy, diff_edits
from leyline.policies.errors import PolicyError, one_line
from leyline.policies.history import groups

_FIX = "drop or keep a call together with its results, or shorten the result instead"


def policy_edits(
    policy: Policy, messages: Sequence[Message], turn: int, mode: Mode = Mode.AMORTIZE
) -> list[MessageEdit]:
    """What `policy` edits in `messages`, ascending, in indices of `messages`. Does not change them.

    mode: the contract of edits for which the policy sets none.
    Raises PolicyError, which names the policy, if it fails or breaks a pair of tool call and result.
    """
    try:
        edits = _ask(policy, messages, turn, mode)
        result = apply_edits(messages, edits)
    except PolicyError:
        raise
    except LeylineError as error:
        raise PolicyError(f"policy {policy.name}: {error}") from error
    except Exception as error:
        raise PolicyError(
            f"policy {policy.name} failed at turn {turn}: {one_line(error)}; test it with `leyline policy test`"
        ) from error
    for edit in edits:
        new = edit.replacement
        if new is not None and not (isinstance(new, dict) and isinstance(new.get("role"), str)):
            raise PolicyError(
                f"policy {policy.name}: what it puts at message {edit.message_index} is no chat message; "
                "return a dict with role and content"
            )
    _check_pairs(policy, messages, edits, result)
    return edits


def _ask(policy: Policy, messages: Sequence[Message], turn: int, mode: Mode) -> list[MessageEdit]:
    if isinstance(policy, BasePolicy):
        return policy.edits(messages, turn, mode)
    # A foreign policy may edit in place; it gets its own copy, so that the diff still sees the change.
    result = policy.transform(copy.deepcopy(list(messages)), turn)
    if not isinstance(result, list) or not all(isinstance(m, dict) for m in result):
        raise PolicyError(
            f"policy {policy.name}: transform returned {type(result).__name__}; return the list of messages"
        )
    return diff_edits(messages, result, mode)


def _check_pairs(
    policy: Policy, messages: Sequence[Message], edits: Sequence[MessageEdit], result: Sequence[Message]
) -> None:
    dropped = {e.message_index for e in edits if e.replacement is None and not e.insert}
    for group in groups(messages) if dropped else []:
        gone = dropped.intersection(group)
        if len(group) == 1 or not gone or len(gone) == len(group):
            continue
        if group[0] in gone:
            lost, left = f"call in message {group[0]}", f"keeps its result in message {min(set(group) - gone)}"
        else:
            lost, left = f"result in message {min(gone)}", f"keeps its call in message {group[0]}"
        raise PolicyError(f"policy {policy.name} drops the tool {lost} but {left}; {_FIX}")
    if edits:
        known = _broken(messages)
        for problem in _broken(result):
            if problem not in known:
                raise PolicyError(f"policy {policy.name}: {problem}; {_FIX}")


def _broken(messages: Sequence[Message]) -> list[str]:
    """Native pairs that do not match: results no call directly before asks for, and calls left without a result."""
    problems: list[str] = []
    open_ids: set[str] = set()
    for message in messages:
        role, call_id = message.get("role"), message.get("tool_call_id")
        if role == "tool":
            if call_id is not None and str(call_id) not in open_ids:
                problems.append(f"the tool result {call_id!r} no longer follows its call")
            open_ids.discard(str(call_id))
            continue
        problems += [f"the tool call {open_id!r} lost its result" for open_id in sorted(open_ids)]
        calls = message.get("tool_calls") if role == "assistant" else None
        made = calls if isinstance(calls, list) else []
        open_ids = {str(call.get("id")) for call in made if isinstance(call, dict) and call.get("id") is not None}
    return problems
