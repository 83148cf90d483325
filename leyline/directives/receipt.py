"""What a backend says it did with a turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any

from leyline.directives.choice import Choice
from leyline.directives.directive import Mode
from leyline.directives.errors import WireError
from leyline.directives.fallback import Fallback
from leyline.directives.jsontypes import JsonMapping, JsonObject


class Outcome(StrEnum):
    """What became of one directive.

    SPLICED: an AMORTIZE whose suffix was moved, in whole or in part.
    CACHED: an AMORTIZE that needed no move; the edited prompt was already in the cache, or nothing behind the edit
    could be moved but what is always computed (the seam, the prompt's last token).
    FORGOTTEN: a FORGET; nothing from its span on was reused.
    PREFILLED: not honoured as a directive: the edited prompt was served as it is, and `fallback` says why. Or an AUTO
    whose suffix was cheaper to prefill, and `choice` says so.
    """

    SPLICED = "spliced"
    CACHED = "cached"
    FORGOTTEN = "forgotten"
    PREFILLED = "prefilled"


@dataclass(frozen=True, slots=True)
class Splice:
    """One moved run, `[start, end)` in tokens of the target.

    delta: target minus source position, in tokens.
    seconds: how long gathering, rotating and scattering took, 0.0 where it was not measured.
    """

    start: int
    end: int
    delta: int
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FoundEdit:
    """An edit that the server found by itself: source tokens `[start, end)` became `inserted` tokens, under `mode`."""

    start: int
    end: int
    inserted: int
    mode: Mode


@dataclass(frozen=True)
class Receipt:
    """What was kept, moved and computed for one prompt. `prefix + spliced + prefilled == prompt_tokens`.

    prompt_tokens: tokens of the whole prompt, cached ones included.
    prefix_tokens: found in the cache where they stand (also tokens that an earlier turn of the lineage spliced).
    spliced_tokens: moved in this turn; prefilled_tokens: computed in this turn.
    splices: the moved runs, ascending.
    approximate_from: the first token whose KV is not what a clean prefill would give, or None when there is none.
    lineage: names the approximate part of the cache; the next request carries it to hit that part, or None.
    fallback: why (part of) the turn was prefilled though directives asked otherwise, or None.
    detail: one sentence for people, or None.
    directives: how many were asked; acknowledged: what became of each, in order. Where a fallback is given and
        `acknowledged` is left out, every directive counts as prefilled.
    held: tokens that the server remembered for the request's session, 0 for a new or a forgotten one; None where the
        request named no session, or the server remembers none. found: the edits that it found by itself.
    choice: what AUTO took and what it expected, or None where no directive was AUTO.
    purged_tokens: evicted from the cache of the one server that answered, or None where no purge was asked or done.
    """

    prompt_tokens: int
    prefix_tokens: int
    spliced_tokens: int
    prefilled_tokens: int
    splices: tuple[Splice, ...] = ()
    approximate_from: int | None = None
    lineage: str | None = None
    fallback: Fallback | None = None
    detail: str | None = None
    directives: int = 0
    acknowledged: tuple[Outcome, ...] = ()
    choice: Choice | None = None
    held: int | None = None
    found: tuple[FoundEdit, ...] = ()
    purged_tokens: int | None = None

    def __post_init__(self) -> None:
        for name in ("prompt_tokens", "prefix_tokens", "spliced_tokens", "prefilled_tokens", "directives"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise WireError(f"receipt: {name} is {value!r}; it must be an int of at least 0")
        parts = self.prefix_tokens + self.spliced_tokens + self.prefilled_tokens
        if parts != self.prompt_tokens:
            raise WireError(
                f"receipt: prefix {self.prefix_tokens} + spliced {self.spliced_tokens} + prefilled "
                f"{self.prefilled_tokens} is {parts}, not prompt_tokens {self.prompt_tokens}"
            )
        if self.approximate_from is not None and not 0 <= self.approximate_from <= self.prompt_tokens:
            raise WireError(f"receipt: approximate_from {self.approximate_from} is outside the prompt")
        object.__setattr__(self, "splices", tuple(self.splices))
        object.__setattr__(self, "found", tuple(self.found))
        object.__setattr__(self, "acknowledged", tuple(self.acknowledged))
        if not self.acknowledged and self.directives and self.fallback is not None:
            object.__setattr__(self, "acknowledged", (Outcome.PREFILLED,) * self.directives)
        if len(self.acknowledged) != self.directives:
            raise WireError(
                f"receipt: {len(self.acknowledged)} outcomes for {self.directives} directives; acknowledge each one"
            )

    @property
    def hit_rate(self) -> float:
        """`(prefix + spliced) / prompt` tokens, 0.0 for an empty prompt."""
        return (self.prefix_tokens + self.spliced_tokens) / self.prompt_tokens if self.prompt_tokens else 0.0

    @classmethod
    def plain(
        cls, prompt_tokens: int, cached_tokens: int, *, directives: int = 0, detail: str | None = None
    ) -> Receipt:
        """The receipt of a server that knows no directives, from its usage block.

        cached_tokens: as the server reports them, held to `[0, prompt_tokens]`.
        directives: how many were asked; any give the fallback `backend_has_no_splice`.
        """
        prompt = max(0, prompt_tokens)
        cached = min(max(0, cached_tokens), prompt)
        return cls(
            prompt_tokens=prompt,
            prefix_tokens=cached,
            spliced_tokens=0,
            prefilled_tokens=prompt - cached,
            fallback=Fallback.BACKEND_HAS_NO_SPLICE if directives else None,
            detail=detail,
            directives=directives,
        )

    @classmethod
    def from_meta_info(cls, meta_info: JsonMapping | None) -> Receipt | None:
        """The receipt in a server's `meta_info`, or None where there is none. Raises `WireError` only.

        `meta_info["leyline"]` is the receipt, or a list that holds it among entries that say nothing.
        """
        value = receipt_entry(meta_info.get("leyline")) if isinstance(meta_info, Mapping) else None
        return None if value is None else cls.from_dict(value)

    def with_undeclared(self, messages: Sequence[int]) -> Receipt:
        """The receipt with the reason `undeclared_edit`; as it is where it gives another one, or there are none.

        messages: as `undeclared_edits` gives them. Only who renders a prompt can know them, not the server.
        """
        if not messages or self.fallback is not None:
            return self
        places = ", ".join("the opening of the prompt" if index < 0 else f"message {index}" for index in messages[:8])
        more = f" and {len(messages) - 8} more" if len(messages) > 8 else ""
        detail = f"rendered otherwise than before, though no edit was declared: {places}{more}"
        return replace(self, fallback=Fallback.UNDECLARED_EDIT, detail=detail)

    def to_dict(self) -> JsonObject:
        """The receipt as JSON types, every field present."""
        data = asdict(self)
        data["splices"] = [asdict(s) for s in self.splices]
        data["acknowledged"] = [str(a) for a in self.acknowledged]
        data["fallback"] = None if self.fallback is None else str(self.fallback)
        data["found"] = [{**asdict(edit), "mode": str(edit.mode)} for edit in self.found]
        data["choice"] = None if self.choice is None else self.choice.to_dict()
        return data

    @classmethod
    def from_dict(cls, data: JsonMapping) -> Receipt:
        """Read a receipt, with unknown fields ignored. Raises `WireError` only."""
        try:
            return cls(
                prompt_tokens=data["prompt_tokens"],
                prefix_tokens=data["prefix_tokens"],
                spliced_tokens=data["spliced_tokens"],
                prefilled_tokens=data["prefilled_tokens"],
                splices=tuple(_splice(s) for s in data.get("splices") or ()),
                approximate_from=_optional(data, "approximate_from", int),
                lineage=_optional(data, "lineage", str),
                fallback=None if data.get("fallback") is None else Fallback(data["fallback"]),
                detail=_optional(data, "detail", str),
                directives=data.get("directives", 0),
                acknowledged=tuple(Outcome(a) for a in data.get("acknowledged") or ()),
                held=_optional(data, "held", int),
                found=tuple(_found(edit) for edit in data.get("found") or ()),
                choice=None if data.get("choice") is None else Choice.from_dict(data["choice"]),
                purged_tokens=_optional(data, "purged_tokens", int),
            )
        except WireError:
            raise
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise WireError(f"receipt: {type(error).__name__}: {str(error)[:200]}") from None


def receipt_entry(value: object) -> Any:
    """What stands in a server's place for the receipt, or None: the first entry of a list that is not null or empty.

    A stream, or a server that answers several requests at once, repeats the key with null or empty lists.
    """
    if not isinstance(value, list | tuple):
        return value
    return next((found for found in map(receipt_entry, value) if found is not None and found != {}), None)


def _optional(data: Mapping[str, object], name: str, kind: type) -> Any:
    value = data.get(name)
    if value is not None and type(value) is not kind:
        raise WireError(f"receipt: {name} is a {type(value).__name__}; it must be {kind.__name__} or null")
    return value


def _splice(data: JsonMapping) -> Splice:
    start, end, delta, seconds = data["start"], data["end"], data["delta"], data.get("seconds", 0.0)
    if not all(type(v) is int for v in (start, end, delta)) or type(seconds) not in (int, float):
        raise WireError("receipt: a splice needs the ints start, end, delta and the number seconds")
    return Splice(start, end, delta, float(seconds))


def _found(data: JsonMapping) -> FoundEdit:
    start, end, inserted = data["start"], data["end"], data["inserted"]
    if not all(type(v) is int for v in (start, end, inserted)):
        raise WireError("receipt: an edit that was found needs the ints start, end and inserted")
    return FoundEdit(start, end, inserted, Mode(data["mode"]))
