"""All edits of one turn: an ordered tuple of directives that holds as a whole or not at all."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

from leyline.directives.directive import Directive, Mode, Segment
from leyline.directives.errors import DirectiveError
from leyline.directives.fallback import Fallback
from leyline.directives.merge import merge

MAX_TOKEN_ID = 2**31 - 1


@dataclass(frozen=True, slots=True)
class EditScript:
    """Non-overlapping directives in source coordinates, in ascending order.

    Each directive ends at or before the start of the next one. Insertions at one position are applied in tuple order.
    Every method is O(directives + tokens copied).
    """

    directives: tuple[Directive, ...] = ()

    def __post_init__(self) -> None:
        if type(self.directives) is not tuple:
            object.__setattr__(self, "directives", tuple(self.directives))

    def __bool__(self) -> bool:
        return bool(self.directives)

    def __len__(self) -> int:
        return len(self.directives)

    def __iter__(self) -> Iterator[Directive]:
        return iter(self.directives)

    @property
    def delta(self) -> int:
        """Target length minus source length."""
        return sum(d.delta for d in self.directives)

    @property
    def chooses(self) -> bool:
        """Whether any directive is AUTO: then the server takes the cheapest way, and says which."""
        return any(d.mode is Mode.AUTO for d in self.directives)

    def validate(self, source_len: int | None, *, sink: int = 0) -> None:
        """Raise `DirectiveError` unless every directive can be applied to `source_len` tokens.

        source_len: tokens in the source; None checks only what does not depend on it.
        sink: attention-sink tokens at the start of the source that no directive may touch.
        """
        if type(sink) is not int or sink < 0:
            raise DirectiveError(f"sink {sink!r} must be an int of at least 0", index=None, field="sink", bound=0)
        previous = 0
        for index, d in enumerate(self.directives):
            if type(d.start) is not int or type(d.end) is not int:
                field = "start" if type(d.start) is not int else "end"
                kind = type(getattr(d, field)).__name__
                raise DirectiveError(
                    f"{field} is a {kind}; it must be an int", index=index, field=field, reason=Fallback.MALFORMED
                )
            if d.start < 0:
                raise DirectiveError(f"start {d.start} is below the bound 0", index=index, field="start", bound=0)
            if d.start < sink:
                raise DirectiveError(
                    f"start {d.start} lies in the attention sink; the bound is {sink}",
                    index=index,
                    field="start",
                    bound=sink,
                )
            if d.end < d.start:
                raise DirectiveError(
                    f"end {d.end} is below its start; the bound is {d.start}", index=index, field="end", bound=d.start
                )
            if d.start < previous:
                raise DirectiveError(
                    f"start {d.start} is before the end of directive {index - 1}; the bound is {previous}",
                    index=index,
                    field="start",
                    bound=previous,
                    reason=Fallback.OVERLAP,
                )
            if source_len is not None and d.end > source_len:
                raise DirectiveError(
                    f"end {d.end} is past the source's {source_len} tokens; the bound is {source_len}",
                    index=index,
                    field="end",
                    bound=source_len,
                )
            check_tokens(d.replacement, index=index, field="replacement")
            if d.mode is not Mode.FORGET and d.start == d.end and not d.replacement:
                raise DirectiveError(
                    f"start and end are both {d.start}, nothing is inserted and the mode is {d.mode}: it does nothing; "
                    "drop it, or use forget to heal everything behind it",
                    index=index,
                    field="end",
                    bound=d.start + 1,
                    reason=Fallback.MALFORMED,
                )
            previous = d.end

    def apply(self, source: Sequence[int]) -> list[int]:
        """The target: `source` with every directive applied. Raises `DirectiveError`."""
        self.validate(len(source))
        target: list[int] = []
        position = 0
        for d in self.directives:
            target.extend(source[position : d.start])
            target.extend(d.replacement)
            position = d.end
        target.extend(source[position:])
        return target

    def removed(self, source: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """The tokens of each removed span, one tuple a directive. Raises `DirectiveError`."""
        self.validate(len(source))
        return tuple(tuple(source[d.start : d.end]) for d in self.directives)

    @overload
    def restore(  # type: ignore[overload-overlap]  # an array is a sequence
        self, target: array[int], removed: Sequence[Sequence[int]]
    ) -> array[int]: ...
    @overload
    def restore(self, target: Sequence[int], removed: Sequence[Sequence[int]]) -> list[int]: ...
    def restore(self, target: Sequence[int] | array[int], removed: Sequence[Sequence[int]]) -> list[int] | array[int]:
        """Rebuild the source from the target and the removed tokens: what a server does to find its donor.

        From an array an array of its type is made, at a fraction of a list's cost.
        Tokens of `target` behind the edited source (a new turn's tail) are kept at the end of the result.
        Raises `DirectiveError` when the target does not hold a replacement where the script puts it.
        """
        self.validate(None)
        if len(removed) != len(self.directives):
            raise DirectiveError(
                f"{len(removed)} removed spans for {len(self.directives)} directives; give one for each",
                index=None,
                field="removed",
                bound=len(self.directives),
                reason=Fallback.MALFORMED,
            )
        source: list[int] | array[int] = array(target.typecode) if isinstance(target, array) else []
        position = 0
        for index, (d, span) in enumerate(zip(self.directives, removed, strict=True)):
            if len(span) != d.end - d.start:
                raise DirectiveError(
                    f"removed holds {len(span)} tokens; the bound is {d.end - d.start}, the length of its span",
                    index=index,
                    field="removed",
                    bound=d.end - d.start,
                    reason=Fallback.MALFORMED,
                )
            start = position + d.start - len(source)
            end = start + len(d.replacement)
            if end > len(target):
                raise DirectiveError(
                    f"its replacement ends at {end}, past the prompt's {len(target)} tokens",
                    index=index,
                    field="end",
                    bound=len(target),
                )
            if tuple(target[start:end]) != d.replacement:
                raise DirectiveError(
                    f"the prompt does not hold its replacement at tokens {start} to {end}",
                    index=index,
                    field="replacement",
                    bound=end,
                    reason=Fallback.TARGET_MISMATCH,
                )
            source.extend(target[position:start])
            source.extend(span)
            position = end
        source.extend(target[position:])
        return source

    def invert(self, source: Sequence[int]) -> EditScript:
        """The script that leads from the target back to `source`; modes are kept. Raises `DirectiveError`."""
        self.validate(len(source))
        inverse: list[Directive] = []
        shift = 0
        for d in self.directives:
            start = d.start + shift
            inverse.append(Directive(start, start + len(d.replacement), tuple(source[d.start : d.end]), d.mode))
            shift += d.delta
        return EditScript(tuple(inverse))

    def compose(self, later: EditScript) -> EditScript:
        """One script for two turns: `self` leads from a to b, `later` from b to c, the result from a to c.

        Spans that touch are merged; FORGET wins, then AUTO, so the result never reuses more than both steps in turn. An
        AMORTIZE that the later script undoes completely disappears. Raises `DirectiveError`.
        """
        self.validate(None)
        later.validate(None)
        if not self.directives or not later.directives:
            return later if not self.directives else self
        return EditScript(merge(self.directives, later.directives))

    def segments(self, source_len: int, *, seam: int = 0) -> tuple[Segment, ...]:
        """Tile the target: what is kept, what is moved, and what must be computed. Raises `DirectiveError`.

        source_len: tokens in the source. The target has `source_len + delta` tokens and the segments cover it exactly.
        seam: the first `seam` tokens of each reused run are computed too.
        A run behind a FORGET is never reused, whatever stands behind it. Neighbouring `prefill` runs are one segment.
        """
        if type(seam) is not int or seam < 0:
            raise DirectiveError(f"seam {seam!r} must be an int of at least 0", index=None, field="seam", bound=0)
        self.validate(source_len)
        first = self.directives[0].start if self.directives else source_len
        tiles = [Segment("prefix", 0, first, 0)] if first else []
        target = first
        prefill = 0
        forgotten = False
        for index, d in enumerate(self.directives):
            following = self.directives[index + 1].start if index + 1 < len(self.directives) else source_len
            run = following - d.end
            forgotten = forgotten or d.mode is Mode.FORGET
            computed = run if forgotten else min(seam, run)
            prefill += len(d.replacement) + computed
            if run > computed:
                if prefill:
                    tiles.append(Segment("prefill", target, prefill, None))
                    target += prefill
                    prefill = 0
                tiles.append(Segment("reuse", target, run - computed, d.end + computed))
                target += run - computed
        if prefill:
            tiles.append(Segment("prefill", target, prefill, None))
        return tuple(tiles)


def check_tokens(tokens: Sequence[int], *, index: int, field: str) -> None:
    """Raise `DirectiveError` unless every token is an int in `[0, MAX_TOKEN_ID]`."""
    if not tokens:
        return
    kinds = set(map(type, tokens))
    if kinds != {int}:
        wrong = sorted(kind.__name__ for kind in kinds - {int})[0]
        raise DirectiveError(
            f"{field} holds a {wrong}; token ids must be ints", index=index, field=field, reason=Fallback.MALFORMED
        )
    low, high = min(tokens), max(tokens)
    if low < 0 or high > MAX_TOKEN_ID:
        bound = 0 if low < 0 else MAX_TOKEN_ID
        raise DirectiveError(
            f"{field} holds the token id {low if low < 0 else high}; the bound is {bound}",
            index=index,
            field=field,
            bound=bound,
        )
