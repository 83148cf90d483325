"""What the fidelity lab measured, by number of edits: does the model answer on spliced KV as it would without?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from leyline.evals.fidelity.probe import FidelityRecord
from leyline.evals.stats.clustered import Interval, Ratio, solve_rate

EDGES = (1, 2, 3, 6, 11)


@dataclass(frozen=True)
class AgreementPoint:
    """Probes of one model and policy at one seam, with `edits_from` to `edits_to` edits so far (None: or more).

    honest: share whose first token is that of the honest prefill of the edited history, with an interval clustered by
    trajectory. full: the same against the unedited history. references: how often these two agree with each other,
    which is what the edit itself does.
    """

    model: str
    policy: str
    seam: int
    edits_from: int
    edits_to: int | None
    edits_mean: float
    probes: int
    trajectories: int
    honest: Interval
    full: float
    references: float


def agreement_points(records: Sequence[FidelityRecord], confidence: float = 0.95) -> list[AgreementPoint]:
    """By model, policy and seam, then by edits; empty parts are left out."""
    points = []
    for model, policy, seam in sorted({(r.model, r.policy, r.seam) for r in records}):
        mine = [r for r in records if (r.model, r.policy, r.seam) == (model, policy, seam)]
        for low, high in pairwise([*EDGES, None]):
            inside = [r for r in mine if low is not None and low <= r.edits and (high is None or r.edits < high)]
            if low is not None and inside:
                to = None if high is None else high - 1
                points.append(_point(inside, low, to, confidence))
    return points


def _point(records: Sequence[FidelityRecord], low: int, high: int | None, confidence: float) -> AgreementPoint:
    groups: dict[str, list[bool]] = {}
    for record in records:
        groups.setdefault(record.trajectory, []).append(record.agree_honest)
    first, count = records[0], len(records)
    return AgreementPoint(
        model=first.model,
        policy=first.policy,
        seam=first.seam,
        edits_from=low,
        edits_to=high,
        edits_mean=sum(r.edits for r in records) / count,
        probes=count,
        trajectories=len(groups),
        honest=solve_rate({name: Ratio(sum(g), len(g)) for name, g in groups.items()}, confidence)[0],
        full=sum(r.agree_full for r in records) / count,
        references=sum(r.references_agree for r in records) / count,
    )
