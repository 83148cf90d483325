"""clear_over: few large clears instead of many small ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from leyline.directives import Message
from leyline.policies.base import ChangePolicy
from leyline.policies.reading.calls import observations
from leyline.policies.reading.history import each
from leyline.policies.reading.sizes import approximate_tokens
from leyline.policies.reading.text import stub
from leyline.policies.settings import check_int

NOTE = "[output cleared to save context]"


@dataclass(frozen=True)
class ClearOver(ChangePolicy):
    """When the history has outgrown `trigger`, clear all older outputs at once.

    A clear happens before a turn, and only if it frees at least `at_least`; what was cleared stays cleared, so the
    history has to outgrow `trigger` again before the next one. Tokens are estimated at four characters each, and 1,000
    for an image or another part that is not text. In a history without tool calls, a plain chat included, each user
    message behind an answer is an output. Idempotent.

    Parameters
    ----------
    trigger : int
        Estimated tokens of the whole history above which to clear.
    keep : int
        How many of the newest outputs stay whole.
    at_least : int
        Estimated tokens that a clear must free to be worth it.

    Examples
    --------
    >>> history = [{"role": "tool", "content": "x" * 800} for _ in range(4)]
    >>> [m["content"][:8] for m in ClearOver(trigger=500, keep=1, at_least=100).transform(history, turn=4)]
    ['[output ', '[output ', '[output ', 'xxxxxxxx']
    """

    reads_only: ClassVar[bool] = True
    trigger: int = 8000
    keep: int = 3
    at_least: int = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int(self, "trigger", minimum=1)
        check_int(self, "keep", minimum=0)
        check_int(self, "at_least", minimum=0)

    def changes(self, messages: Sequence[Message], turn: int) -> Mapping[int, Message | None]:
        # Which clears happened depends on the past only: replaying it makes the policy a pure function without memory.
        outputs = set(observations(messages))
        sizes = each(approximate_tokens, messages)
        cleared: dict[int, Message | None] = {}
        open_outputs: list[int] = []
        size, answered = 0, any(m.get("role") == "assistant" for m in messages)
        seen = 0 if answered else len(messages)
        for index in range(len(messages) + 1):
            if index == len(messages) or messages[index].get("role") == "assistant":
                if size > self.trigger:
                    # What stands behind the answer before this turn has not been read yet.
                    old = [i for i in open_outputs[: max(0, len(open_outputs) - self.keep)] if i < seen]
                    stubs = {i: stub(messages[i], NOTE) for i in old}
                    freed = sum(sizes[i] - approximate_tokens(stubs[i]) for i in old)
                    if freed >= max(1, self.at_least):
                        cleared.update(stubs)
                        open_outputs, size = open_outputs[len(old) :], size - freed
                seen = index if answered else seen
            if index < len(messages):
                size += sizes[index]
                if index in outputs:
                    open_outputs.append(index)
        return cleared
