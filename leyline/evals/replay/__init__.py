"""Recorded trajectories through policy, cache and, if wanted, a real backend: what hits, what is spliced, what is left.

The recording fixes what the model said and saw, so a replay says nothing about solving the task; `leyline eval` does.
"""

from leyline.evals.replay.by_policy import Bucket, Row, by_turn, summarise
from leyline.evals.replay.recorded import RecordedBackend
from leyline.evals.replay.replayed import FORMAT, ReplayError, ReplayRecord, read_records
from leyline.evals.replay.run import BUILTIN_POLICIES, Plan, run_plan
from leyline.evals.replay.traces import TraceError, Trajectory, iter_trajectories, load_trajectories
from leyline.evals.replay.walk import Setting, replay, replay_together

__all__ = [
    "BUILTIN_POLICIES",
    "FORMAT",
    "Bucket",
    "Plan",
    "RecordedBackend",
    "ReplayError",
    "ReplayRecord",
    "Row",
    "Setting",
    "TraceError",
    "Trajectory",
    "by_turn",
    "iter_trajectories",
    "load_trajectories",
    "read_records",
    "replay",
    "replay_together",
    "run_plan",
    "summarise",
]
