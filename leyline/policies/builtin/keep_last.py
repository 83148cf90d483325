"""keep_last: the task and the newest exchanges."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from leyline.directives import Message
from leyline.policies.base import ChangePolicy
from leyline.policies.reading.calls import groups
from leyline.policies.settings import check_int


@dataclass(frozen=True)
class KeepLast(ChangePolicy):
    """Drop every exchange but the newest `n`.

    An exchange is an assistant message with the outputs of its calls; they go together. System messages and what the
    user said stay. In a history without tool calls, a plain chat included, the user message behind an answer counts as
    its output and goes with it; what the user said first stays. Idempotent.

    Parameters
    ----------
    n : int
        Exchanges that stay; at least 1.

    Examples
    --------
    >>> history = [{"role": "user", "content": "task"}] + 3 * [{"role": "assistant", "content": "step"}]
    >>> len(KeepLast(n=1).transform(history, turn=3))
    2
    """

    reads_only: ClassVar[bool] = True
    n: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int(self, "n", minimum=1)

    def changes(self, messages: Sequence[Message], turn: int) -> Mapping[int, Message | None]:
        return {index: None for exchange in groups(messages)[: -self.n] for index in exchange}
