"""What an edit may do, whatever policy asks for it. This is the one place that says so.

- A history that policies cannot read is refused by name.
- What the model has not seen yet, all that stands behind its last answer but instructions, is not edited.
- A message never gets longer.
- A call and its results go together or stay together; a call that waits for its result stays.
- Thinking that an API has signed stays as it came, or goes whole.

An edit that breaks the second or third rule, or drops a call that waits, is not made: it may well be right a turn
later. What breaks the others is an error that names the policy. A policy that names FORGET for itself, as `redact`
does, takes out what must not be there: it may edit what is unseen and put a longer text in its place.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from leyline.directives import Message, MessageEdit, Mode, apply_edits
from leyline.directives.content import THOUGHTS, content_text, is_signed
from leyline.directives.messages import group_edits
from leyline.policies.errors import PolicyError
from leyline.policies.reading.calls import pairing
from leyline.policies.reading.history import each
from leyline.policies.reading.pairing import Pairing
from leyline.policies.reading.plain import foreign
from leyline.policies.reading.seen import first_unseen
from leyline.policies.reading.sizes import weight

_FIX = "drop or keep a call together with its results, or shorten the result instead"
_KEEP = 'return {**message, "content": ...} or truncate(message, max_chars=...)'
_INSTRUCTIONS = ("system", "developer")
_THOUGHTS = frozenset(THOUGHTS)


def check_history(policy: str, messages: Sequence[Message]) -> None:
    """Raise PolicyError, which names `policy`, for a history in a form that policies cannot read."""
    problem = foreign(messages)
    if problem is not None:
        raise PolicyError(f"policy {policy}: {problem}")


def lawful(
    policy: str,
    messages: Sequence[Message],
    edits: Sequence[MessageEdit],
    *,
    forgets: bool = False,
    appends: bool = False,
    checked: bool = False,
) -> list[MessageEdit]:
    """The edits that may be made, of those that `policy` asks for. Raises PolicyError, EditError.

    forgets: edits with the mode FORGET are the policy's own, and may touch what is unseen and lengthen.
    appends: so may edits that add to the end of a message. checked: these edits come from policies that were checked.
    """
    if not edits:
        return []
    for edit in edits:
        if edit.replacement is not None:
            _check_message(policy, edit, messages)
    made = list(edits)
    if not checked:
        unseen = first_unseen(messages)
        made = [e for e in edits if _may(e, messages, unseen, forgets, appends)]
    drops = any(edit.replacement is None and not edit.insert for edit in edits)
    pairs = pairing(messages) if drops else Pairing()
    made = _whole(pairs, edits, made)
    group_edits(len(messages), made)
    _check_pairs(policy, messages, pairs, made)
    return made


def _may(edit: MessageEdit, messages: Sequence[Message], unseen: int, forgets: bool, appends: bool) -> bool:
    """Whether an edit leaves alone what the model has not seen, and makes nothing longer."""
    if edit.insert or (forgets and edit.mode is Mode.FORGET):
        return True
    index, new = edit.message_index, edit.replacement
    if not 0 <= index < len(messages):
        return True  # an error of its own
    old = messages[index]
    if appends and new is not None and content_text(new).startswith(content_text(old)):
        return True
    if index >= unseen and old.get("role") not in _INSTRUCTIONS:
        return False
    return new is None or _no_longer(new, old)


def _no_longer(new: Message, old: Message) -> bool:
    """Whether a message weighs no more than the one in whose place it stands."""
    text, before = new.get("content"), old.get("content")
    if type(text) is str and type(before) is str and new.keys() == old.keys():
        for key, value in new.items():
            if key != "content" and value is not old[key] and not (type(value) is str and value == old[key]):
                break
        else:
            return len(text) <= len(before)  # nothing else differs
    return weight(new) <= weight(old)


def _whole(pairs: Pairing, asked: Sequence[MessageEdit], made: Sequence[MessageEdit]) -> list[MessageEdit]:
    """Without the drops of exchanges that wait for a result, or of which a part must stay."""
    wanted = {e.message_index for e in asked if e.replacement is None and not e.insert}
    if not wanted:
        return list(made)
    kept = {e.message_index for e in made if e.replacement is None and not e.insert}
    stays: set[int] = set()
    for index, members in pairs.members.items():
        whole = {index, *members}
        if not wanted.isdisjoint(whole) and (pairs.waiting(index) or not whole & wanted <= kept):
            stays |= whole
    return [e for e in made if e.insert or e.replacement is not None or e.message_index not in stays]


def _check_message(policy: str, edit: MessageEdit, messages: Sequence[Message]) -> None:
    """What an edit puts in is a chat message, and fits the place of the message that it replaces, if any."""
    new = edit.replacement
    if not (isinstance(new, dict) and isinstance(new.get("role"), str)):
        raise PolicyError(
            f"policy {policy}: what it puts at message {edit.message_index} is no chat message; "
            "return a dict with role and content"
        )
    old = None if edit.insert or not 0 <= edit.message_index < len(messages) else messages[edit.message_index]
    content = new.get("content")
    if old is not None and type(content) is str and not _may_part(edit, messages) and not _may_sign(new):
        return  # nothing of what is looked at below
    wrong = None
    if old is not None and new["role"] != old.get("role"):
        wrong = f"puts a message of role {new['role']!r} in place of one of role {old.get('role')!r}"
    elif old is not None and new.get("tool_call_id") != old.get("tool_call_id"):
        wrong = "replaces the message without its tool_call_id"
    elif (old is None or content != old.get("content")) and not _is_content(content, old):
        wrong = f"content is {type(content).__name__}, which is neither text, None nor a list of parts (dicts)"
    elif old is not None and _may_sign(new) and any(thought not in _signed(old) for thought in _signed(new)):
        wrong = "changes thinking that its API has signed; leave it as it came, or take it out whole"
    if wrong is not None:
        raise PolicyError(f"policy {policy}: message {edit.message_index}: {wrong}; {_KEEP}")


def _is_content(content: Any, old: Message | None) -> bool:
    if not isinstance(content, list):
        return content is None or isinstance(content, str)
    before = old.get("content") if old is not None else None
    texts = isinstance(before, list) and any(isinstance(part, str) for part in before)
    return all(isinstance(part, dict) or (texts and isinstance(part, str)) for part in content)


def _may_sign(message: Message) -> bool:
    return type(message.get("content")) is list or not _THOUGHTS.isdisjoint(message)


def _signed(message: Message) -> list[str]:
    """The pieces of thinking that carry a signature, as JSON."""
    pieces = [piece for key in ("content", *THOUGHTS) if isinstance(message.get(key), list) for piece in message[key]]
    return [json.dumps(piece, sort_keys=True, default=repr) for piece in pieces if is_signed(piece)]


def _check_pairs(
    policy: str,
    messages: Sequence[Message],
    pairs: Pairing,
    edits: Sequence[MessageEdit],
) -> None:
    dropped = {e.message_index for e in edits if e.replacement is None and not e.insert}
    if dropped:
        for index, members in pairs.members.items():
            gone, whole = dropped & {index, *members}, {index, *members}
            if not members or not gone or gone == whole:
                continue
            if index in gone:
                lost, left = f"call in message {index}", f"keeps its result in message {min(whole - gone)}"
            else:
                lost, left = f"result in message {min(gone)}", f"keeps its call in message {index}"
            raise PolicyError(f"policy {policy} drops the tool {lost} but {left}; {_FIX}")
    if not any(_may_part(edit, messages) for edit in edits):
        return
    ends = each(_ends, messages)
    known = Counter(_broken(ends))
    given = {id(message): end for message, end in zip(messages, ends, strict=True)}
    remains = [given.get(id(message)) or _ends(message) for message in apply_edits(messages, edits)]
    for problem, count in Counter(_broken(remains)).items():
        if count > known[problem]:
            raise PolicyError(f"policy {policy}: {problem}; {_FIX}")


def _may_part(edit: MessageEdit, messages: Sequence[Message]) -> bool:
    """Whether an edit may part a call from its result: one that keeps a message's calls and ids cannot."""
    new = edit.replacement
    if edit.insert or new is None or not 0 <= edit.message_index < len(messages):
        return True
    old = messages[edit.message_index]
    same = new.get("tool_call_id") == old.get("tool_call_id") and new.get("role") == old.get("role")
    return not same or new.get("tool_calls") != old.get("tool_calls")


class _Ends(NamedTuple):
    """Of a message: whether it is a result, the id that it answers, as text and as an error shows it, and the ids of
    the calls that it makes.
    """

    result: bool
    answers: str
    shown: str | None
    made: tuple[str, ...]


def _ends(message: Message) -> _Ends:
    role, call_id = message.get("role"), message.get("tool_call_id")
    if role == "tool":
        return _Ends(True, str(call_id), None if call_id is None else repr(call_id), ())
    calls = message.get("tool_calls") if role == "assistant" else None
    made = calls if isinstance(calls, (list, tuple)) else []
    ids = (str(call["id"]) for call in made if isinstance(call, dict) and call.get("id") is not None)
    return _Ends(False, "", None, tuple(ids))


def _broken(messages: Sequence[_Ends]) -> Iterator[str]:
    """Native pairs that do not match: results no call directly before asks for, and calls left without a result."""
    open_ids: list[str] = []
    for result, answers, shown, made in messages:
        if result:
            if answers in open_ids:
                open_ids.remove(answers)
            elif shown is not None:
                yield f"the tool result {shown} no longer follows its call"
            continue
        for open_id in sorted(open_ids):
            yield f"the tool call {open_id!r} lost its result"
        open_ids = list(made)
