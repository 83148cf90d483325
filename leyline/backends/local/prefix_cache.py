"""The sequences that are cached over turns, and who may reuse how much of them.

Provenance is a property of a prefix: a token's KV depends on every token before it, so once one token is approximate
all behind it are. A sequence therefore carries three lengths, `exact <= prefilled` and `approximate_from`, instead of a
mark on each token.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from leyline.backends.local.kv import SequenceKV
from leyline.directives.common import common_prefix

MIN_PURGE_RUN = 8


@dataclass(eq=False)
class CachedSequence:
    """Token ids and their KV.

    tenant: only requests of the same tenant see the sequence.
    lineage: who may reuse what stands at `approximate_from` and behind it; None when all is honest.
    approximate_from: tokens before it are what a clean prefill or decode gives; the rest carries spliced KV.
    prefilled: tokens `[0, prefilled)` were computed by prefill (not decoded, not spliced).
    exact: tokens `[0, exact)` were computed in whole pages from position 0, so a cold prefill gives the same bits.
    move_counts: how often each token's KV was moved.
    """

    kv: SequenceKV
    tenant: str | None
    ids: list[int] = field(default_factory=list)
    lineage: str | None = None
    approximate_from: int | None = None
    prefilled: int = 0
    exact: int = 0
    move_counts: bytearray = field(default_factory=bytearray)
    used: int = 0

    @property
    def honest_length(self) -> int:
        """How many tokens anyone of the tenant may reuse."""
        return len(self.ids) if self.approximate_from is None else self.approximate_from

    def usable(self, lineage: str | None) -> int:
        """How many tokens a request that carries `lineage` may reuse."""
        return len(self.ids) if self.lineage is not None and self.lineage == lineage else self.honest_length

    def truncate(self, length: int) -> None:
        """Keep the first `length` tokens."""
        del self.ids[length:]
        del self.move_counts[length:]
        self.kv.truncate(length)
        self.prefilled = min(self.prefilled, length)
        self.exact = min(self.exact, length)
        if self.approximate_from is not None and self.approximate_from >= length:
            self.approximate_from = self.lineage = None


Reach = Callable[[CachedSequence, int], int]


class PrefixCache:
    """Least recently used sequences go first when more than `max_tokens` tokens are held."""

    def __init__(self, max_tokens: int) -> None:
        self.max_tokens = max_tokens
        self._sequences: list[CachedSequence] = []
        self._clock = 0

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[CachedSequence]:
        return iter(self._sequences)

    @property
    def tokens(self) -> int:
        """Tokens held in all."""
        return sum(len(s.ids) for s in self._sequences)

    def match(self, ids: Sequence[int], tenant: str | None, reach: Reach) -> tuple[CachedSequence | None, int]:
        """The tenant's sequence that gives most of `ids`, and how many tokens.

        reach: how many of the tokens that a sequence shares with `ids` may be used. Of equal ones the more honest, then
        the more recently used wins.
        """
        best: CachedSequence | None = None
        best_rank = (0, 0, 0)
        for sequence in self._sequences:
            if sequence.tenant == tenant:
                length = reach(sequence, common_prefix(sequence.ids, ids))
                rank = (length, min(length, sequence.honest_length), sequence.used)
                if length and rank > best_rank:
                    best, best_rank = sequence, rank
        return best, best_rank[0]

    def touch(self, sequence: CachedSequence) -> None:
        """Mark as just used."""
        self._clock += 1
        sequence.used = self._clock

    def insert(self, sequence: CachedSequence) -> None:
        """Hold `sequence`, drop those it makes redundant, evict down to `max_tokens`."""
        self.touch(sequence)
        kept = [s for s in self._sequences if s is not sequence and not _covers(sequence, s)]
        self._sequences = [*kept, sequence]
        while self.tokens > self.max_tokens:
            self._sequences.remove(min(self._sequences, key=lambda s: s.used))

    def remove(self, sequence: CachedSequence) -> None:
        """Stop holding `sequence`, if it is held."""
        self._sequences = [s for s in self._sequences if s is not sequence]

    def clear(self) -> None:
        """Drop everything."""
        self._sequences = []

    def purge(
        self,
        tenant: str | None,
        source: Sequence[int],
        start: int,
        spans: Sequence[Sequence[int]],
        keep: CachedSequence | None,
    ) -> int:
        """Overwrite every branch of the tenant, other than `keep`, that holds the removed tokens.

        A branch is cut at `start` where it follows `source` beyond that, and at the first place where one of `spans`
        occurs (spans under `MIN_PURGE_RUN` tokens occur in any text and are not searched). Returns the tokens evicted.
        """
        evicted = 0
        for sequence in list(self._sequences):
            if sequence is keep or sequence.tenant != tenant:
                continue
            cut = len(sequence.ids)
            if common_prefix(sequence.ids, source) > start:
                cut = start
            for span in spans:
                found = find_run(sequence.ids, span) if len(span) >= MIN_PURGE_RUN else None
                if found is not None:
                    cut = min(cut, found)
            if cut < len(sequence.ids):
                evicted += len(sequence.ids) - cut
                sequence.kv.erase(cut)
                sequence.truncate(cut)
                if not cut:
                    self.remove(sequence)
        return evicted


def find_run(ids: Sequence[int], run: Sequence[int]) -> int | None:
    """Where `run` first occurs in `ids`, or None; an empty run occurs nowhere."""
    if not run:
        return None
    haystack, needle = array("q", ids).tobytes(), array("q", run).tobytes()
    at = haystack.find(needle)
    while at >= 0 and at % 8:
        at = haystack.find(needle, at + 1)
    return at // 8 if at >= 0 else None


def _covers(new: CachedSequence, old: CachedSequence) -> bool:
    """Whether everything that `old` offers to anyone, `new` offers too."""
    if new.tenant != old.tenant or old.lineage not in (None, new.lineage):
        return False
    same = common_prefix(new.ids, old.ids) == len(old.ids)
    return same and new.honest_length >= old.honest_length and new.exact >= old.exact
