"""What a history was at an earlier turn."""

from __future__ import annotations

from collections.abc import Sequence

from leyline.directives import Message
from leyline.policies.reading.history import History


def history_at(messages: Sequence[Message], turn: int, then: int) -> Sequence[Message]:
    """What the history of `turn` was at the earlier turn `then`: everything before the answers given since."""
    answers = [i for i, m in enumerate(messages) if m.get("role") == "assistant"]
    since = turn - then
    if not 0 < since <= len(answers):
        return messages
    past = messages[: answers[-since]]
    return messages.other(past) if type(messages) is History else past
