"""cost_aware: make an edit when it pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from leyline.directives import Costs, LeylineError, Message, MessageEdit, Mode, apply_edits
from leyline.directives.digest import config_digest
from leyline.policies.base import BasePolicy, Policy
from leyline.policies.check import policy_edits
from leyline.policies.combinators.inner import as_policy
from leyline.policies.errors import PolicyError
from leyline.policies.reading.calls import groups
from leyline.policies.reading.sizes import approximate_tokens
from leyline.policies.reading.turns import history_at
from leyline.policies.settings import check_int, check_text

_REMEMBERED = 64

Made = Mapping[int, str]
"""Edits made so far: the digest of what stands in a message's place, by its index."""


@dataclass(frozen=True)
class CostAware(BasePolicy):
    """Let a policy's edits wait until what they save in the turns to come is more than what they break now.

    A shed token saves, in each turn, one pair of attention for each new token of the prompt, and one read of its KV for
    each generated token. An edit breaks the cache from its message on: what stands behind is moved, or prefilled where
    that is cheaper or the server cannot move. Edits that wait are made together, later or never. A FORGET and an
    insertion never wait. Tokens are estimated as for `clear_over`. Room in the context counts for nothing here: put
    `when(over=...)` beside it for that.

    Parameters
    ----------
    policy : policy or str
        Whose edits.
    costs : str
        A file of `leyline bench calibrate`; empty takes rough constants of one GPU.
    turns : int
        How many turns are still to come; 0 expects as many as there were.
    splice : bool
        Whether the server moves KV. Without it everything behind an edit is prefilled.

    Examples
    --------
    >>> history = [{"role": "tool", "content": "x" * 80_000}, {"role": "assistant", "content": "y" * 400}]
    >>> history += [{"role": "tool", "content": "z" * 80_000}]
    >>> cut = "truncate_older_than(n=1, max_chars=200)"
    >>> [CostAware(cut, splice=s, turns=1).transform(history, turn=1) == history for s in (True, False)]
    [False, True]
    """

    combines: ClassVar[bool] = True
    policy: Policy | str
    costs: str = ""
    turns: int = 0
    splice: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "policy", as_policy(self.policy, self.name))
        check_text(self, "costs")
        check_int(self, "turns", minimum=0)
        if type(self.splice) is not bool:
            raise PolicyError(f"cost_aware: splice must be True or False, got {self.splice!r}")
        try:
            constants = Costs.read(self.costs) if self.costs else Costs()
        except LeylineError as error:
            raise PolicyError(f"cost_aware: {error}; measure them: leyline bench calibrate URL") from None
        object.__setattr__(self, "_constants", constants)
        object.__setattr__(self, "_seen", {})

    def transform(self, messages: Sequence[Message], turn: int) -> list[Message]:
        return apply_edits(messages, self.edits(messages, turn))

    def edits(self, messages: Sequence[Message], turn: int, mode: Mode = Mode.AMORTIZE) -> list[MessageEdit]:
        # Which edits were made depends on the past only: replaying it makes the policy a pure function. The last turns'
        # outcomes are remembered, so that a session pays for one turn at a time.
        made = self._made(messages, turn - 1, turn, mode) if turn > 0 else {}
        return self._step(messages, turn, mode, made)[0]

    def _made(self, messages: Sequence[Message], then: int, turn: int, mode: Mode) -> Made:
        """What was made up to turn `then`."""
        seen: dict[str, Made] = self.__dict__["_seen"]
        keys = {}
        start, made = -1, dict[int, str]()
        for at in range(then, -1, -1):
            keys[at] = config_digest({"turn": at, "mode": str(mode), "past": history_at(messages, turn, at)})
            if keys[at] in seen:
                start, made = at, dict(seen[keys[at]])
                break
        for at in range(start + 1, then + 1):
            made = self._step(history_at(messages, turn, at), at, mode, made)[1]
            seen[keys[at]] = made
        while len(seen) > _REMEMBERED:
            seen.pop(next(iter(seen)), None)
        return made

    def _step(
        self, messages: Sequence[Message], turn: int, mode: Mode, made: Made
    ) -> tuple[list[MessageEdit], dict[int, str]]:
        """The edits of one turn, and what is made by then."""
        asked = policy_edits(as_policy(self.policy, self.name), messages, turn, self.mode or mode)
        marks = {id(edit): config_digest({"message": edit.replacement}) for edit in asked}
        at_once = [
            edit
            for edit in asked
            if edit.insert or edit.mode is Mode.FORGET or made.get(edit.message_index) == marks[id(edit)]
        ]
        held = {id(edit) for edit in at_once}
        waiting = [edit for edit in asked if id(edit) not in held]
        first = self._first_that_pays(messages, turn, waiting) if waiting else len(messages)
        taken = held | {id(edit) for edit in waiting if edit.message_index >= first}
        edits = [edit for edit in asked if id(edit) in taken]
        return edits, {edit.message_index: marks[id(edit)] for edit in edits if not edit.insert}

    def _first_that_pays(self, messages: Sequence[Message], turn: int, waiting: Sequence[MessageEdit]) -> int:
        """The message from which on the edits that wait are made: where they gain most. Past the end for nowhere."""
        costs: Costs = self.__dict__["_constants"]
        sizes = [approximate_tokens(message) for message in messages]
        said = sum(size for size, m in zip(sizes, messages, strict=True) if m.get("role") == "assistant")
        total, turns = sum(sizes), turn + 1
        each_turn = costs.pair * (total / turns) + costs.byte * costs.token_bytes / 2 * (said / turns)
        ahead = self.turns or turns
        best, first = 0.0, len(messages)
        shed = written = moved = holes = 0
        end = len(messages)
        # A call and its outputs go together: no cut between them.
        starts = {index: group[0] for group in groups(messages) for index in group}
        ordered = sorted(waiting, key=lambda edit: -edit.message_index)
        anchors = [starts.get(edit.message_index, edit.message_index) for edit in ordered]
        for edit, anchor, following in zip(ordered, anchors, [*anchors[1:], -1], strict=True):
            index = edit.message_index
            size = approximate_tokens(edit.replacement) if edit.replacement is not None else 0
            moved += sum(sizes[index + 1 : end])
            holes += size > 0
            shed, written, end = shed + sizes[index] - size, written + size, index
            before = sum(sizes[:index])
            passed = costs.turn([(before, before + written + moved)]) - costs.forward
            spliced = costs.computing(before, before + written) + costs.hole * holes + costs.moving(moved)
            gain = ahead * shed * each_turn - (min(passed, spliced) if self.splice else passed)
            if gain > best and anchor != following:
                best, first = gain, index
        return first
