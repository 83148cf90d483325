"""keep_all: the full history, the baseline of every comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from leyline.directives import Message
from leyline.policies.base import ChangePolicy


@dataclass(frozen=True)
class KeepAll(ChangePolicy):
    """Edit nothing.

    Examples
    --------
    >>> KeepAll().transform([{"role": "user", "content": "hi"}], turn=0)
    [{'role': 'user', 'content': 'hi'}]
    """

    reads_only: ClassVar[bool] = True
    blind: ClassVar[bool] = True

    def changes(self, messages: Sequence[Message], turn: int) -> Mapping[int, Message | None]:
        return {}
