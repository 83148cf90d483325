"""Tables of a replay: a row for each policy and cache, and the same by turn. Sums over turns, nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from leyline.evals.replay.replayed import ReplayError, ReplayRecord
from leyline.evals.stats.clustered import ClusterBootstrap, Interval, Ratio
from leyline.evals.trials.record import TurnRecord

EDGES = (1, 6, 11, 21, 41, 81)


@dataclass(frozen=True)
class Row:
    """One policy under one cache, in tokens over all turns of all trajectories.

    prompt = prefix + spliced + prefilled. full: the unedited prompts; shed = full - prompt. prefilled are the net
    uncached tokens; saved: how many fewer they are than those of `keep_all` in an ordinary cache on the same
    trajectories, None where that was not replayed. hit_rate: (prefix + spliced) / prompt, with its 95 % interval over
    trajectories (None with one trajectory).
    """

    policy: str
    cache: str
    backend: str
    trajectories: int
    turns: int
    full: int
    prompt: int
    prefix: int
    spliced: int
    prefilled: int
    edits: int
    hit_rate: float
    interval: tuple[float, float] | None
    saved: int | None
    stopped: int
    fallbacks: Mapping[str, int] = field(default_factory=dict)

    @property
    def shed(self) -> int:
        return self.full - self.prompt

    def to_dict(self) -> dict[str, object]:
        return {**asdict(self), "shed": self.shed}


@dataclass(frozen=True, slots=True)
class Bucket:
    """Turns `first` to `last` (from 1, inclusive) of all trajectories; means are over turns."""

    first: int
    last: int
    turns: int
    prompt: float
    hit_rate: float
    spliced: float
    prefilled: float
    edits: int


def summarise(records: Sequence[ReplayRecord]) -> list[Row]:
    """Rows in the order in which policies and caches first occur. Raises ReplayError without records."""
    if not records:
        raise ReplayError("no replay records: nothing was replayed")
    groups: dict[tuple[str, str, str], list[ReplayRecord]] = {}
    for record in records:
        groups.setdefault((record.policy, record.cache, record.backend), []).append(record)
    base = {r.trajectory: r.total("prefilled") for r in records if r.policy == "keep_all" and r.cache == "radix"}
    return [_row(key, group, base) for key, group in groups.items()]


def _row(key: tuple[str, str, str], group: Sequence[ReplayRecord], base: Mapping[str, int]) -> Row:
    sums = {name: sum(r.total(name) for r in group) for name in ("prompt", "prefix", "spliced", "prefilled", "edits")}
    fallbacks: Counter[str] = Counter(t.fallback for r in group for t in r.turns if t.fallback)
    with_turns = [r for r in group if r.turns]
    known = all(r.trajectory in base for r in with_turns)
    interval: Interval | None = None
    if len(with_turns) > 1:
        hits = [Ratio(r.total("prefix") + r.total("spliced"), r.total("prompt")) for r in with_turns]
        interval = ClusterBootstrap(len(hits), resamples=1000).ratio(hits)
    return Row(
        policy=key[0],
        cache=key[1],
        backend=key[2],
        trajectories=len(group),
        turns=sum(len(r.turns) for r in group),
        full=sum(r.total("full") for r in group),
        hit_rate=_share(sums["prefix"] + sums["spliced"], sums["prompt"]),
        interval=(interval.low, interval.high) if interval is not None else None,
        saved=sum(base[r.trajectory] for r in with_turns) - sums["prefilled"] if known else None,
        stopped=sum(r.stopped is not None for r in group),
        fallbacks=dict(sorted(fallbacks.items())),
        **sums,
    )


def by_turn(records: Iterable[ReplayRecord], edges: Sequence[int] = EDGES) -> list[Bucket]:
    """Prompt length and hits by the turn's number. edges: first turns of the buckets, from 1; none is empty."""
    if list(edges) != sorted(set(edges)) or not edges or edges[0] != 1:
        raise ReplayError("the buckets of turns must start at 1 and ascend")
    turns = [(number, turn) for record in records for number, turn in enumerate(record.turns, 1)]
    longest = max((number for number, _ in turns), default=0)
    buckets = []
    for first, following in zip(edges, [*edges[1:], longest + 1], strict=True):
        inside = [turn for number, turn in turns if first <= number < following]
        if inside:
            buckets.append(_bucket(first, min(following - 1, longest), inside))
    return buckets


def _bucket(first: int, last: int, turns: Sequence[TurnRecord]) -> Bucket:
    count, prompt = len(turns), sum(t.prompt for t in turns)
    return Bucket(
        first=first,
        last=last,
        turns=count,
        prompt=prompt / count,
        hit_rate=_share(sum(t.prefix + t.spliced for t in turns), prompt),
        spliced=sum(t.spliced for t in turns) / count,
        prefilled=sum(t.prefilled for t in turns) / count,
        edits=sum(t.edits for t in turns),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
