"""Counts per arm while an eval runs; the report computes its numbers from the records again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from leyline.evals.trials.record import TrialOutcome, TrialRecord


@dataclass
class ArmTally:
    """One arm. planned, done: trials; the rest are sums over the recorded ones, in tokens."""

    planned: int = 0
    outcomes: Counter[TrialOutcome] = field(default_factory=Counter)
    prompt: int = 0
    cached: int = 0
    spliced: int = 0
    prefilled: int = 0
    shed: int = 0

    @property
    def done(self) -> int:
        return self.outcomes.total()

    @property
    def scored(self) -> int:
        """Trials with a verdict: the denominator of the solve rate."""
        return self.done - self.outcomes[TrialOutcome.UNSCORED]

    @property
    def solved(self) -> int:
        return self.outcomes[TrialOutcome.SOLVED]

    @property
    def hit_rate(self) -> float | None:
        """(cached + spliced) / prompt tokens over all turns, or None before the first."""
        return (self.cached + self.spliced) / self.prompt if self.prompt else None

    def add(self, record: TrialRecord) -> None:
        self.outcomes[record.outcome] += 1
        self.prompt += record.total("prompt")
        self.cached += record.total("prefix")
        self.spliced += record.total("spliced")
        self.prefilled += record.total("prefilled")
        self.shed += record.total("shed")


def tally(arms: Iterable[str], records: Iterable[TrialRecord]) -> dict[str, ArmTally]:
    """Tallies by arm, in the order of `arms`, each of which is planned once for every time it is named."""
    found: dict[str, ArmTally] = {}
    for arm in arms:
        found.setdefault(arm, ArmTally()).planned += 1
    for record in records:
        found.setdefault(record.arm, ArmTally()).add(record)
    return found
