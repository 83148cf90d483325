"""Where the trials ran: machines and releases, from the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from leyline.evals.report.sources import ArmTrials


@dataclass(frozen=True)
class Origin:
    """The trials of one machine under one set of releases.

    machine: empty for records that do not say. first, last: Unix times at which trials started, 0 where not known.
    """

    machine: str
    versions: dict[str, str]
    trials: int
    first: float
    last: float


def origins(arms: Sequence[ArmTrials]) -> list[Origin]:
    """Every trial of the report in exactly one of them, in order of the first start."""
    groups: dict[tuple[str, tuple[tuple[str, str], ...]], list[float]] = {}
    for arm in arms:
        for trial in arm.trials:
            record = trial.record
            groups.setdefault((record.machine, tuple(sorted(record.versions.items()))), []).append(record.started)
    found = [
        Origin(machine, dict(versions), len(starts), min(starts), max(starts))
        for (machine, versions), starts in groups.items()
    ]
    return sorted(found, key=lambda origin: (origin.first, origin.machine))
