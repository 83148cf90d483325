"""A combinator whose edits stay: what it makes of a turn depends on what it made of the turns before."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from leyline.directives import Message, MessageEdit, Mode, apply_edits
from leyline.directives.clone import clone
from leyline.policies.base import BasePolicy, Policy
from leyline.policies.check import policy_edits
from leyline.policies.combinators.inner import as_policy
from leyline.policies.reading.replayed import Replayed

Made = tuple[MessageEdit, ...]


@dataclass(frozen=True)
class Replaying(BasePolicy):
    """Subclasses write `new_edits`; an edit once made is made in every later turn."""

    combines: ClassVar[bool] = True
    policy: Policy | str

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "policy", as_policy(self.policy, self.name))
        object.__setattr__(self, "_replayed", {mode: Replayed(partial(self._step, mode), ()) for mode in Mode})

    @abstractmethod
    def new_edits(self, past: Sequence[Message], turn: int, made: Made, mode: Mode) -> list[MessageEdit]:
        """The edits that are made at one turn. past: its history. made: the edits of earlier turns."""

    def transform(self, messages: Sequence[Message], turn: int) -> list[Message]:
        return apply_edits(messages, self.edits(messages, turn))

    def edits(self, messages: Sequence[Message], turn: int, mode: Mode = Mode.AMORTIZE) -> list[MessageEdit]:
        replayed: dict[Mode, Replayed[Made]] = self.__dict__["_replayed"]
        made = replayed[self.mode or mode].after(messages, turn)
        copies = [MessageEdit(e.message_index, clone(e.replacement), e.mode, e.insert) for e in made]
        return sorted(copies, key=lambda edit: (edit.message_index, not edit.insert))

    def asked(self, messages: Sequence[Message], turn: int, mode: Mode) -> list[MessageEdit]:
        """What the inner policy wants."""
        return policy_edits(as_policy(self.policy, self.name), messages, turn, mode)

    def _step(self, mode: Mode, past: Sequence[Message], turn: int, made: Made) -> Made:
        return (*made, *self.new_edits(past, turn, made, mode))
