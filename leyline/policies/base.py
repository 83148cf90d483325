"""What a policy is: a pure function of the history that says which messages to edit."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import ClassVar, Protocol, runtime_checkable

from leyline.directives import Message, MessageEdit, Mode, apply_edits, diff
from leyline.directives.clone import clone
from leyline.policies.errors import PolicyError
from leyline.policies.law import check_history, lawful
from leyline.policies.reading.history import History


@runtime_checkable
class Policy(Protocol):
    """The least that a policy must have. `BasePolicy` adds settings, modes and exact edits."""

    @property
    def name(self) -> str: ...

    def transform(self, messages: Sequence[Message], turn: int) -> list[Message]:
        """The edited history.

        messages: the unedited history, as sent for this turn. Never changed.
        turn: how many answers the model has given so far.
        """


@dataclass(frozen=True)
class BasePolicy(ABC):
    """A policy with settings as dataclass fields. Subclasses write `transform`.

    mode: the contract of this policy's edits; None takes what the session asks for.
    blind: it edits nothing and never looks. appends: its edits add to the end of new messages. combines: its edits are
    those of other policies, each checked by itself. reads_only: it changes nothing of the history that it is given, so
    it needs no copy; each class says so for itself, its subclasses do not inherit it.
    """

    blind: ClassVar[bool] = False
    appends: ClassVar[bool] = False
    combines: ClassVar[bool] = False
    reads_only: ClassVar[bool] = False
    mode: Mode | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if self.mode is not None:
            object.__setattr__(self, "mode", as_mode(self.mode, self.name))

    @property
    def name(self) -> str:
        """The class name in snake case: `KeepLast` is `keep_last`."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", type(self).__name__).lower()

    @abstractmethod
    def transform(self, messages: Sequence[Message], turn: int) -> list[Message]:
        """The edited history. Does not change `messages`."""

    def edits(self, messages: Sequence[Message], turn: int, mode: Mode = Mode.AMORTIZE) -> list[MessageEdit]:
        """The same as edits in indices of `messages`; `mode` is used where the policy sets none."""
        # A `transform` that edits in place gets a copy: the diff still sees the change, and the history stays.
        return diff_edits(messages, self.transform(clone(list(messages)), turn), self.mode or mode)

    def __str__(self) -> str:
        """The spec that loads this policy again: name and settings that differ from their defaults."""
        parts = [f"{f.name}={literal(getattr(self, f.name))}" for f in fields(self) if not _is_default(self, f.name)]
        return f"{self.name}({', '.join(parts)})" if parts else self.name


class ChangePolicy(BasePolicy):
    """A policy that edits messages one by one. Subclasses write `changes`; the edits are exact, no diff is needed."""

    @abstractmethod
    def changes(self, messages: Sequence[Message], turn: int) -> Mapping[int, Message | None]:
        """For each message to edit its index and replacement, None to drop it. Does not change `messages`."""

    def transform(self, messages: Sequence[Message], turn: int) -> list[Message]:
        return apply_edits(messages, self.edits(messages, turn))

    def edits(self, messages: Sequence[Message], turn: int, mode: Mode = Mode.AMORTIZE) -> list[MessageEdit]:
        if self.blind:
            return []
        trusted = reads_only(self)
        messages = History.of(messages)
        check_history(self.name, messages)
        # As above: a `changes` that edits in place gets a copy, and what it returns is compared with the history.
        changes = self.changes(messages if trusted else clone(list(messages)), turn)
        made = self.mode or mode
        edits = [
            MessageEdit(index, clone(new) if trusted else new, made)
            for index, new in sorted(changes.items(), key=_first)
            if not 0 <= index < len(messages) or (new is not messages[index] and new != messages[index])
        ]
        forgets = mode is not Mode.FORGET or self.mode is Mode.FORGET
        return lawful(self.name, messages, edits, forgets=forgets, appends=self.appends)


def reads_only(policy: object) -> bool:
    """Whether a policy says of its own class that it leaves alone what it is given."""
    return bool(vars(type(policy)).get("reads_only", False))


def diff_edits(old: Sequence[Message], new: Sequence[Message], mode: Mode) -> list[MessageEdit]:
    """The edits that turn `old` into `new`, messages appended to `old` included."""
    edits = diff(old, new, mode)
    tail = new[len(apply_edits(old, edits)) :]
    return edits + [MessageEdit(len(old), message, mode, insert=True) for message in tail]


def as_mode(value: object, policy: str) -> Mode:
    """`Mode` from itself or its name. Raises PolicyError naming `policy`."""
    try:
        return Mode(str(value).lower())
    except ValueError:
        raise PolicyError(f"{policy}: mode {value!r} is not known; use 'amortize', 'forget' or 'auto'") from None


def literal(value: object) -> str:
    """A setting as it is written in a spec."""
    if isinstance(value, Mode):
        return repr(value.value)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(literal(item) for item in value) + "]"
    if isinstance(value, Policy):
        return str(value)
    return repr(value)


def _first(change: tuple[int, Message | None]) -> int:
    return change[0]


def _is_default(policy: BasePolicy, name: str) -> bool:
    default = next(f.default for f in fields(policy) if f.name == name)
    return bool(getattr(policy, name) == default)
