"""Tables of a fidelity measurement, and the recommendation that follows from them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from leyline.directives import Mode
from leyline.directives.counts import count
from leyline.evals.fidelity.probe import FidelityError, FidelityRecord
from leyline.evals.stats.clustered import ClusterBootstrap, Ratio, wilson_share

THRESHOLD = 0.9
LEAST_PROBES = 30
MARGINS = (0.0, 1.0, 3.0)
EDITS = (1, 3, 6, 11)
RULE = (
    "AMORTIZE is recommended at the smallest seam at which (a) the first token and (b) the greedy continuation follow "
    "one of the two references, the full history or the honest prefill of the edited one: the lower ends of the 95 % "
    "intervals of (a) the share of probes whose first token is that of a reference and (b) the mean share of the "
    "continuation's tokens before it leaves both references are at least the threshold. The intervals count "
    "trajectories, not probes: the lower one of Wilson's with each trajectory as one trial and the bootstrap over "
    f"trajectories. Otherwise, and with fewer than {LEAST_PROBES} probes, FORGET."
)


@dataclass(frozen=True)
class Row:
    """All probes at one seam, or of a part of them. Shares are over probes; common prefixes and KL are means.

    either: the first token is that of a reference; followed: the mean share of the continuation before it leaves both.
    references: the same for honest prefill against full history, which is what the edit itself does.
    """

    label: str
    seam: int
    probes: int
    trajectories: int
    agree_full: float
    agree_honest: float
    either: float
    common_full: float
    common_honest: float
    followed: float
    kl_full: float
    kl_honest: float
    references_agree: float
    common_references: float
    kl_references: float

    def to_dict(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """What to do with a model. mode and seam as of `Gate`; reason: one sentence with the numbers that decided."""

    mode: Mode
    seam: int
    threshold: float
    reason: str

    @property
    def text(self) -> str:
        if self.mode is Mode.FORGET:
            return "FORGET"
        return "AMORTIZE" if not self.seam else f"AMORTIZE with seam {self.seam}"


def followed(record: FidelityRecord) -> float:
    """Share of the continuation's tokens before the spliced one leaves both references."""
    return max(record.common_full / record.tokens_full, record.common_honest / record.tokens_honest)


def rows(records: Sequence[FidelityRecord]) -> list[Row]:
    """One row a seam, ascending. Raises FidelityError without records."""
    if not records:
        raise FidelityError(
            "no probe: no turn had spliced KV; take longer trajectories, or a policy that edits messages before the end"
        )
    return [_row("all", [r for r in records if r.seam == seam]) for seam in sorted({r.seam for r in records})]


def by_margin(records: Iterable[FidelityRecord], seam: int, edges: Sequence[float] = MARGINS) -> list[Row]:
    """Rows by the honest prefill's margin: how sure it is of its first token, in nats. Empty parts are left out."""
    return _parts([r for r in records if r.seam == seam], [r"{} nats or more", "{} to {} nats"], edges, "margin_honest")


def by_edits(records: Iterable[FidelityRecord], seam: int, edges: Sequence[int] = EDITS) -> list[Row]:
    """Rows by the number of edits made so far. Empty parts are left out."""
    return _parts([r for r in records if r.seam == seam], ["{} edits or more", "{} to {} edits"], edges, "edits")


def recommend(records: Sequence[FidelityRecord], threshold: float = THRESHOLD) -> Verdict:
    """The recommendation by RULE. Raises FidelityError."""
    if not 0 < threshold < 1:
        raise FidelityError(f"the threshold must lie between 0 and 1, got {threshold}")
    seams = [row.seam for row in rows(records)]
    least = least_trajectories(threshold)
    said = []
    for seam in seams:
        there = [r for r in records if r.seam == seam]
        if len(there) < LEAST_PROBES:
            few = count(len(there), "probe is", "probes are")
            reason = f"{few} too few to say; at least {LEAST_PROBES} are needed"
            return Verdict(Mode.FORGET, 0, threshold, reason)
        found = len({r.trajectory for r in there})
        if found < least:
            few = count(found, "trajectory is", "trajectories are")
            best = wilson_share(1.0, found).low
            reason = f"{few} too few to say: if all agreed, the bound would be {best:.1%}; at least {least} are needed"
            return Verdict(Mode.FORGET, 0, threshold, f"{reason} for the threshold {threshold:.0%}")
        first, rest = bounds(there)
        text = f"at seam {seam} the bounds are {first:.1%} (first token) and {rest:.1%} (continuation)"
        if min(first, rest) >= threshold:
            return Verdict(Mode.AMORTIZE, seam, threshold, f"{text}, at least the threshold {threshold:.0%}")
        said.append(text)
    return Verdict(Mode.FORGET, 0, threshold, f"{'; '.join(said)}; the threshold is {threshold:.0%}")


def least_trajectories(threshold: float) -> int:
    """So many trajectories prove a share of `threshold`, if every probe of each agrees."""
    odds = threshold / (1 - threshold) * (1 / wilson_share(1.0, 1).low - 1)  # where all agree the end is n / (n + z^2)
    return math.ceil(odds - 1e-9)


def bounds(records: Sequence[FidelityRecord]) -> tuple[float, float]:
    """Lower ends of the 95 % intervals of first-token agreement and of the followed share.

    The unit is the trajectory: its probes are turns of one conversation, and much alike. The bootstrap over them has
    no width where all agree, and too little with few of them; Wilson's interval with as many trials as trajectories
    says how little few prove. The lower end of the two counts.
    """
    groups: dict[str, list[FidelityRecord]] = {}
    for record in records:
        groups.setdefault(record.trajectory, []).append(record)
    bootstrap = ClusterBootstrap(len(groups))
    lows = []
    for score in (_agrees, followed):
        values = [Ratio(sum(map(score, group)), len(group)) for group in groups.values()]
        found = bootstrap.ratio(values)
        low = wilson_share(min(1.0, found.estimate), len(groups)).low
        lows.append(low if len(groups) == 1 else min(low, found.low))
    return lows[0], lows[1]


def _agrees(record: FidelityRecord) -> float:
    return float(record.agree_either)


def _row(label: str, records: Sequence[FidelityRecord]) -> Row:
    probes = len(records)

    def mean(name: str) -> float:
        return sum(float(getattr(r, name)) for r in records) / probes

    means = {
        name: mean(name)
        for name in (
            *("agree_full", "agree_honest", "common_full", "common_honest", "kl_full", "kl_honest"),
            *("references_agree", "common_references", "kl_references"),
        )
    }
    return Row(
        label=label,
        seam=records[0].seam,
        probes=probes,
        trajectories=len({r.trajectory for r in records}),
        either=mean("agree_either"),
        followed=sum(map(followed, records)) / probes,
        **means,
    )


def _parts(records: Sequence[FidelityRecord], labels: Sequence[str], edges: Sequence[float], name: str) -> list[Row]:
    parts = []
    for edge, following in zip(edges, [*edges[1:], None], strict=True):
        inside = [
            r for r in records if getattr(r, name) >= edge and (following is None or getattr(r, name) < following)
        ]
        if inside:
            whole = isinstance(edge, int)
            shown = following - 1 if whole and following is not None else following
            label = labels[0].format(edge) if following is None else labels[1].format(edge, shown)
            parts.append(_row(label, inside))
    return parts
