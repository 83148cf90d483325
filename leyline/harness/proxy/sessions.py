"""The account of a proxy's conversations, as JSON."""

from __future__ import annotations

from typing import TypedDict

from leyline.harness.editor import EditorReport, EditorTurn


class TurnAccount(TypedDict):
    """One request; tokens are None where the server did not count them."""

    turn: int
    edits: int
    shed: int
    prompt_tokens: int | None
    cached_tokens: int | None
    spliced_tokens: int | None
    uncached_tokens: int | None
    broke: str | None
    fallback: str | None
    held_tokens: int | None
    found: int


def account(report: EditorReport, *, splices: bool | None = None) -> dict[str, object]:
    """Every conversation that is still listed, turn by turn, and the sums over all requests so far.

    splices: whether the upstream is told to find the edits; None where it was not asked yet.
    """
    conversations: dict[str, list[TurnAccount]] = {}
    for turn in report.turns:
        conversations.setdefault(turn.conversation, []).append(_turn(turn))
    return {
        "requests": report.requests,
        "counted": report.counted,
        "prompt_tokens": report.prompt_tokens,
        "cached_tokens": report.cached_tokens,
        "spliced_tokens": report.spliced_tokens,
        "uncached_tokens": report.uncached_tokens,
        "hit_rate": report.hit_rate,
        "edits": report.edits,
        "shed": report.shed,
        "unit": report.turns[-1].unit if report.turns else "chars",
        "forgotten": report.forgotten,
        "splices": splices,
        "conversations": conversations,
    }


def _turn(turn: EditorTurn) -> TurnAccount:
    receipt = turn.receipt
    return {
        "turn": turn.turn,
        "edits": turn.edits,
        "shed": turn.shed,
        "prompt_tokens": turn.prompt_tokens,
        "cached_tokens": turn.cached_tokens,
        "spliced_tokens": None if receipt is None else receipt.spliced_tokens,
        "uncached_tokens": None if receipt is None else receipt.prefilled_tokens,
        "broke": turn.broke,
        "fallback": None if receipt is None or receipt.fallback is None else str(receipt.fallback),
        "held_tokens": None if receipt is None else receipt.held,
        "found": 0 if receipt is None else len(receipt.found),
    }
