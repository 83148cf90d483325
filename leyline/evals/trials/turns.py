"""One record a model call: what the receipt counted, and how long the prompt had been had nothing been edited."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from leyline.backends.contract import TokenRenderer
from leyline.directives import Message
from leyline.evals.trials.record import TurnRecord
from leyline.harness.agent import Event
from leyline.harness.session.session import SessionTurn


def answer_places(messages: Sequence[Message]) -> list[int]:
    """Where the model answered: one turn each. An answer at the very start has no prompt and is none."""
    return [index for index, message in enumerate(messages) if index and message.get("role") == "assistant"]


def full_lengths(
    renderer: TokenRenderer | None, messages: Sequence[Message], tools: Sequence[Mapping[str, object]] | None = None
) -> list[int]:
    """Tokens of each turn's prompt had nothing been edited, from one rendering; empty where the server renders.

    messages: the whole history; its answers are tokenised from their text.
    """
    places = answer_places(messages)
    if renderer is None or not places:
        return []
    # A whole prompt: some templates refuse less, such as a conversation without a user message.
    opening = renderer.render(messages[: places[0]], tools)
    prompt = len(opening.ids) - opening.spans[-1][1]
    spans = renderer.render(messages, tools).spans
    return [spans[place][0] + prompt for place in places]


def with_full(turns: Sequence[TurnRecord], full: Sequence[int]) -> list[TurnRecord]:
    """Turn records with `full` filled in; exactly the prompt's own length until the first edit."""
    filled, edits = [], 0
    for turn, length in zip(turns, full, strict=False):
        edits += turn.edits
        filled.append(turn.model_copy(update={"full": max(length, turn.prompt) if edits else turn.prompt}))
    return filled + list(turns[len(filled) :])


def turn_record(turn: SessionTurn, full: int | None = None) -> TurnRecord:
    """The record of one session turn. `full` is the unedited prompt's length in tokens, where known."""
    receipt, timings = turn.receipt, turn.timings
    return TurnRecord(
        prompt=receipt.prompt_tokens,
        prefix=receipt.prefix_tokens,
        spliced=receipt.spliced_tokens,
        prefilled=receipt.prefilled_tokens,
        completion=turn.usage.completion_tokens,
        full=full,
        edits=len(turn.edits),
        directives=receipt.directives,
        fallback=receipt.fallback.value if receipt.fallback else None,
        ttft=_seconds(timings.get("ttft")),
        prefill_s=_seconds(timings.get("prefill")),
        decode_s=_seconds(timings.get("decode")),
        splice_s=_seconds(timings.get("splice")),
    )


class TurnMeter:
    """Turns an agent's events into turn records. seen: the session's turns themselves."""

    def __init__(self) -> None:
        self.turns: list[TurnRecord] = []
        self.seen: list[SessionTurn] = []

    def __call__(self, event: Event) -> None:
        if event.kind == "receipt":
            turn: SessionTurn = event.data["turn"]
            self.seen.append(turn)
            self.turns.append(turn_record(turn))
        elif event.kind == "tool_result" and self.turns:
            last = self.turns[-1]
            spent = (last.tool_s or 0.0) + float(event.data.get("seconds", 0.0))
            self.turns[-1] = last.model_copy(update={"tool_s": round(spent, 5)})


def _seconds(value: float | None) -> float | None:
    return None if value is None else round(value, 6)
