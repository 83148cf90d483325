"""cost_aware: make an edit when it pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import ClassVar

from leyline.directives import Costs, LeylineError, Message, MessageEdit, Mode, apply_edits
from leyline.directives.clone import clone
from leyline.policies.base import BasePolicy, Policy
from leyline.policies.check import policy_edits
from leyline.policies.combinators.inner import as_policy
from leyline.policies.errors import PolicyError
from leyline.policies.reading.calls import groups
from leyline.policies.reading.history import each
from leyline.policies.reading.replayed import Replayed
from leyline.policies.reading.sizes import approximate_tokens
from leyline.policies.settings import check_int, check_text

_NOT_MADE: Message = {"": None}  # equal to no replacement

Made = Mapping[int, Message | None]
"""Edits made so far: what stands in a message's place, by its index."""


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
    reads_only: ClassVar[bool] = True
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
        object.__setattr__(self, "_replayed", {mode: Replayed(partial(self._step, mode), {}) for mode in Mode})

    def transform(self, messages: Sequence[Message], turn: int) -> list[Message]:
        return apply_edits(messages, self.edits(messages, turn))

    def edits(self, messages: Sequence[Message], turn: int, mode: Mode = Mode.AMORTIZE) -> list[MessageEdit]:
        # Which edits were made depends on the past only: replaying it makes the policy a pure function.
        replayed: dict[Mode, Replayed[Made]] = self.__dict__["_replayed"]
        past = replayed[self.mode or mode]
        taken = self._taken(messages, turn, self.mode or mode, past.before(messages, turn))
        past.keep(messages, turn, _made(taken))
        return taken

    def _step(self, mode: Mode, past: Sequence[Message], turn: int, made: Made) -> Made:
        return _made(self._taken(past, turn, mode, made))

    def _taken(self, messages: Sequence[Message], turn: int, mode: Mode, made: Made) -> list[MessageEdit]:
        """The edits of one turn, of those that the inner policy wants."""
        asked = policy_edits(as_policy(self.policy, self.name), messages, turn, mode)
        at_once = [
            edit
            for edit in asked
            if edit.insert or edit.mode is Mode.FORGET or made.get(edit.message_index, _NOT_MADE) == edit.replacement
        ]
        held = {id(edit) for edit in at_once}
        waiting = [edit for edit in asked if id(edit) not in held]
        first = self._first_that_pays(messages, turn, waiting) if waiting else len(messages)
        taken = held | {id(edit) for edit in waiting if edit.message_index >= first}
        return [edit for edit in asked if id(edit) in taken]

    def _first_that_pays(self, messages: Sequence[Message], turn: int, waiting: Sequence[MessageEdit]) -> int:
        """The message from which on the edits that wait are made: where they gain most. Past the end for nowhere."""
        costs: Costs = self.__dict__["_constants"]
        sizes = each(approximate_tokens, messages)
        said = sum(size for size, m in zip(sizes, messages, strict=True) if m.get("role") == "assistant")
        total, turns, upto = sum(sizes), turn + 1, [0, *accumulate(sizes)]
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
            moved += upto[end] - upto[index + 1]
            holes += size > 0
            shed, written, end = shed + sizes[index] - size, written + size, index
            before = upto[index]
            passed = costs.turn([(before, before + written + moved)]) - costs.forward
            spliced = costs.computing(before, before + written) + costs.hole * holes + costs.moving(moved)
            gain = ahead * shed * each_turn - (min(passed, spliced) if self.splice else passed)
            if gain > best and anchor != following:
                best, first = gain, index
        return first


def _made(edits: Sequence[MessageEdit]) -> Made:
    return {edit.message_index: clone(edit.replacement) for edit in edits if not edit.insert}
