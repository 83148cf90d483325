"""The edits of any policy, checked: what a session asks each turn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from leyline.directives import LeylineError, Message, MessageEdit, Mode, apply_edits
from leyline.directives.clone import clone
from leyline.policies.base import BasePolicy, Policy, diff_edits
from leyline.policies.errors import PolicyError, one_line
from leyline.policies.reading.calls import groups

_FIX = "drop or keep a call together with its results, or shorten the result instead"
_KEEP = 'return {**message, "content": ...} or truncate(message, max_chars=...)'


def policy_edits(
    policy: Policy, messages: Sequence[Message], turn: int, mode: Mode = Mode.AMORTIZE
) -> list[MessageEdit]:
    """What `policy` edits in `messages`, ascending, in indices of `messages`. Does not change them.

    mode: the contract of edits for which the policy sets none.
    Raises PolicyError, which names the policy, if it fails, breaks a pair of tool call and result, changes the role or
    `tool_call_id` of a message, or gives it a content that is neither text, None nor a list of parts.
    """
    try:
        edits = _ask(policy, messages, turn, mode)
        result = apply_edits(messages, edits)
    except PolicyError:
        raise
    except LeylineError as error:
        raise PolicyError(f"policy {policy.name}: {error}") from error
    except (Exception, SystemExit) as error:
        raise PolicyError(
            f"policy {policy.name} failed at turn {turn}: {one_line(error)}; test it with `leyline policy test`"
        ) from error
    for edit in edits:
        if edit.replacement is not None:
            old = None if edit.insert else messages[edit.message_index]
            _check_message(f"policy {policy.name}", edit, old)
    _check_pairs(policy, messages, edits, result)
    return edits


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


def _check_message(policy: str, edit: MessageEdit, old: Message | None) -> None:
    """What an edit puts in is a chat message, and fits the place of the message `old`, if it replaces one."""
    new, place = edit.replacement, f"message {edit.message_index}"
    if not (isinstance(new, dict) and isinstance(new.get("role"), str)):
        raise PolicyError(f"{policy}: what it puts at {place} is no chat message; return a dict with role and content")
    content = new.get("content")
    wrong = None
    if old is not None and new["role"] != old.get("role"):
        wrong = f"puts a message of role {new['role']!r} in place of one of role {old.get('role')!r}"
    elif old is not None and new.get("tool_call_id") != old.get("tool_call_id"):
        wrong = "replaces the message without its tool_call_id"
    elif (old is None or content != old.get("content")) and not _is_content(content):
        wrong = f"content is {type(content).__name__}, which is neither text, None nor a list of parts (dicts)"
    if wrong is not None:
        raise PolicyError(f"{policy}: {place}: {wrong}; {_KEEP}")


def _is_content(content: Any) -> bool:
    if isinstance(content, list):
        return all(isinstance(part, dict) for part in content)
    return content is None or isinstance(content, str)


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
