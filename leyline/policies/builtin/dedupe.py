"""dedupe: keep one copy of identical outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from leyline.directives import Message
from leyline.directives.content import content_text, other_parts
from leyline.directives.messages import canonical
from leyline.policies.base import ChangePolicy
from leyline.policies.reading.calls import observations
from leyline.policies.reading.text import stub
from leyline.policies.settings import check_choice, check_int


@dataclass(frozen=True)
class Dedupe(ChangePolicy):
    """Replace repeated identical outputs by a line that says so.

    Images and other parts that are not text have to be the same as well. In a history without tool calls, a plain chat
    included, each user message behind an answer is an output. Idempotent.

    Parameters
    ----------
    keep : str
        `'last'` keeps the newest copy whole. `'first'` keeps the oldest: then a copy is edited as soon as the model
        has answered it, and few cached tokens move.
    min_chars : int
        Shorter outputs are left alone, unless they hold more than text.

    Examples
    --------
    >>> history = [{"role": "tool", "content": "x" * 300}, {"role": "tool", "content": "x" * 300}]
    >>> Dedupe().transform(history, turn=2)[0]["content"]
    '[same output as a later call]'
    """

    reads_only: ClassVar[bool] = True
    keep: str = "last"
    min_chars: int = 80

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self, "keep", ["first", "last"])
        check_int(self, "min_chars", minimum=1)

    def changes(self, messages: Sequence[Message], turn: int) -> Mapping[int, Message | None]:
        copies: dict[tuple[str, str], list[int]] = {}
        for index in observations(messages):
            text, others = content_text(messages[index]), other_parts(messages[index])
            if (others or len(text) >= self.min_chars) and not text.startswith("[same output as "):
                key = canonical({"content": messages[index]["content"]}) if others else ""
                copies.setdefault((text, key), []).append(index)
        changes: dict[int, Message | None] = {}
        for found in copies.values():
            extra, which = (found[:-1], "a later") if self.keep == "last" else (found[1:], "an earlier")
            changes |= {index: stub(messages[index], f"[same output as {which} call]") for index in extra}
        return changes
