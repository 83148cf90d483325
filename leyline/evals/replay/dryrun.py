"""A policy over a recorded conversation, without a model: what it edits each turn, and what that does to the cache.

The recording is replayed as a harness would resend it, through a session, so an edit once made is re-applied exactly
and only new ones count. The cache is the simulated one, empty at the first turn and never full.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from leyline.backends.contract import TokenRenderer
from leyline.backends.simulated.backend import SimulatedBackend
from leyline.backends.simulated.radix import RadixCache
from leyline.directives import Message, MessageEdit, Mode
from leyline.evals.trials.turns import answer_places, full_lengths
from leyline.harness.session.session import Session
from leyline.policies import Policy


@dataclass(frozen=True)
class ShownEdit:
    """A new edit. before: the message as it was sent until now, None for an insertion."""

    edit: MessageEdit
    before: Message | None


@dataclass(frozen=True)
class DryTurn:
    """One turn, in tokens.

    full: the unedited prompt. prompt: the edited one. prefix: how much of it an ordinary prefix cache reuses. spliced:
    what is reused behind the first edit, 0 behind a FORGET. The last token of a prompt is always computed.
    """

    turn: int
    full: int
    prompt: int
    prefix: int
    spliced: int
    edits: tuple[ShownEdit, ...] = ()

    @property
    def shed(self) -> int:
        """Tokens that the policy kept out of the prompt; negative where it adds more than it removes."""
        return self.full - self.prompt


@dataclass(frozen=True)
class DryRun:
    """All turns, with their sums over prompts."""

    turns: list[DryTurn] = field(default_factory=list)

    def total(self, name: str) -> int:
        """The sum of a field or property of the turns."""
        return sum(getattr(turn, name) for turn in self.turns)

    @property
    def edits(self) -> int:
        """New edits over all turns."""
        return sum(len(turn.edits) for turn in self.turns)


def dry_run(
    policy: Policy,
    messages: Sequence[Message],
    renderer: TokenRenderer,
    *,
    mode: Mode = Mode.AMORTIZE,
    on_turn: Callable[[int, int], None] | None = None,
) -> DryRun:
    """Replay `messages` through `policy`; a turn is the prompt before each assistant message. Changes nothing.

    on_turn: told (turn, turns) before each turn. Raises PolicyError where the policy fails.
    """
    answers = answer_places(messages)
    backend = SimulatedBackend(renderer, RadixCache(), [messages[index] for index in answers], splice=True)
    session = Session(backend, policy, mode=mode)
    shown: dict[int, Message | None] = {}
    result = DryRun()
    full = full_lengths(renderer, messages)
    for turn, end in enumerate(answers):
        if on_turn is not None:
            on_turn(turn, len(answers))
        history = messages[:end]
        done = session.turn(history)
        edits = []
        for edit in done.edits:
            before = None if edit.insert else shown.get(edit.message_index, history[edit.message_index])
            edits.append(ShownEdit(edit, before))
            if not edit.insert:
                shown[edit.message_index] = edit.replacement
        receipt = done.receipt
        counts = (full[turn], receipt.prompt_tokens, receipt.prefix_tokens, receipt.spliced_tokens)
        result.turns.append(DryTurn(turn, *counts, tuple(edits)))
    return result
