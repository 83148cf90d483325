"""Which message answers which call, whatever stands between them.

A result belongs to a call by its id. Ids are not trusted to be unique: small servers give `call_0` to every call, so a
result answers the first call with that id, in the newest message that has an open one. Results without an id answer
the calls of the message before them in order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from leyline.directives import JsonMapping, Message
from leyline.policies.reading.history import each

RESULT_ROLES = ("tool", "function")


@dataclass(slots=True)
class Slot:
    """One call of a message. id: None where it has none. name: the tool's, or an empty string. result: the index of the
    message that answers.
    """

    id: str | None
    name: str
    message_index: int
    result: int | None = None


@dataclass
class Pairing:
    """The native calls of a history.

    slots: the calls of each assistant message that has some, by its index. members: for every assistant message the
    outputs that belong to it, ascending: its results, and those that answer no call and stand behind it.
    lost: outputs that answer no call.
    """

    slots: dict[int, list[Slot]] = field(default_factory=dict)
    members: dict[int, list[int]] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)

    def waiting(self, index: int) -> bool:
        """Whether a call of message `index` has no result."""
        return any(slot.result is None for slot in self.slots.get(index, ()))


def native_calls(message: Message) -> list[JsonMapping]:
    """The calls of a message: `tool_calls`, or the older `function_call`."""
    made = message.get("tool_calls")
    if isinstance(made, (list, tuple)) and made:
        return [call if type(call) is dict or isinstance(call, Mapping) else {} for call in made]
    old = message.get("function_call")
    return [{"function": old}] if isinstance(old, Mapping) else []


def ids_and_names(message: Message) -> tuple[tuple[str | None, str], ...]:
    """Of each native call of a message the id, None where it has none, and the tool's name, or an empty string."""
    found = []
    for call in native_calls(message):
        given, name = call.get("id"), _body(call).get("name")
        found.append((None if given is None or given == "" else str(given), name if isinstance(name, str) else ""))
    return tuple(found)


def arguments_of(call: JsonMapping) -> object:
    """The arguments of a native call as it holds them: mostly JSON in a string."""
    body = _body(call)
    return next((body[key] for key in ("arguments", "args", "input") if key in body), None)


def pair(messages: Sequence[Message], outputs: Iterable[int]) -> Pairing:
    """The calls of a history with their results. outputs: indices of the tool outputs, ascending."""
    found, made = Pairing(), each(ids_and_names, messages)
    is_output = set(outputs)
    by_id: dict[str, list[Slot]] = {}
    unmatched: list[tuple[int, int | None]] = []
    answer: int | None = None
    for index, message in enumerate(messages):
        if message.get("role") == "assistant":
            answer = index
            found.members[index] = []
            if not made[index]:
                continue
            slots = found.slots[index] = [Slot(number, name, index) for number, name in made[index]]
            for slot in slots:
                if slot.id is not None:
                    by_id.setdefault(slot.id, []).append(slot)
        elif index in is_output:
            given = message.get("tool_call_id")
            known = by_id.get(str(given), []) if given is not None and given != "" else []
            if not known:
                unmatched.append((index, answer))
                continue
            taken = _take(known, index)
            if taken is None:  # a second result of one call
                found.lost.append(index)
            owner = (taken or known[-1]).message_index
            found.members[owner].append(index)
    for index, before in unmatched:
        slots = found.slots.get(before, []) if before is not None else []
        if _take_unnamed(slots, messages[index], index) is None:
            found.lost.append(index)
        if before is not None:
            found.members[before].append(index)
    for members in found.members.values():
        members.sort()
    found.lost.sort()
    return found


def _take(slots: Sequence[Slot], index: int) -> Slot | None:
    """Give result `index` to the first open one of the newest message's slots."""
    if len(slots) == 1 and slots[0].result is None:
        slots[0].result = index
        return slots[0]
    free = [slot for slot in slots if slot.result is None]
    if not free:
        return None
    slot = next(slot for slot in free if slot.message_index == free[-1].message_index)
    slot.result = index
    return slot


def _take_unnamed(slots: Sequence[Slot], message: Message, index: int) -> Slot | None:
    """Give a result whose id names no call to a call of the message before it. An id of its own needs one without."""
    named = message.get("tool_call_id") not in (None, "")
    free = [slot for slot in slots if slot.result is None and not (named and slot.id is not None)]
    name = message.get("name")
    slot = next((slot for slot in free if slot.name == name), free[0]) if free else None
    if slot is not None:
        slot.result = index
    return slot


def _body(call: JsonMapping) -> JsonMapping:
    """What holds name and arguments: `function`, `custom`, or the call itself."""
    inner = call.get("function", call.get("custom"))
    return inner if isinstance(inner, Mapping) else call
