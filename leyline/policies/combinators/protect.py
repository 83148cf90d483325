"""protect: keep a policy away from some messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from posixpath import basename
from typing import ClassVar

from leyline.directives import Message, MessageEdit, Mode, apply_edits
from leyline.policies.base import BasePolicy, Policy
from leyline.policies.check import policy_edits
from leyline.policies.combinators.inner import as_policy
from leyline.policies.errors import PolicyError
from leyline.policies.reading.calls import calls, groups
from leyline.policies.reading.effects import effect
from leyline.policies.reading.tools import kind_of
from leyline.policies.settings import check_int, set_names


@dataclass(frozen=True)
class Protect(BasePolicy):
    """Leave out those of a policy's edits that touch a protected exchange (a call with its output).

    This holds for FORGET as well: put `redact` outside, as in `then(protect(...), redact(...))`.

    Parameters
    ----------
    policy : policy or str
        Whose edits.
    tools : list of str
        Names of tools; the shell is `bash`, whatever its harness calls it.
    files : list of str
        Patterns such as `'*.md'` or `'src/core.py'`, for the path or its last part.
    last : int
        How many of the newest exchanges to leave alone.

    Examples
    --------
    >>> history = [{"role": "assistant", "content": ""}, {"role": "tool", "content": "0123456789" * 9}]
    >>> Protect("truncate_older_than(n=0, max_chars=4)", last=1).transform(history, turn=1) == history
    True
    """

    combines: ClassVar[bool] = True
    reads_only: ClassVar[bool] = True
    policy: Policy | str
    tools: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    last: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "policy", as_policy(self.policy, self.name))
        set_names(self, "tools")
        set_names(self, "files")
        check_int(self, "last", minimum=0)
        if not (self.tools or self.files or self.last):
            raise PolicyError("protect: protects nothing; give tools=['edit'], files=['*.md'] or last=2")

    def transform(self, messages: Sequence[Message], turn: int) -> list[Message]:
        return apply_edits(messages, self.edits(messages, turn))

    def edits(self, messages: Sequence[Message], turn: int, mode: Mode = Mode.AMORTIZE) -> list[MessageEdit]:
        edits = policy_edits(as_policy(self.policy, self.name), messages, turn, self.mode or mode)
        safe = set(self._protected(messages))
        return [edit for edit in edits if edit.insert or edit.message_index not in safe]

    def _protected(self, messages: Sequence[Message]) -> Iterator[int]:
        exchanges = {group[0]: group for group in groups(messages)}
        for start in list(exchanges)[len(exchanges) - self.last :]:
            yield from exchanges[start]
        for call in calls(messages):
            paths = effect(call).paths if self.files else ()
            shell = "bash" in self.tools and kind_of(call.name, call.arguments) == "shell"
            if shell or call.name in self.tools or any(_matches(path, p) for path in paths for p in self.files):
                yield from exchanges[call.message_index]


def _matches(path: str, pattern: str) -> bool:
    return fnmatch(path, pattern) or fnmatch(basename(path), pattern)
