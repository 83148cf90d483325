"""truncate_older_than: cut every tool output but the newest few."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from leyline.directives import Message
from leyline.policies.base import ChangePolicy
from leyline.policies.reading.calls import observations
from leyline.policies.reading.text import truncate
from leyline.policies.settings import check_int


@dataclass(frozen=True)
class TruncateOlderThan(ChangePolicy):
    """Cut every tool output except the newest `n` to its first and last `max_chars // 2` characters.

    Idempotent. An output of at most `max_chars` characters stays as it is; where it has several text parts, they count
    together and become one. Images stay. In a history without tool calls, a plain chat included, each user message
    behind an answer is an output.

    Parameters
    ----------
    n : int
        How many of the newest outputs stay whole; 0 cuts all.
    max_chars : int
        Characters kept of an older output, half from its start and half from its end.

    Examples
    --------
    >>> history = [{"role": "tool", "content": "x" * 500}, {"role": "tool", "content": "new"}]
    >>> TruncateOlderThan(n=1, max_chars=6).transform(history, turn=2)[0]["content"]
    'xxx\\n[... 494 characters removed ...]\\nxxx'
    """

    reads_only: ClassVar[bool] = True
    n: int = 2
    max_chars: int = 200

    def __post_init__(self) -> None:
        super().__post_init__()
        check_int(self, "n", minimum=0)
        check_int(self, "max_chars", minimum=0)

    def changes(self, messages: Sequence[Message], turn: int) -> Mapping[int, Message | None]:
        outputs = observations(messages)
        return {i: truncate(messages[i], self.max_chars) for i in outputs[: max(0, len(outputs) - self.n)]}
