"""What a wrapped client did, request by request: the cost of the prompt, the edits, and what broke the prefix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from leyline.backends.contract import Usage
from leyline.backends.http.usage import find_usage
from leyline.directives import EditScript, LeylineError, Receipt, WireRequest
from leyline.directives.counts import count
from leyline.directives.receipt import receipt_entry


@dataclass(frozen=True)
class WrapTurn:
    """One request.

    conversation, turn: which conversation, and how many answers it held. edits: new ones of the policy.
    shed: what the edits in force take off this prompt, in `unit`s (tokens where a renderer was given).
    prompt_tokens, cached_tokens, completion_tokens: from the server's usage block, None where it sent none;
    prompt_tokens includes cached_tokens. broke: what changed the prefix that the server holds, None if nothing did.
    receipt: what a Leyline server says it did, or the same drawn from the usage block.
    """

    conversation: str
    turn: int
    edits: int
    shed: int
    unit: Literal["chars", "tokens"]
    broke: str | None = None
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    completion_tokens: int | None = None
    receipt: Receipt | None = None

    def row(self) -> str:
        tokens = "-" if self.prompt_tokens is None else f"{self.cached_tokens}/{self.prompt_tokens}"
        return f"{self.turn:>4}  {self.edits:>5}  {self.shed:>8}  {tokens:>15}  {self.broke or ''}".rstrip()


@dataclass(frozen=True)
class WrapReport:
    """All requests so far. Token sums leave out requests without a usage block; `counted` says how many had one."""

    turns: tuple[WrapTurn, ...]

    @property
    def counted(self) -> int:
        return sum(turn.prompt_tokens is not None for turn in self.turns)

    @property
    def prompt_tokens(self) -> int:
        return sum(turn.prompt_tokens or 0 for turn in self.turns)

    @property
    def cached_tokens(self) -> int:
        return sum(turn.cached_tokens or 0 for turn in self.turns)

    @property
    def uncached_tokens(self) -> int:
        return self.prompt_tokens - self.cached_tokens

    @property
    def edits(self) -> int:
        return sum(turn.edits for turn in self.turns)

    @property
    def shed(self) -> int:
        """What all prompts together did not carry, in the turns' unit."""
        return sum(turn.shed for turn in self.turns)

    @property
    def hit_rate(self) -> float | None:
        """cached / prompt tokens; None before the server has reported any."""
        return self.cached_tokens / self.prompt_tokens if self.prompt_tokens else None

    def __str__(self) -> str:
        unit = self.turns[0].unit if self.turns else "chars"
        lines = [f"turn  edits  shed {unit[:3]}.   cached/prompt  what broke the prefix"]
        conversation = None
        for turn in self.turns:
            if turn.conversation != conversation:
                conversation = turn.conversation
                lines.append(f"conversation {conversation}")
            lines.append(turn.row())
        rate = (
            "no usage block"
            if self.hit_rate is None
            else f"hit rate {self.hit_rate:.1%} of {self.prompt_tokens} tokens"
        )
        lines.append(
            f"{count(len(self.turns), 'request')} ({self.counted} with usage), {count(self.edits, 'edit')}, {rate}"
        )
        return "\n".join(lines)


def usage_of(response: Any) -> dict[str, Any]:
    """The token fields of a WrapTurn, from a response or a stream's chunk; empty where it carries neither usage nor a
    receipt.
    """
    usage, receipt = _usage(response), _receipt_of(response)
    if usage is None:
        if receipt is None:
            return {}
        cached = receipt.prefix_tokens + receipt.spliced_tokens
        return {"prompt_tokens": receipt.prompt_tokens, "cached_tokens": cached, "receipt": receipt}
    return {
        "prompt_tokens": usage.prompt_tokens,
        "cached_tokens": usage.cached_tokens,
        "completion_tokens": usage.completion_tokens,
        "receipt": receipt or Receipt.plain(usage.prompt_tokens, usage.cached_tokens),
    }


def _usage(response: Any) -> Usage | None:
    choices = getattr(response, "choices", None)
    first = choices[0] if isinstance(choices, list) and choices else None
    places = {name: getattr(response, name, None) for name in ("usage", "usageMetadata", "x_groq")}
    return find_usage({**places, "choices": [{"usage": getattr(first, "usage", None)}]})


def is_receipt(chunk: Any) -> bool:
    """Whether a stream's chunk is a Leyline server's receipt and nothing else."""
    return getattr(chunk, "leyline", None) is not None and not getattr(chunk, "choices", None)


def _receipt_of(response: Any) -> Receipt | None:
    """A Leyline server puts it into `choices[0].meta_info["leyline"]`, or into `leyline` of a stream's last chunk."""
    choices = getattr(response, "choices", None)
    meta = getattr(choices[0], "meta_info", None) if isinstance(choices, list) and choices else None
    facts = receipt_entry(meta.get("leyline") if isinstance(meta, Mapping) else getattr(response, "leyline", None))
    if not isinstance(facts, Mapping):
        return None
    try:
        receipt = Receipt.from_dict(facts)
        if receipt.lineage is not None:  # it goes back with the next request: one that cannot is no receipt
            WireRequest(EditScript(()), (), lineage=receipt.lineage, lineage_start=receipt.approximate_from)
        return receipt
    except LeylineError:
        return None
