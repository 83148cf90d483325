"""Recorded trajectories through policy, cache and, if wanted, a real backend: what hits, what is spliced, what is left.

The recording fixes what the model said and saw, so a replay says nothing about solving the task; `leyline eval` does.
"""

from leyline.evals.replay.engine import Setting, replay, replay_together
from leyline.evals.replay.records import FORMAT, ReplayRecord, read_records
from leyline.evals.replay.run import BUILTIN_POLICIES, Plan, run_plan
from leyline.evals.replay.tables import Bucket, Row, by_turn, summarise

__all__ = [
    "BUILTIN_POLICIES",
    "FORMAT",
    "Bucket",
    "Plan",
    "ReplayRecord",
    "Row",
    "Setting",
    "by_turn",
    "read_records",
    "replay",
    "replay_together",
    "run_plan",
    "summarise",
]
